package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/foundation/fault"
)

// Open returns the configuration of two buckets that do not exist yet, the second for originals. It removes both when t
// ends.
type Open func(t testing.TB) blob.Config

// Run runs the suite, one parallel subtest per behaviour.
func Run(t *testing.T, open Open) {
	s := suite{open}
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"put_is_read_back", s.roundTrip},
		{"object_that_no_cache_may_keep", s.noStore},
		{"read_is_bounded", s.boundedRead},
		{"put_overwrites", s.putOverwrites},
		{"concurrent_puts_do_not_mix", s.concurrentPuts},
		{"keys_are_any_text", s.anyKey},
		{"missing_object_is_not_found", s.notFound},
		{"delete_removes_only_the_prefix", s.deleteExactly},
		{"delete_of_nothing_succeeds", s.deleteNothing},
		{"delete_requires_directory_prefix", s.deleteDirectoryOnly},
		{"list_and_delete_span_pages", s.manyObjects},
		{"page_continues_after_key", s.pageContinues},
		{"first_claim_owns_bucket", s.firstClaimOwns},
		{"concurrent_claims_have_one_winner", s.concurrentClaims},
		{"concurrent_creates_succeed", s.concurrentCreates},
		{"missing_bucket_is_named", s.missingBucket},
		{"anonymous_client_can_only_read_objects", s.anonymous},
		{"originals_are_private_and_not_cached", s.originals},
		{"public_bucket_of_originals_is_refused", s.publicOriginals},
		{"ended_context_is_returned", s.endedContext},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t)
		})
	}
}

type suite struct{ open Open }

// new returns the bucket of cfg, which is closed when t ends.
func (s suite) new(t testing.TB, cfg blob.Config) *blob.Bucket {
	t.Helper()
	if wrong := cfg.Validate(); wrong != nil {
		t.Fatalf("invalid configuration: %v", wrong)
	}
	b, err := blob.New(cfg, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// create creates a bucket and returns it with its configuration.
func (s suite) create(t testing.TB) (*blob.Bucket, blob.Config) {
	t.Helper()
	cfg := s.open(t)
	cfg.CreateBucket, cfg.PublicRead = true, true
	b := s.new(t, cfg)
	if err := b.EnsureBucket(t.Context()); err != nil {
		t.Fatalf("ensure bucket: %v", err)
	}
	return b, cfg
}

func put(t testing.TB, b *blob.Bucket, key, contentType string, body []byte) {
	t.Helper()
	if err := b.Put(t.Context(), key, contentType, bytes.NewReader(body), int64(len(body))); err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
}

// get returns the bytes and the description of an object.
func get(t testing.TB, b *blob.Bucket, key string) ([]byte, blob.ObjectInfo) {
	t.Helper()
	body, info, err := b.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("read %q: %v", key, err)
	}
	return got, info
}

// keys returns the keys below a prefix.
func keys(t testing.TB, b *blob.Bucket, prefix string) []string {
	t.Helper()
	objects, more, err := b.Page(t.Context(), prefix, "", 10_000)
	if err != nil || more {
		t.Fatalf("list %q: %v, more: %t", prefix, err, more)
	}
	var found []string
	for _, o := range objects {
		found = append(found, o.Key)
	}
	return found
}

func wantKeys(t testing.TB, b *blob.Bucket, prefix string, want ...string) {
	t.Helper()
	if got := keys(t, b, prefix); !slices.Equal(got, want) {
		t.Fatalf("keys below %q: got %q, want %q", prefix, got, want)
	}
}

func (s suite) noStore(t *testing.T) {
	b, _ := s.create(t)
	if err := b.PutNoStore(t.Context(), "canary/1/2-a/card.png", "image/png", strings.NewReader("xyz"), 3); err != nil {
		t.Fatal(err)
	}
	if body, info := get(t, b, "canary/1/2-a/card.png"); string(body) != "xyz" || info.CacheControl != blob.NoStore ||
		info.ContentType != "image/png" {
		t.Errorf("got %q with %+v", body, info)
	}
}

func (s suite) boundedRead(t *testing.T) {
	b, _ := s.create(t)
	put(t, b, "a/b", "image/png", []byte("xyz"))
	if got, err := b.Read(t.Context(), "a/b", 3); string(got) != "xyz" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := b.Read(t.Context(), "a/b", 2); !fault.Is(err, fault.Conflict) {
		t.Errorf("above the limit: got %q, %v", got, err)
	}
	if got, err := b.Read(t.Context(), "a/c", 2); !fault.Is(err, fault.NotFound) {
		t.Errorf("missing: got %q, %v", got, err)
	}
}

func (s suite) roundTrip(t *testing.T) {
	b, _ := s.create(t)
	allBytes := make([]byte, 256)
	for i := range allBytes {
		allBytes[i] = byte(i)
	}
	for contentType, body := range map[string][]byte{
		"image/webp": allBytes,
		"image/jpeg": bytes.Repeat(allBytes, 3<<12), // 3 MiB
		"image/avif": {},
	} {
		key := "products/1/2/3-abc/" + strings.ReplaceAll(contentType, "/", ".")
		put(t, b, key, contentType, body)
		got, info := get(t, b, key)
		if !bytes.Equal(got, body) {
			t.Errorf("%s: got %d bytes that differ from the %d put", key, len(got), len(body))
		}
		want := blob.ObjectInfo{
			Key: key, Size: int64(len(body)), ContentType: contentType, CacheControl: blob.CacheControl,
			ETag: info.ETag, Modified: info.Modified,
		}
		if info != want || info.ETag == "" || info.Modified.IsZero() {
			t.Errorf("got %+v, want %+v with an ETag and a time", info, want)
		}
	}
}

func (s suite) putOverwrites(t *testing.T) {
	b, _ := s.create(t)
	for _, body := range []string{"a longer first body", "a longer first body", "second"} {
		put(t, b, "p/1/k", "image/png", []byte(body))
		if got, _ := get(t, b, "p/1/k"); string(got) != body {
			t.Fatalf("got %q, want %q", got, body)
		}
	}
	wantKeys(t, b, "", "p/1/k")
}

func (s suite) concurrentPuts(t *testing.T) {
	b, _ := s.create(t)
	body := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 50_000+i) }
	var group sync.WaitGroup
	for i := range 24 {
		group.Go(func() {
			for _, key := range []string{fmt.Sprintf("p/own/%d", i), "p/shared/k"} {
				if err := b.Put(t.Context(), key, "image/png", bytes.NewReader(body(i)), int64(len(body(i)))); err != nil {
					t.Errorf("put %s: %v", key, err)
				}
			}
		})
	}
	group.Wait()
	for i := range 24 {
		if got, _ := get(t, b, fmt.Sprintf("p/own/%d", i)); !bytes.Equal(got, body(i)) {
			t.Errorf("object %d: got other bytes", i)
		}
	}
	if got, _ := get(t, b, "p/shared/k"); !bytes.Equal(got, body(int(got[0]))) {
		t.Error("the shared object mixes two bodies")
	}
}

func (s suite) anyKey(t *testing.T) {
	b, _ := s.create(t)
	all := []string{
		"u/ein Bild.jpg", "u/a+b%20c.jpg", "u/größe/日本/🖼.webp", "u/q?x=1&y=2", "u/#hash", "u/~tilde'(1)!*.png", "u/<&>\"",
	}
	for _, key := range all {
		put(t, b, key, "image/png", []byte(key))
	}
	for _, key := range all {
		if got, _ := get(t, b, key); string(got) != key {
			t.Errorf("%q: got %q", key, got)
		}
	}
	slices.Sort(all)
	wantKeys(t, b, "u/", all...)
	if err := b.DeletePrefix(t.Context(), "u/größe/日本/"); err != nil {
		t.Fatal(err)
	}
	if err := b.DeletePrefix(t.Context(), "u/"); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, b, "")
}

func (s suite) notFound(t *testing.T) {
	b, _ := s.create(t)
	put(t, b, "p/1/k", "image/png", []byte("x"))
	for _, key := range []string{"p/1/other", "p/1", "p", "q/1/k"} {
		if _, _, err := b.Get(t.Context(), key); !fault.Is(err, fault.NotFound) {
			t.Errorf("get %s: got %v, want not found", key, err)
		}
	}
}

func (s suite) deleteExactly(t *testing.T) {
	b, _ := s.create(t)
	for _, key := range []string{"a/1/x", "a/1/y/z", "a/10/x", "a/1-x", "a/1x/y", "b/a/1/x"} {
		put(t, b, key, "image/png", []byte(key))
	}
	if err := b.DeletePrefix(t.Context(), "a/1/"); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, b, "", "a/1-x", "a/10/x", "a/1x/y", "b/a/1/x")
}

func (s suite) deleteNothing(t *testing.T) {
	b, _ := s.create(t)
	put(t, b, "a/1/x", "image/png", []byte("x"))
	for range 2 {
		if err := b.DeletePrefix(t.Context(), "a/1/"); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.DeletePrefix(t.Context(), "never/was/"); err != nil {
		t.Fatal(err)
	}
}

func (s suite) deleteDirectoryOnly(t *testing.T) {
	b, _ := s.create(t)
	put(t, b, "a/1/x", "image/png", []byte("x"))
	for _, prefix := range []string{"", "/", "//", "a", "a/1", "a/1/x"} {
		if err := b.DeletePrefix(t.Context(), prefix); !fault.Is(err, fault.Internal) {
			t.Errorf("delete %q: got %v, want fault.Internal", prefix, err)
		}
	}
	wantKeys(t, b, "", "a/1/x")
}

// fillMany puts n small objects below a prefix and returns their keys in order.
func fillMany(t testing.TB, b *blob.Bucket, prefix string, n int) []string {
	t.Helper()
	want := make([]string, n)
	var group sync.WaitGroup
	for worker := range 16 {
		group.Go(func() {
			for i := worker; i < n; i += 16 {
				want[i] = fmt.Sprintf("%s%05d", prefix, i)
				if err := b.Put(t.Context(), want[i], "text/plain", strings.NewReader("x"), 1); err != nil {
					t.Errorf("put %s: %v", want[i], err)
				}
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return want
}

func (s suite) manyObjects(t *testing.T) {
	const count = 1050 // more than a page of 1,000
	b, _ := s.create(t)
	put(t, b, "z/last", "text/plain", []byte("x"))
	want := fillMany(t, b, "many/", count)
	wantKeys(t, b, "many/", want...)
	for _, key := range []string{"a/1", "b/1", "b/2"} {
		put(t, b, key, "text/plain", []byte("x"))
	}
	for _, err := range b.DeletePrefixes(t.Context(), []string{"a/", "many/", "never/was/", "b/"}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	wantKeys(t, b, "", "z/last")
}

func (s suite) concurrentCreates(t *testing.T) {
	cfg := s.open(t)
	cfg.CreateBucket, cfg.PublicRead = true, true
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			b := s.new(t, cfg)
			for range 2 {
				if err := b.EnsureBucket(t.Context()); err != nil {
					t.Errorf("ensure bucket: %v", err)
				}
			}
			if err := b.Ping(t.Context()); err != nil {
				t.Errorf("ping: %v", err)
			}
		})
	}
	group.Wait()
}

func (s suite) missingBucket(t *testing.T) {
	b := s.new(t, s.open(t))
	for operation, err := range map[string]error{
		"ping":   b.Ping(t.Context()),
		"ensure": b.EnsureBucket(t.Context()),
		"put":    b.Put(t.Context(), "a/b", "image/png", strings.NewReader("x"), 1),
		"delete": b.DeletePrefix(t.Context(), "a/"),
		"page":   errorOf3(b.Page(t.Context(), "a/", "", 1)),
		"owner":  errorOf2(b.Owner(t.Context())),
		"claim":  errorOf2(b.Claim(t.Context(), "an installation")),
	} {
		if fault.CodeOf(err) != "bucket_missing" || !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: got %v, want Unavailable with code bucket_missing", operation, err)
		}
	}
}

func (s suite) endedContext(t *testing.T) {
	b, _ := s.create(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := b.Get(ended, "a/b")
	for operation, err := range map[string]error{
		"get": err,
		"put": b.Put(ended, "a/b", "image/png", strings.NewReader("x"), 1),
		"del": b.DeletePrefix(ended, "a/"),
	} {
		if !errors.Is(err, context.Canceled) || fault.From(err) != nil {
			t.Errorf("%s: got %v, want the context's error", operation, err)
		}
	}
}
