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

// office is an API's admin port with pages of pictures.
type office struct {
	*httptest.Server
	mu     sync.Mutex
	asked  []reprocessJSON
	busy   int    // requests that are answered 503 before the first that is not
	spread string // of each page, in seconds
	end    int64  // the id after which there are none

	answered chan struct{} // has one element for each page
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{spread: "0", end: 30, answered: make(chan struct{}, 100)}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

func (o *office) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy > 0 {
		o.busy--
		http.Error(w, "overloaded", http.StatusServiceUnavailable)
		return
	}
	var ask reprocessJSON
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || r.Method+r.URL.Path != "POST/images/reprocess" {
		http.NotFound(w, r)
		return
	}
	if ask.Status == "odd" {
		http.Error(w, `{"detail":"one of pending, ready, failed"}`, http.StatusUnprocessableEntity)
		return
	}
	o.asked = append(o.asked, ask)
	next := "null"
	if ask.After+10 < o.end {
		next = strconv.FormatInt(ask.After+10, 10)
	}
	_, _ = w.Write([]byte(`{"requested":9,"skipped":1,"next":` + next + `,"spread_seconds":` + o.spread + `}`))
	o.answered <- struct{}{}
}

// ask runs vitrine images reprocess.
func (o *office) ask(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := run(ctx, append([]string{"images", "reprocess", "--admin", o.URL + "/"}, args...), nil, &out, &out)
	return out.String(), err
}

func TestPicturesAreAskedForPageByPage(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.busy = 1
	out, err := o.ask(t.Context(), "--all",
		"--status", "failed", "--code", "timeout", "--older-than", "36h", "--pipeline-hash", "ab")
	if err != nil || !strings.Contains(out, "27 asked for again, 3 skipped") || !strings.Contains(out, "waiting: ") {
		t.Errorf("got %v\n%s", err, out)
	}
	want := reprocessJSON{Status: "failed", Code: "timeout", OlderThan: "36h0m0s", PipelineHash: "ab", Limit: 100}
	for i, got := range o.asked {
		if want.After = int64(10 * i); got != want {
			t.Errorf("page %d: got %+v, want %+v", i+1, got, want)
		}
	}
	if len(o.asked) != 3 {
		t.Errorf("asked for %d pages, want 3", len(o.asked))
	}
}

func TestOnePageIsAskedForWithoutAll(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	out, err := o.ask(t.Context(), "--code", "timeout", "--limit", "10")
	if err != nil || len(o.asked) != 1 || !strings.Contains(out, "--after 10") || o.asked[0].Limit != 10 {
		t.Errorf("got %v and %+v\n%s", err, o.asked, out)
	}
	if out, err = o.ask(t.Context(), "--code", "timeout", "--after", "20"); err != nil || strings.Contains(out, "--after") {
		t.Errorf("at the end: got %v\n%s", err, out)
	}
}

func TestTheNextPageWaitsUntilTheLastOneIsDue(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.spread = "3600"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	go func() {
		_, err := o.ask(ctx, "--code", "timeout", "--all")
		done <- err
	}()
	<-o.answered
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("stopped by a signal: got %v", err)
	}
	if len(o.asked) != 1 {
		t.Errorf("asked for %d pages, want the first one alone", len(o.asked))
	}
}

func TestReprocessSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	for want, args := range map[string][]string{
		"give at least one of --status": {},
		"--older-than: ":                {"--older-than", "-1h"},
		"--limit: ":                     {"--code", "timeout", "--limit", "0"},
		"--admin: ":                     {"--code", "timeout", "--admin", "localhost:9090"},
		"--timeout: ":                   {"--code", "timeout", "--timeout", "0"},
		"422 Unprocessable Entity":      {"--status", "odd"},
		"page 1, after picture 7: ":     {"--code", "timeout", "--after", "7", "--admin", "http://127.0.0.1:1", "--timeout", "10ms"},
	} {
		if out, err := o.ask(t.Context(), args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q\n%s", args, err, want, out)
		}
	}
	if len(o.asked) != 0 {
		t.Errorf("something was asked for: %+v", o.asked)
	}
}
