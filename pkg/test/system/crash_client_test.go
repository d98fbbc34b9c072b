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

// change is one request of a client about a product, which it repeats until it is answered.
type change struct {
	method, path string // %d is the product, %d the picture
	body         string
	status       int
}

var (
	rename    = change{http.MethodPatch, "/products/%d", `{"product_name":"Stool"}`, http.StatusOK}
	remove    = change{http.MethodDelete, "/products/%d", "", http.StatusNoContent}
	reprocess = change{http.MethodPost, "/products/%d/images/%d/reprocess", "", http.StatusAccepted}
)

// replacing puts another picture in the place of the product's.
func replacing(url string) change {
	return change{http.MethodPatch, "/products/%d", `{"product_images":["` + url + `"]}`, http.StatusOK}
}

func (c change) send(s *stage, p client.Product) (client.Response, error) {
	s.t.Helper()
	args := []any{p.ID, p.Images[0].ID}
	if c != reprocess {
		args = args[:1]
	}
	return s.try(c.method, fmt.Sprintf(c.path, args...), c.body)
}

// TestCrashOfTheAPIWhileAClientChangesAProduct crashes the api before and after the COMMIT of each kind of change, when
// the cache holds what was before. A worker lives through it.
func TestCrashOfTheAPIWhileAClientChangesAProduct(t *testing.T) {
	t.Parallel()
	s := newStage(t, 4)
	s.start("worker")
	for _, row := range []struct { //nolint:paralleltest // one after the other, on one stage
		between string
		change  change
		at      failpoint.Name
		want    ending // when the client has asked again if it was not carried out
	}{
		{"PATCH's rows and their COMMIT", rename, failpoint.EditWritten, ending{version: 3, attempts: 1, fence: 1}},
		{"PATCH's COMMIT and the cache", rename, failpoint.RevisionCommitted, ending{version: 3, attempts: 1, fence: 1}},
		{"a new picture's rows and their COMMIT", replacing(s.sources.URL + drawingPath + "?new"), failpoint.EditWritten,
			ending{version: 4, attempts: 1, fence: 1}},
		{"a new picture's COMMIT and the cache", replacing(s.sources.URL + drawingPath + "?new"), failpoint.RevisionCommitted,
			ending{version: 4, attempts: 1, fence: 1}},
		{"reprocess' rows and their COMMIT", reprocess, failpoint.EditWritten, ending{version: 4, attempts: 1, fence: 3}},
		{"reprocess' COMMIT and the cache", reprocess, failpoint.RevisionCommitted, ending{version: 4, attempts: 1, fence: 3}},
		{"DELETE's rows and their COMMIT", remove, failpoint.EditWritten, ending{}},
		{"DELETE's COMMIT and the cache", remove, failpoint.RevisionCommitted, ending{}},
	} {
		t.Run(row.between, func(t *testing.T) {
			s := s.in(t)
			api := s.start("api")
			p, err := s.offer(row.between, s.sources.URL+drawingPath)
			s.must(err)
			s.ends(p.ID, untroubled) // and the cache holds it
			s.stops(api)

			api = s.doomed("api", row.at, 1)
			api.await()
			_, err = row.change.send(s, p)
			s.dies(api, caches)
			if err == nil {
				t.Error("the client was answered, by an api that had crashed before")
			}
			s.start("api")
			if row.at == failpoint.EditWritten { // it was not carried out
				s.ends(p.ID, untroubled)
				a, err := row.change.send(s, p)
				s.must(err)
				if a.Status != row.change.status {
					t.Fatalf("asked again, the answer is %d: %s", a.Status, a.Body)
				}
			}
			if row.change != remove {
				s.ends(p.ID, row.want)
				return
			}
			eventually(t, "the product is gone for readers", func() error {
				if a := s.call(http.MethodGet, fmt.Sprintf("/products/%d", p.ID), ""); a.Status != http.StatusNotFound {
					return fmt.Errorf("got %d", a.Status)
				}
				return nil
			})
			below := fmt.Sprintf("products/%d/", p.ID)
			s.comes(below)
			if keys := s.objects(below); len(keys) != 0 {
				t.Errorf("of a deleted product there are still %v", keys)
			}
		})
	}
}

// TestCrashOfTheAPIBetweenAKeyAndItsAnswer sends the same POST with the same Idempotency-Key again after a crash: one
// product, whether or not the first had been carried out.
func TestCrashOfTheAPIBetweenAKeyAndItsAnswer(t *testing.T) {
	t.Parallel()
	s := newStage(t, 4)
	s.start("worker")
	for _, row := range []struct { //nolint:paralleltest // one after the other, on one stage
		between  string
		at       failpoint.Name
		replayed string
	}{
		{"the product, its key and their COMMIT", failpoint.KeyWritten, ""},
		{"the COMMIT and the answer", failpoint.CreateCommitted, "true"},
	} {
		t.Run(row.between, func(t *testing.T) {
			s := s.in(t)
			body, err := json.Marshal(map[string]any{
				"user_id": s.userID, "product_name": row.between, "product_price": "1",
				"product_images": []string{s.sources.URL + drawingPath},
			})
			s.must(err)
			key := rand()
			post := func() (client.Response, error) {
				return s.try(http.MethodPost, "/products", string(body), "Idempotency-Key", key)
			}
			api := s.doomed("api", row.at, 1)
			api.await()
			if _, err := post(); err == nil {
				t.Error("the client was answered, by an api that had crashed before")
			}
			s.dies(api, caches)
			s.start("api")
			var p client.Product
			var last client.Response
			eventually(t, "the key is free", func() error { // Postgres may not have noticed yet that the first is dead
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
			if ids := s.named(row.between); len(ids) != 1 || ids[0] != p.ID {
				t.Errorf("there are %v, want product %d alone", ids, p.ID)
			}
			s.ends(p.ID, untroubled)
		})
	}
}
