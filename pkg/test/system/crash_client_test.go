package system_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/test/client"
)

// change is a client's request that changes a product.
type change struct {
	method, path string // with %d for the product's id and the image's id
	body         string
	status       int
}

var (
	rename    = change{http.MethodPatch, "/products/%d", `{"product_name":"Stool"}`, http.StatusOK}
	remove    = change{http.MethodDelete, "/products/%d", "", http.StatusNoContent}
	reprocess = change{http.MethodPost, "/products/%d/images/%d/reprocess", "", http.StatusAccepted}
)

// replacing returns a PATCH that replaces the product's image.
func replacing(url string) change {
	return change{http.MethodPatch, "/products/%d", `{"product_images":["` + url + `"]}`, http.StatusOK}
}

func (c change) send(s *crashEnv, p client.Product) (client.Response, error) {
	s.t.Helper()
	args := []any{p.ID, p.Images[0].ID}
	if c != reprocess {
		args = args[:1]
	}
	return s.try(c.method, fmt.Sprintf(c.path, args...), c.body)
}

// TestAPICrashDuringChange crashes the api before and after the COMMIT of each kind of change, while the cache holds the
// version before the change. The worker keeps running.
func TestAPICrashDuringChange(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	s.start("worker")
	for _, row := range []struct { //nolint:paralleltest // subtests share one system
		name   string
		change change
		at     failpoint.Name
		want   outcome // after the client repeated the request if it had no effect
	}{
		{"patch_before_commit", rename, failpoint.EditWritten, outcome{version: 3, attempts: 1, fencingToken: 1}},
		{"patch_after_commit", rename, failpoint.RevisionCommitted, outcome{version: 3, attempts: 1, fencingToken: 1}},
		{"new_image_before_commit", replacing(s.sources.URL + drawingPath + "?new"), failpoint.EditWritten,
			outcome{version: 4, attempts: 1, fencingToken: 1}},
		{"new_image_after_commit", replacing(s.sources.URL + drawingPath + "?new"), failpoint.RevisionCommitted,
			outcome{version: 4, attempts: 1, fencingToken: 1}},
		{"reprocess_before_commit", reprocess, failpoint.EditWritten, outcome{version: 4, attempts: 1, fencingToken: 3}},
		{"reprocess_after_commit", reprocess, failpoint.RevisionCommitted, outcome{version: 4, attempts: 1, fencingToken: 3}},
		{"delete_before_commit", remove, failpoint.EditWritten, outcome{}},
		{"delete_after_commit", remove, failpoint.RevisionCommitted, outcome{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := s.forSubtest(t)
			api := s.start("api")
			p, err := s.tryPost(row.name, s.sources.URL+drawingPath)
			s.must(err)
			s.checkOutcome(p.ID, undisturbed) // fills the cache
			s.stop(api)

			api = s.startWithFailpoint("api", row.at, 1)
			api.await()
			_, err = row.change.send(s, p)
			s.awaitCrash(api, cacheGroup)
			if err == nil {
				t.Error("the crashed api sent a response")
			}
			s.start("api")
			if row.at == failpoint.EditWritten { // the request had no effect
				s.checkOutcome(p.ID, undisturbed)
				a, err := row.change.send(s, p)
				s.must(err)
				if a.Status != row.change.status {
					t.Fatalf("the repeated request got %d: %s", a.Status, a.Body)
				}
			}
			if row.change == remove {
				s.checkDeleted(p.ID)
				return
			}
			s.checkOutcome(p.ID, row.want)
		})
	}
}

// checkDeleted waits until a product is not found, and checks that its scheduled deletions remove all its objects.
func (s *crashEnv) checkDeleted(id int64) {
	s.t.Helper()
	eventually(s.t, "the product is not found", func() error {
		if a := s.call(http.MethodGet, fmt.Sprintf("/products/%d", id), ""); a.Status != http.StatusNotFound {
			return fmt.Errorf("got %d", a.Status)
		}
		return nil
	})
	prefix := fmt.Sprintf("products/%d/", id)
	s.runDeletions(prefix)
	if keys := s.objects(prefix); len(keys) != 0 {
		s.t.Errorf("a deleted product still has the objects %v", keys)
	}
}

// TestAPICrashWithIdempotencyKey repeats a POST with the same Idempotency-Key after a crash. There must be one product,
// whether the first request had an effect or not.
func TestAPICrashWithIdempotencyKey(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	s.start("worker")
	for _, row := range []struct { //nolint:paralleltest // subtests share one system
		name     string
		at       failpoint.Name
		replayed string
	}{
		{"before_commit", failpoint.KeyWritten, ""},
		{"after_commit", failpoint.CreateCommitted, "true"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := s.forSubtest(t)
			body, err := json.Marshal(map[string]any{
				"user_id": s.userID, "product_name": row.name, "product_price": "1",
				"product_images": []string{s.sources.URL + drawingPath},
			})
			s.must(err)
			key := rand()
			post := func() (client.Response, error) {
				return s.try(http.MethodPost, "/products", string(body), "Idempotency-Key", key)
			}
			api := s.startWithFailpoint("api", row.at, 1)
			api.await()
			if _, err := post(); err == nil {
				t.Error("the crashed api sent a response")
			}
			s.awaitCrash(api, cacheGroup)
			s.start("api")
			var p client.Product
			var last client.Response
			eventually(t, "the key is released", func() error { // Postgres may not have noticed yet that the connection is closed
				last, err = post()
				s.must(err)
				if last.Status == http.StatusConflict {
					return errors.New("409")
				}
				return nil
			})
			s.decode(last, http.StatusCreated, &p)
			if got := last.Header.Get("Idempotent-Replayed"); got != row.replayed {
				t.Errorf("Idempotent-Replayed is %q, want %q", got, row.replayed)
			}
			if ids := s.productIDs(row.name); len(ids) != 1 || ids[0] != p.ID {
				t.Errorf("got products %v, want only %d", ids, p.ID)
			}
			s.checkOutcome(p.ID, undisturbed)
		})
	}
}
