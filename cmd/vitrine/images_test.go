package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fakeAdmin is the admin port of an API with three pages of images.
type fakeAdmin struct {
	*httptest.Server
	mu       sync.Mutex
	requests []reprocessJSON
	busy     int    // requests that get 503 before the first success
	spread   string // of each page, in seconds
	end      int64  // the last image's id

	answered chan struct{} // gets a value for each page
}

func newFakeAdmin(t *testing.T) *fakeAdmin {
	t.Helper()
	o := &fakeAdmin{spread: "0", end: 30, answered: make(chan struct{}, 100)}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

func (o *fakeAdmin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy > 0 {
		o.busy--
		http.Error(w, "overloaded", http.StatusServiceUnavailable)
		return
	}
	var req reprocessJSON
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil || r.Method+r.URL.Path != "POST/images/reprocess" {
		http.NotFound(w, r)
		return
	}
	if req.Status == "odd" {
		http.Error(w, `{"detail":"one of pending, ready, failed"}`, http.StatusUnprocessableEntity)
		return
	}
	o.requests = append(o.requests, req)
	next := "null"
	if req.After+10 < o.end {
		next = strconv.FormatInt(req.After+10, 10)
	}
	_, _ = w.Write([]byte(`{"requested":9,"skipped":1,"next":` + next + `,"spread_seconds":` + o.spread + `}`))
	o.answered <- struct{}{}
}

// reprocess runs vitrine images reprocess.
func (o *fakeAdmin) reprocess(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := run(ctx, append([]string{"images", "reprocess", "--admin", o.URL + "/"}, args...), nil, &out, &out)
	return out.String(), err
}

func TestImagesReprocess(t *testing.T) {
	t.Parallel()
	t.Run("all_pages", testImagesReprocessAllPages)
	t.Run("one_page", testImagesReprocessOnePage)
	t.Run("next_page_waits_for_spread", testImagesReprocessNextPageWaitsForSpread)
	t.Run("errors", testImagesReprocessErrors)
}

func testImagesReprocessAllPages(t *testing.T) {
	t.Parallel()
	o := newFakeAdmin(t)
	o.busy = 1
	out, err := o.reprocess(t.Context(), "--all",
		"--status", "failed", "--code", "timeout", "--older-than", "36h", "--pipeline-hash", "ab")
	if err != nil || !strings.Contains(out, "27 requested again, 3 skipped") || !strings.Contains(out, "waiting: ") {
		t.Errorf("got %v\n%s", err, out)
	}
	want := reprocessJSON{Status: "failed", Code: "timeout", OlderThan: "36h0m0s", PipelineHash: "ab", Limit: 100}
	for i, got := range o.requests {
		if want.After = int64(10 * i); got != want {
			t.Errorf("page %d: got %+v, want %+v", i+1, got, want)
		}
	}
	if len(o.requests) != 3 {
		t.Errorf("%d pages were requested, want 3", len(o.requests))
	}
}

func testImagesReprocessOnePage(t *testing.T) {
	t.Parallel()
	o := newFakeAdmin(t)
	out, err := o.reprocess(t.Context(), "--code", "timeout", "--limit", "10")
	if err != nil || len(o.requests) != 1 || !strings.Contains(out, "--after 10") || o.requests[0].Limit != 10 {
		t.Errorf("got %v and %+v\n%s", err, o.requests, out)
	}
	out, err = o.reprocess(t.Context(), "--every-image", "--limit", "10")
	if want := (reprocessJSON{All: true, Limit: 10}); err != nil || o.requests[1] != want {
		t.Errorf("every image: got %v and %+v, want %+v\n%s", err, o.requests, want, out)
	}
	out, err = o.reprocess(t.Context(), "--code", "timeout", "--after", "20")
	if err != nil || strings.Contains(out, "--after") {
		t.Errorf("last page: got %v\n%s", err, out)
	}
}

func testImagesReprocessNextPageWaitsForSpread(t *testing.T) {
	t.Parallel()
	o := newFakeAdmin(t)
	o.spread = "3600"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	go func() {
		_, err := o.reprocess(ctx, "--code", "timeout", "--all")
		done <- err
	}()
	<-o.answered
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("stopped by a signal: got %v", err)
	}
	if len(o.requests) != 1 {
		t.Errorf("%d pages were requested, want 1", len(o.requests))
	}
}

func testImagesReprocessErrors(t *testing.T) {
	t.Parallel()
	o := newFakeAdmin(t)
	for want, args := range map[string][]string{
		"give at least one of --status": {},
		"--every-image: ":               {"--every-image", "--status", "failed"},
		"or --every-image":              {"--all"},
		"--older-than: ":                {"--older-than", "-1h"},
		"--limit: ":                     {"--code", "timeout", "--limit", "0"},
		"--admin: ":                     {"--code", "timeout", "--admin", "localhost:9090"},
		"--timeout: ":                   {"--code", "timeout", "--timeout", "0"},
		"422 Unprocessable Entity":      {"--status", "odd"},
		"page 1, after image 7: ": {
			"--code", "timeout", "--after", "7", "--admin", "http://127.0.0.1:1", "--timeout", "10ms",
		},
	} {
		if out, err := o.reprocess(t.Context(), args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q\n%s", args, err, want, out)
		}
	}
	if len(o.requests) != 0 {
		t.Errorf("images were requested: %+v", o.requests)
	}
}
