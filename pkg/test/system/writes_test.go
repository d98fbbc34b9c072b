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
)

// What clients change, through the whole line: two APIs, so that each has to hear of what the other wrote.
func TestClientsChangeWhatTheyMade(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.start("worker")
	s.start("api")
	photo, drawing, gone := s.sources.URL+"/photo.jpg", s.sources.URL+"/drawing.png", s.sources.URL+"/gone.jpg"
	created := s.once(s.user(), "first", photo, gone)
	var p product
	s.decode(created, http.StatusCreated, &p)
	path := fmt.Sprintf("/products/%d", p.ID)
	before := s.settled(p.ID)

	// The tag is the one of the answer to the POST: the workers have written since, and that does not matter.
	seen := created.header.Get("ETag")
	patch := fmt.Sprintf(`{"product_price":1,"product_description":null,"product_images":["%s","%s"]}`, drawing, photo)
	patched := s.call(http.MethodPatch, path, patch, "If-Match", seen, "Content-Type", "application/merge-patch+json")
	if read := s.call(http.MethodGet, path, ""); patched.status != http.StatusOK || revisionOf(t, read.body) != 2 ||
		revisionOf(t, patched.body) != 2 {
		t.Fatalf("patched: %d %s\nread: %s", patched.status, patched.body, read.body)
	}
	after := s.settled(p.ID)
	if len(after.Images) != 2 || after.Images[1].ID != before.Images[0].ID || after.Images[0].Status != "ready" {
		t.Fatalf("got %+v after %+v", after.Images, before.Images)
	}
	if kept, had := after.Images[1].Renditions, before.Images[0].Renditions; len(kept) == 0 || kept[0].URL != had[0].URL ||
		after.Images[1].Attempts != 1 {
		t.Errorf("the picture that stayed has %+v, had %+v", kept, had)
	}
	if a := s.call(http.MethodPatch, path, `{"product_price":2}`, "If-Match", seen); a.status != http.StatusPreconditionFailed {
		t.Errorf("overtaken: %d %s", a.status, a.body)
	}

	remade := s.call(http.MethodPost, fmt.Sprintf("%s/images/%d/reprocess", path, after.Images[0].ID), "")
	if remade.status != http.StatusAccepted {
		t.Fatalf("reprocess: %d %s", remade.status, remade.body)
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

	if a := s.call(http.MethodDelete, path, "", "If-Match", seen); a.status != http.StatusPreconditionFailed {
		t.Errorf("an overtaken delete: %d %s", a.status, a.body)
	}
	if a := s.call(http.MethodDelete, path, "", "If-Match", remade.header.Get("ETag")); a.status != http.StatusNoContent {
		t.Fatalf("delete: %d %s", a.status, a.body)
	}
	for _, method := range []string{http.MethodGet, http.MethodDelete, http.MethodPatch} {
		body := map[string]string{http.MethodPatch: "{}"}[method]
		if a := s.call(method, path, body); a.status != http.StatusNotFound {
			t.Errorf("%s of what is gone: %d %s", method, a.status, a.body)
		}
	}
	if again := s.once(1, "first", photo, gone); !bytes.Equal(again.body, created.body) { // what was answered, was answered
		t.Errorf("the key says %s, said %s", again.body, created.body)
	}
}

// once posts a product under a key.
func (s *system) once(user int64, key string, urls ...string) answer {
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
	answers := make([]answer, times)
	var all sync.WaitGroup
	for i := range times {
		all.Go(func() {
			for { // 409 is for who comes while the first is worked on
				if answers[i] = s.once(user, "k"); answers[i].status != http.StatusConflict {
					return
				}
				if got := answers[i].header.Get("Retry-After"); got != "1" {
					t.Errorf("Retry-After is %q: %s", got, answers[i].body)
					return
				}
			}
		})
	}
	all.Wait()
	first := 0
	for _, a := range answers {
		if a.header.Get("Idempotent-Replayed") == "" {
			first++
		}
		if a.status != http.StatusCreated || !bytes.Equal(a.body, answers[0].body) || a.header.Get("Location") == "" ||
			a.header.Get("ETag") != answers[0].header.Get("ETag") {
			t.Errorf("got %d %v %s\nand %v %s", a.status, a.header, a.body, answers[0].header, answers[0].body)
		}
	}
	list := s.call(http.MethodGet, fmt.Sprintf("/products?user_id=%d", user), "")
	if n := strings.Count(string(list.body), `"revision":`); first != 1 || n != 1 {
		t.Errorf("%d products, made by %d requests", n, first)
	}
	if a := s.once(user, "k", s.sources.URL+"/photo.jpg"); a.status != http.StatusUnprocessableEntity ||
		!bytes.Contains(a.body, []byte(`"reused"`)) {
		t.Errorf("another request under the same key: %d %s", a.status, a.body)
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
		failed = append(failed, s.post(user, s.sources.URL+"/text.jpg").ID)
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
	if a := s.call(http.MethodPost, s.url+"/images/reprocess", `{"status":"failed"}`); a.status != http.StatusNotFound {
		t.Errorf("on the public port: %d", a.status)
	}
}
