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

// What clients change, through the whole line: two APIs, so that each has to hear of what the other wrote.
func TestClientsChangeWhatTheyMade(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.start("worker")
	s.start("api")
	photo, drawing := s.sources.URL+photoPath, s.sources.URL+drawingPath
	gone := s.sources.URL + "/" + imageserver.Missing
	created := s.once(s.user(), "first", photo, gone)
	var p client.Product
	s.decode(created, http.StatusCreated, &p)
	path := fmt.Sprintf("/products/%d", p.ID)
	before := s.settled(p.ID)

	// The tag is the one of the answer to the POST: the workers have written since, and that does not matter.
	seen := created.Header.Get("ETag")
	patch := fmt.Sprintf(`{"product_price":1,"product_description":null,"product_images":["%s","%s"]}`, drawing, photo)
	patched := s.call(http.MethodPatch, path, patch, "If-Match", seen, "Content-Type", "application/merge-patch+json")
	if read := s.call(http.MethodGet, path, ""); patched.Status != http.StatusOK || revisionOf(t, read.Body) != 2 ||
		revisionOf(t, patched.Body) != 2 {
		t.Fatalf("patched: %d %s\nread: %s", patched.Status, patched.Body, read.Body)
	}
	after := s.settled(p.ID)
	if len(after.Images) != 2 || after.Images[1].ID != before.Images[0].ID || after.Images[0].Status != "ready" {
		t.Fatalf("got %+v after %+v", after.Images, before.Images)
	}
	if kept, had := after.Images[1].Renditions, before.Images[0].Renditions; len(kept) == 0 || kept[0].URL != had[0].URL ||
		after.Images[1].Attempts != 1 {
		t.Errorf("the picture that stayed has %+v, had %+v", kept, had)
	}
	if a := s.call(http.MethodPatch, path, `{"product_price":2}`, "If-Match", seen); a.Status != http.StatusPreconditionFailed {
		t.Errorf("overtaken: %d %s", a.Status, a.Body)
	}

	remade := s.call(http.MethodPost, fmt.Sprintf("%s/images/%d/reprocess", path, after.Images[0].ID), "")
	if remade.Status != http.StatusAccepted {
		t.Fatalf("reprocess: %d %s", remade.Status, remade.Body)
	}
	had := after.Images[0].Renditions[0].URL
	eventually(t, "the picture is another one", func() error {
		now := s.settled(p.ID)
		if len(now.Images[0].Renditions) == 0 {
			t.Fatalf("nothing is visible while it is remade: %+v", now.Images[0])
		}
		if now.Images[0].Renditions[0].URL == had {
			return errors.New("it is the old one")
		}
		return nil
	})

	if a := s.call(http.MethodDelete, path, "", "If-Match", seen); a.Status != http.StatusPreconditionFailed {
		t.Errorf("an overtaken delete: %d %s", a.Status, a.Body)
	}
	if a := s.call(http.MethodDelete, path, "", "If-Match", remade.Header.Get("ETag")); a.Status != http.StatusNoContent {
		t.Fatalf("delete: %d %s", a.Status, a.Body)
	}
	for _, method := range []string{http.MethodGet, http.MethodDelete, http.MethodPatch} {
		body := map[string]string{http.MethodPatch: "{}"}[method]
		if a := s.call(method, path, body); a.Status != http.StatusNotFound {
			t.Errorf("%s of what is gone: %d %s", method, a.Status, a.Body)
		}
	}
	if again := s.once(1, "first", photo, gone); !bytes.Equal(again.Body, created.Body) { // what was answered, was answered
		t.Errorf("the key says %s, said %s", again.Body, created.Body)
	}
}

// once posts a product under a key.
func (s *system) once(user int64, key string, urls ...string) client.Response {
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

func TestARequestThatComesTenTimesAtOnceMakesOneProduct(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.start("api")
	user := s.user()
	const times = 10
	answers := make([]client.Response, times)
	var all sync.WaitGroup
	for i := range times {
		all.Go(func() {
			for { // 409 is for who comes while the first is worked on
				if answers[i] = s.once(user, "k"); answers[i].Status != http.StatusConflict {
					return
				}
				if got := answers[i].Header.Get("Retry-After"); got != "1" {
					t.Errorf("Retry-After is %q: %s", got, answers[i].Body)
					return
				}
			}
		})
	}
	all.Wait()
	first := 0
	for _, a := range answers {
		if a.Header.Get("Idempotent-Replayed") == "" {
			first++
		}
		if a.Status != http.StatusCreated || !bytes.Equal(a.Body, answers[0].Body) || a.Header.Get("Location") == "" ||
			a.Header.Get("ETag") != answers[0].Header.Get("ETag") {
			t.Errorf("got %d %v %s\nand %v %s", a.Status, a.Header, a.Body, answers[0].Header, answers[0].Body)
		}
	}
	list := s.call(http.MethodGet, fmt.Sprintf("/products?user_id=%d", user), "")
	if n := strings.Count(string(list.Body), `"revision":`); first != 1 || n != 1 {
		t.Errorf("%d products, made by %d requests", n, first)
	}
	if a := s.once(user, "k", s.sources.URL+photoPath); a.Status != http.StatusUnprocessableEntity ||
		!bytes.Contains(a.Body, []byte(`"reused"`)) {
		t.Errorf("another request under the same key: %d %s", a.Status, a.Body)
	}
}

func TestFailedPicturesAreAskedForAnewTogether(t *testing.T) {
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
		s.settled(id)
	}
	type bulk struct {
		Requested, Skipped int
		Next               *int64
	}
	ask := func(fields string) (got bulk) {
		t.Helper()
		s.decode(s.call(http.MethodPost, api.admin+"/images/reprocess", `{"status":"failed",`+fields+`}`), http.StatusOK, &got)
		return got
	}
	page := ask(`"limit":2`)
	if page.Requested != 2 || page.Skipped != 0 || page.Next == nil {
		t.Fatalf("got %+v", page)
	}
	if rest := ask(fmt.Sprintf(`"after":%d`, *page.Next)); rest.Requested != 1 || rest.Next != nil {
		t.Errorf("the rest is %+v", rest)
	}
	for _, id := range failed {
		eventually(t, "it has been tried again", func() error {
			if p := s.settled(id); p.Version < 4 { // made, failed, asked for, failed
				return fmt.Errorf("version %d", p.Version)
			}
			return nil
		})
	}
	if a := s.call(http.MethodPost, s.url+"/images/reprocess", `{"status":"failed"}`); a.Status != http.StatusNotFound {
		t.Errorf("on the public port: %d", a.Status)
	}
}
