package blobtest

import (
	"net/http"
	"strings"
	"testing"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
)

// createOriginals creates both buckets and returns that of the originals, with the configuration of a bucket of its name.
func (s suite) createOriginals(t testing.TB) (*blob.Bucket, blob.Config) {
	t.Helper()
	b, cfg := s.create(t)
	originals := b.Originals()
	if err := originals.EnsureBucket(t.Context()); err != nil {
		t.Fatalf("ensure the bucket of the originals: %v", err)
	}
	cfg.Bucket, cfg.OriginalsBucket = cfg.OriginalsBucket, ""
	return originals, cfg
}

func (s suite) originals(t *testing.T) {
	b, cfg := s.createOriginals(t)
	const key = "originals/1/2/3-abc/source"
	put(t, b, key, "image/png", []byte("secret"))
	got, info := get(t, b, key)
	if string(got) != "secret" || info.CacheControl != "no-store" || info.ContentType != "image/png" {
		t.Errorf("got %q with %+v", got, info)
	}
	if got, err := b.Read(t.Context(), key, int64(len("secret"))); string(got) != "secret" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := b.Read(t.Context(), key+"x", 1); !fault.Is(err, fault.NotFound) {
		t.Errorf("read of a missing object: got %v", err)
	}
	if owner, err := b.Claim(t.Context(), "an installation"); owner != "an installation" || err != nil {
		t.Errorf("claim: got %q, %v", owner, err)
	}
	for range 2 {
		if err := b.CheckPrivate(t.Context()); err != nil {
			t.Errorf("check: got %v, want that it is private", err)
		}
	}
	resp, text := request(t, http.MethodGet, cfg.Public()+key, "")
	if resp.StatusCode < http.StatusBadRequest || strings.Contains(text, "secret") {
		t.Errorf("without credentials: got %s %q", resp.Status, text)
	}
	wantKeys(t, b, "originals/", maintenance.ProbeKey, key)
	if err := b.DeletePrefix(t.Context(), "originals/1/2/3-abc/"); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, b, "originals/", maintenance.ProbeKey)
}

func (s suite) publicOriginals(t *testing.T) {
	b, cfg := s.createOriginals(t)
	cfg.CreateBucket, cfg.PublicRead = true, true
	if err := s.new(t, cfg).EnsureBucket(t.Context()); err != nil { // what an operator may have done
		t.Fatal(err)
	}
	err := b.CheckPrivate(t.Context())
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), cfg.Bucket) {
		t.Errorf("got %v, want a conflict that names the bucket", err)
	}
}
