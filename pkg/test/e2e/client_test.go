package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vitrine.io/pkg/test/imageserver"
)

// fakeAPI is an API whose images are ready at the second GET, unless it has a fault.
type fakeAPI struct {
	fault    string
	mu       sync.Mutex
	url      string
	requests map[string]int
	posts    []string
}

func newFakeAPI(t *testing.T, fault string) *fakeAPI {
	t.Helper()
	s := &fakeAPI{fault: fault, requests: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /users", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"id": 9}`)
	})
	mux.HandleFunc("POST /products", s.post)
	mux.HandleFunc("GET /products/{id}", s.get)
	images := imageserver.New()
	mux.HandleFunc("GET /media/{name}", func(w http.ResponseWriter, r *http.Request) {
		if s.fault == "text instead of an image" {
			fmt.Fprint(w, "hello")
			return
		}
		r.URL.Path = "/8x8/" + r.PathValue("name")
		images.ServeHTTP(w, r)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *fakeAPI) post(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := io.ReadAll(r.Body)
	if err != nil || s.fault == "no posts" {
		http.Error(w, "unavailable", http.StatusServiceUnavailable)
		return
	}
	s.posts = append(s.posts, string(text))
	if n := len(s.posts); s.fault == "second post is refused, third fails" && (n == 2 || n == 3) {
		if n == 2 {
			w.Header().Set("Retry-After", "1")
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"id": %d, "image_status": "pending"}`, len(s.posts))
}

func (s *fakeAPI) get(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[r.PathValue("id")]++
	if s.fault == "no products" {
		http.NotFound(w, r)
		return
	}
	if s.fault == "never ready" || s.requests[r.PathValue("id")] < 2 {
		fmt.Fprintf(w, `{"id": %s, "image_status": "pending"}`, r.PathValue("id"))
		return
	}
	fmt.Fprintf(w, `{"id": %s, "image_status": "ready", "version": 2, "updated_at": "2026-01-02T03:04:05.000006Z",
		"images": [{"status": "ready", "attempts": 1, "source_url": "%s/media/source.jpg",
		"renditions": [{"name": "thumb", "url": "%[2]s/media/%[1]s.jpg"}]}]}`, r.PathValue("id"), s.url)
}

// runHelper runs a command of the helper and decodes its tally.
func runHelper(t *testing.T, in io.Reader, args ...string) (tally, error) {
	t.Helper()
	var out bytes.Buffer
	if err := dispatch(t.Context(), args, streams{in, &out, &out}, system{}); err != nil {
		return tally{}, err
	}
	var got tally
	must(t, json.Unmarshal(out.Bytes(), &got))
	return got, nil
}

func TestBurst(t *testing.T) {
	t.Parallel()
	t.Run("posts_waits_and_downloads", testBurstPostsWaitsAndDownloads)
	t.Run("counts_downloads", testBurstCountsDownloads)
	t.Run("failures", testBurstFailures)
	t.Run("poll_stops_at_limit", testBurstPollStopsAtLimit)
}

func testBurstPostsWaitsAndDownloads(t *testing.T) {
	t.Parallel()
	s := newFakeAPI(t, "")
	got, err := runHelper(t, nil,
		"burst", "-api", s.url, "-source", "http://source/", "-products", "3", "-size", "9x8", "-download")
	must(t, err)
	must(t, got.checkAll())
	if got.Accepted != 3 || got.Ready != 3 || got.Requests != 6 || got.Downloaded != 6 || len(got.Ends) != 3 {
		t.Errorf("got %+v", got)
	}
	if want := `"product_images":["http://source/9x8/9-0-0.jpg"]`; !strings.Contains(strings.Join(s.posts, ""), want) {
		t.Errorf("posted %v, want %s", s.posts, want)
	}
}

func testBurstCountsDownloads(t *testing.T) {
	t.Parallel()
	s := newFakeAPI(t, "")
	requests := 0
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests += 7
		fmt.Fprintf(w, `{"paths": 1, "total": %d}`, requests)
	}))
	t.Cleanup(source.Close)
	got, err := runHelper(t, nil, "burst", "-api", s.url, "-source", source.URL, "-counted")
	must(t, err)
	if got.Fetched != 7 {
		t.Errorf("got %d downloads, want 7", got.Fetched)
	}
}

func testBurstFailures(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]string{
		"no posts":                 "1 of 1 requests failed: POST",
		"never ready":              "0 of 1 accepted images are ready: product 1: wait 1.5s for the images: 1 products are not settled",
		"no products":              "accepted images are ready: product 1: GET",
		"text instead of an image": "got text/plain; charset=utf-8, not an image",
	} {
		s := newFakeAPI(t, fault)
		args := []string{"burst", "-api", s.url, "-wait", "1500ms"}
		if fault == "text instead of an image" {
			args = append(args, "-download")
		}
		got, err := runHelper(t, nil, args...)
		must(t, err)
		if err := got.checkAll(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", fault, err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	t.Run("until_input_ends", testLoadUntilInputEnds)
	t.Run("cached_reads_and_refusals", testLoadCached)
	t.Run("context_canceled", testLoadContextCanceled)
}

func testLoadUntilInputEnds(t *testing.T) {
	t.Parallel()
	s := newFakeAPI(t, "")
	in, to := io.Pipe()
	go func() {
		for { // until it has posted twice and read at least once
			s.mu.Lock()
			enough := len(s.posts) >= 2 && len(s.requests) > 0
			s.mu.Unlock()
			if enough {
				break
			}
			<-time.After(time.Millisecond)
		}
		to.Close()
	}()
	got, err := runHelper(t, in, "load", "-api", s.url, "-every", "2ms", "-posts", "4")
	must(t, err)
	if got.Accepted < 2 || got.Ready != got.Images || got.Failed != 0 || got.Requests <= got.Accepted {
		t.Errorf("got %+v", got)
	}
}

// With -cached, all reads are of the first product. A 503 counts as refused only with Retry-After.
func testLoadCached(t *testing.T) {
	t.Parallel()
	s := newFakeAPI(t, "second post is refused, third fails")
	in, to := io.Pipe()
	go func() {
		for enough := false; !enough; <-time.After(time.Millisecond) {
			s.mu.Lock()
			enough = len(s.posts) >= 4 && s.requests["1"] > 3
			s.mu.Unlock()
		}
		to.Close()
	}()
	got, err := runHelper(t, in, "load", "-api", s.url, "-every", "2ms", "-posts", "3", "-cached")
	must(t, err)
	if got.Failed != 2 || got.Refused != 1 || got.Unread != 0 || got.Reads < 3 || got.Requests-got.Reads != got.Accepted+2 {
		t.Errorf("got %+v", got)
	}
	const want = "1 of 2 failed writes had a 503 with Retry-After"
	if err := got.checkOutage(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func testLoadContextCanceled(t *testing.T) {
	t.Parallel()
	s := newFakeAPI(t, "")
	c, err := newLoadClient(t.Context(), clientOptions{api: s.url})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.sendSteadily(ctx, nil, time.Hour, 1, false)
}

func testBurstPollStopsAtLimit(t *testing.T) {
	t.Parallel()
	s := newFakeAPI(t, "never ready")
	c := &loadClient{client: newAPI(s.url, false)}
	var waiting []int64
	for id := range int64(50) {
		waiting = append(waiting, id+1)
	}
	pending := c.poll(t.Context(), waiting, map[int64]error{})
	if len(pending) != 50 || len(s.requests) != 20 {
		t.Errorf("%d of 50 are pending after %d requests, want 50 after 20", len(pending), len(s.requests))
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	s := newFakeAPI(t, "")
	get := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := dispatch(t.Context(), append([]string{"get"}, args...), streams{nil, &out, &out}, system{})
		return out.String(), err
	}
	if got, err := get(s.url + "/products/1"); err != nil || !strings.Contains(got, "pending") {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := get("-want", "403,404", s.url+"/nothing"); err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{s.url + "/nothing"}, {"-want", "404", s.url + "/products/1"}, {"http://127.0.0.1:1/"}} {
		if got, err := get(args...); err == nil {
			t.Errorf("%v: got %q, want an error", args, got)
		}
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	backend := func(name string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s %s %s", name, r.Host, r.URL.Path, r.Header.Get("X-Forwarded-Host"))
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	handler, err := newProxy([]route{{Path: "/media", To: backend("minio")}, {Host: "shop", Path: "/", To: backend("api")}})
	must(t, err)
	for url, want := range map[string]string{
		"http://shop/media/a.jpg":     "200 minio shop /media/a.jpg shop",
		"http://shop:8080/products/1": "200 api shop:8080 /products/1 shop:8080",
		"http://other/products":       "404 404 page not found\n",
		"http://other/e2e/healthz":    "200 ",
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, url, nil))
		if got := fmt.Sprintf("%d %s", w.Code, w.Body); got != want {
			t.Errorf("%s: got %q, want %q", url, got, want)
		}
	}
}

func TestServersStop(t *testing.T) {
	t.Parallel()
	for _, command := range [][]string{
		{"source", "-addr", "127.0.0.1:0"}, {"proxy", "-addr", "127.0.0.1:0", "-routes", `[{"path": "/", "to": "http://x"}]`}, {"idle"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := dispatch(ctx, command, streams{nil, io.Discard, io.Discard}, system{})
		cancel()
		if err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v: %v", command, err)
		}
	}
}

func TestUntil(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		err := until(t.Context(), "condition", 10*time.Second, 4*time.Second, func(context.Context) error {
			requests++
			return fmt.Errorf("attempt %d", requests)
		})
		if err == nil || err.Error() != "wait 10s for condition: attempt 3" {
			t.Errorf("got %v", err)
		}
		err = until(t.Context(), "condition", time.Second, time.Second, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if err == nil || err.Error() != "wait 1s for condition: no result" {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err = until(ctx, "condition", time.Hour, time.Second, func(ctx context.Context) error { return ctx.Err() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestProgramsRun(t *testing.T) {
	t.Parallel()
	got, err := programs{}.run(t.Context(), command{name: "cat", stdin: strings.NewReader("hello")})
	if err != nil || got != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	long := command{name: "sh", args: []string{"-c", "echo out; echo wrong >&2; exit 3", strings.Repeat("x", 300)}}
	got, err = programs{}.run(t.Context(), long)
	if err == nil || got != "out\n" || !strings.HasSuffix(err.Error(), "xxx...: exit status 3: wrong") {
		t.Errorf("got %q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := (programs{}).run(ctx, command{name: "sleep", args: []string{"60"}}); err == nil {
		t.Error("a command continues after its context has ended")
	}
}
