package system_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
)

// TestProductChanges changes, reprocesses and deletes a product through the API.
func TestProductChanges(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.start("worker")
	s.start("api")
	photo, drawing := s.sources.URL+photoPath, s.sources.URL+drawingPath
	missing := s.sources.URL + "/" + imageserver.Missing
	created := s.postWithKey(s.user(), "first", photo, missing)
	var p client.Product
	s.decode(created, http.StatusCreated, &p)
	path := fmt.Sprintf("/products/%d", p.ID)
	before := s.awaitSettled(p.ID)

	// The ETag of the POST's response still matches, because results of the workers do not change the revision.
	etag := created.Header.Get("ETag")
	patch := fmt.Sprintf(`{"product_price":1,"product_description":null,"product_images":["%s","%s"]}`, drawing, photo)
	patched := s.call(http.MethodPatch, path, patch, "If-Match", etag, "Content-Type", "application/merge-patch+json")
	if read := s.call(http.MethodGet, path, ""); patched.Status != http.StatusOK || revisionOf(t, read.Body) != 2 ||
		revisionOf(t, patched.Body) != 2 {
		t.Fatalf("patched: %d %s\nread: %s", patched.Status, patched.Body, read.Body)
	}
	after := s.awaitSettled(p.ID)
	if len(after.Images) != 2 || after.Images[1].ID != before.Images[0].ID || after.Images[0].Status != "ready" {
		t.Fatalf("got %+v after %+v", after.Images, before.Images)
	}
	if kept, had := after.Images[1].Renditions, before.Images[0].Renditions; len(kept) == 0 || kept[0].URL != had[0].URL ||
		after.Images[1].Attempts != 1 {
		t.Errorf("the kept image has %+v, had %+v", kept, had)
	}
	if a := s.call(http.MethodPatch, path, `{"product_price":2}`, "If-Match", etag); a.Status != http.StatusPreconditionFailed {
		t.Errorf("PATCH with a stale ETag: %d %s", a.Status, a.Body)
	}

	reprocessedETag := s.reprocess(after)

	if a := s.call(http.MethodDelete, path, "", "If-Match", etag); a.Status != http.StatusPreconditionFailed {
		t.Errorf("DELETE with a stale ETag: %d %s", a.Status, a.Body)
	}
	if a := s.call(http.MethodDelete, path, "", "If-Match", reprocessedETag); a.Status != http.StatusNoContent {
		t.Fatalf("delete: %d %s", a.Status, a.Body)
	}
	for _, method := range []string{http.MethodGet, http.MethodDelete, http.MethodPatch} {
		body := map[string]string{http.MethodPatch: "{}"}[method]
		if a := s.call(method, path, body); a.Status != http.StatusNotFound {
			t.Errorf("%s of a deleted product: %d %s", method, a.Status, a.Body)
		}
	}
	replayed := s.postWithKey(1, "first", photo, missing)
	if !bytes.Equal(replayed.Body, created.Body) { // the saved response outlives the product
		t.Errorf("the key returns %s, want %s", replayed.Body, created.Body)
	}
}

// reprocess reprocesses the first image of a product, waits for its new renditions, and returns the response's ETag.
func (s *system) reprocess(p client.Product) string {
	s.t.Helper()
	reprocessed := s.call(http.MethodPost, fmt.Sprintf("/products/%d/images/%d/reprocess", p.ID, p.Images[0].ID), "")
	if reprocessed.Status != http.StatusAccepted {
		s.t.Fatalf("reprocess: %d %s", reprocessed.Status, reprocessed.Body)
	}
	had := p.Images[0].Renditions[0].URL
	eventually(s.t, "the image has new renditions", func() error {
		now := s.awaitSettled(p.ID)
		if len(now.Images[0].Renditions) == 0 {
			s.t.Fatalf("the image has no renditions while it is reprocessed: %+v", now.Images[0])
		}
		if now.Images[0].Renditions[0].URL == had {
			return errors.New("not yet")
		}
		return nil
	})
	return reprocessed.Header.Get("ETag")
}

// postWithKey posts a product with an idempotency key.
func (s *system) postWithKey(user int64, key string, urls ...string) client.Response {
	s.t.Helper()
	list, err := json.Marshal(append([]string{}, urls...))
	if err != nil {
		s.t.Fatal(err)
	}
	body := fmt.Sprintf(`{"user_id":%d,"product_name":"Chair","product_images":%s,"product_price":"12.50"}`, user, list)
	return s.call(http.MethodPost, "/products", body, "Idempotency-Key", key)
}

func revisionOf(t *testing.T, body []byte) int64 {
	t.Helper()
	var p struct {
		Revision int64 `json:"revision"`
	}
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return p.Revision
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.start("api")
	user := s.user()
	const times = 10
	responses := make([]client.Response, times)
	var all sync.WaitGroup
	for i := range times {
		all.Go(func() {
			for { // 409 means that the first request is in progress
				if responses[i] = s.postWithKey(user, "k"); responses[i].Status != http.StatusConflict {
					return
				}
				if got := responses[i].Header.Get("Retry-After"); got != "1" {
					t.Errorf("Retry-After is %q: %s", got, responses[i].Body)
					return
				}
			}
		})
	}
	all.Wait()
	first := 0
	for _, a := range responses {
		if a.Header.Get("Idempotent-Replayed") == "" {
			first++
		}
		if a.Status != http.StatusCreated || !bytes.Equal(a.Body, responses[0].Body) || a.Header.Get("Location") == "" ||
			a.Header.Get("ETag") != responses[0].Header.Get("ETag") {
			t.Errorf("got %d %v %s\nand %v %s", a.Status, a.Header, a.Body, responses[0].Header, responses[0].Body)
		}
	}
	list := s.call(http.MethodGet, fmt.Sprintf("/products?user_id=%d", user), "")
	if n := strings.Count(string(list.Body), `"revision":`); first != 1 || n != 1 {
		t.Errorf("%d products, created by %d requests", n, first)
	}
	if a := s.postWithKey(user, "k", s.sources.URL+photoPath); a.Status != http.StatusUnprocessableEntity ||
		!bytes.Contains(a.Body, []byte(`"reused"`)) {
		t.Errorf("another request with the same key: %d %s", a.Status, a.Body)
	}
}

func TestBulkReprocess(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.start("worker")
	api := s.start("api")
	user := s.user()
	var failed []int64
	for range 3 {
		failed = append(failed, s.post(user, s.sources.URL+"/"+imageserver.Text).ID)
	}
	for _, id := range failed {
		s.awaitSettled(id)
	}
	type bulk struct {
		Requested, Skipped int
		Next               *int64
	}
	reprocess := func(fields string) (got bulk) {
		t.Helper()
		s.decode(s.call(http.MethodPost, api.admin+"/images/reprocess", `{"status":"failed",`+fields+`}`), http.StatusOK, &got)
		return got
	}
	page := reprocess(`"limit":2`)
	if page.Requested != 2 || page.Skipped != 0 || page.Next == nil {
		t.Fatalf("got %+v", page)
	}
	if rest := reprocess(fmt.Sprintf(`"after":%d`, *page.Next)); rest.Requested != 1 || rest.Next != nil {
		t.Errorf("the second page is %+v", rest)
	}
	for _, id := range failed {
		eventually(t, "the image has failed again", func() error {
			if p := s.awaitSettled(id); p.Version < 4 { // created, failed, reprocessed, failed
				return fmt.Errorf("version %d", p.Version)
			}
			return nil
		})
	}
	if a := s.call(http.MethodPost, s.url+"/images/reprocess", `{"status":"failed"}`); a.Status != http.StatusNotFound {
		t.Errorf("on the public port: %d", a.Status)
	}
}
