package main

// What cannot be seen from outside: how a program is handled, and what clients make of answers.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/process"
	"vitrine.io/pkg/test/client"
)

// script is a program that is a shell script. It says in a file when it has begun.
func script(t *testing.T, text string) *Program {
	t.Helper()
	dir := t.TempDir()
	forkThread := process.NewForkThread()
	p := &Program{Name: "script", process: &process.Process{
		Name: "script", Argv: []string{"sh", "-c", text}, Dir: dir, Log: filepath.Join(dir, "log"),
		Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, Patience: stopTimeout, ForkThread: forkThread,
	}}
	t.Cleanup(func() {
		_ = p.Resume()
		_ = p.Kill() // it may be gone
		forkThread.Close()
	})
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// says waits until the script has written a text so many times.
func (p *Program) says(t *testing.T, text string, times int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if log, err := os.ReadFile(p.process.Log); err == nil && strings.Count(string(log), text) >= times {
			return
		}
		if !sleep(ctx, 5*time.Millisecond) {
			t.Fatalf("it never said %q %d times", text, times)
		}
	}
}

func TestAProgramIsKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	p := script(t, "sleep 1000 & echo up; wait; exec sleep 1000")
	p.says(t, "up", 1)
	if n := p.KillChildren(); n != 1 {
		t.Errorf("killed %d children, want 1", n)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("killing the dead: %v", err)
	}
	if n := p.KillChildren(); n != 0 {
		t.Errorf("killed %d children of the dead", n)
	}
	if err := p.Start(); err != nil {
		t.Error(err)
	}
	p.says(t, "up", 2)
	if err := p.Start(); err != nil {
		t.Errorf("starting what runs: %v", err)
	}
	if fallen := p.UnexpectedExits(); len(fallen) > 0 {
		t.Errorf("it fell by itself: %q", fallen)
	}
}

func TestAProgramThatEndsByItselfIsNoticed(t *testing.T) {
	t.Parallel()
	p := script(t, "exit 3")
	<-p.process.Exited()
	if err := p.Start(); err != nil { // as a fault's end does
		t.Error(err)
	}
	<-p.process.Exited()
	if got, want := p.UnexpectedExits(), []string{"exit status 3", "exit status 3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAStopThatDoesNotEndWell(t *testing.T) {
	t.Parallel()
	p := script(t, "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done")
	p.says(t, "up", 1)
	if err := p.Stop(); err != nil {
		t.Errorf("an orderly end: %v", err)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("stopping the dead: %v", err)
	}
	p = script(t, "trap 'exit 1' TERM; echo up; while :; do sleep 0.01; done")
	p.says(t, "up", 1)
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("an end with 1: %v", err)
	}
	if fallen := p.UnexpectedExits(); len(fallen) > 0 {
		t.Errorf("it fell by itself: %q", fallen)
	}
}

func TestAPausedProgramGoesOn(t *testing.T) {
	t.Parallel()
	p := script(t, "echo up; read line </dev/null; while :; do echo tick; sleep 0.01; done")
	p.says(t, "tick", 1)
	if err := p.Pause(); err != nil {
		t.Error(err)
	}
	if err := p.Resume(); err != nil {
		t.Error(err)
	}
	log, err := os.ReadFile(p.process.Log)
	if err != nil {
		t.Fatal(err)
	}
	p.says(t, "tick", bytes.Count(log, []byte("tick"))+2)
}

// fake is an API that answers every request alike.
type fake struct {
	status atomic.Int64
	body   atomic.Value
	asked  atomic.Value // the last request's method and path
}

func newFake(t *testing.T) (*fake, *apiUser, *History) {
	t.Helper()
	f := &fake{}
	f.body.Store("")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked.Store(r.Method + " " + r.URL.Path)
		w.Header().Set("ETag", `"1.1-x"`)
		w.WriteHeader(int(f.status.Load()))
		fmt.Fprint(w, f.body.Load())
	}))
	t.Cleanup(server.Close)
	history := NewHistory(&bytes.Buffer{})
	c := newAPIUser(0, 1, []string{server.URL}, "http://127.0.0.1:1", history)
	t.Cleanup(c.client.Close)
	return f, c, history
}

func (f *fake) answers(status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	f.status.Store(int64(status))
	f.body.Store(string(text))
}

func TestWhatIsUnknownStaysOpen(t *testing.T) {
	t.Parallel()
	f, c, history := newFake(t)
	s := &Expectation{Token: "token-1", ID: 1, Accepted: true, Name: "lamp", Price: "1.00"}
	f.answers(503, map[string]string{"code": "outcome_unknown"})
	c.patch(t.Context(), s)
	c.delete(t.Context(), s)
	maybe := len(s.MaybeNames) == 1 && len(s.MaybePrices) == 1 && len(s.MaybeImages) == 1 && s.MaybeDeleted
	if !maybe || s.Name != "lamp" || s.Deleted {
		t.Errorf("got %+v", s)
	}
	f.answers(404, map[string]string{"code": "product_not_found"})
	c.delete(t.Context(), s)
	if !s.Deleted {
		t.Error("what is not found after a deletion of unknown outcome is not deleted")
	}
	if len(history.findings) > 0 {
		t.Errorf("found %v", history.findings)
	}
}

func TestWhatIsRefusedHasNotHappened(t *testing.T) {
	t.Parallel()
	f, c, history := newFake(t)
	s := &Expectation{Token: "token-1", ID: 1, Accepted: true, Name: "lamp", Price: "1.00", images: []int64{3}}
	for _, answer := range []struct {
		status int
		code   string
		fine   bool
	}{
		{503, "database_unavailable", true},
		{503, "overloaded", true},
		{412, "revision_mismatch", true},
		{404, "image_not_found", true},
		{404, "product_not_found", false},
		{422, "invalid_fields", false},
	} {
		f.answers(answer.status, map[string]string{"code": answer.code})
		before := len(history.findings)
		c.patch(t.Context(), s)
		c.delete(t.Context(), s)
		c.reprocess(t.Context(), s)
		if found := len(history.findings) - before; (found == 0) != answer.fine {
			t.Errorf("%d %s: %d findings", answer.status, answer.code, found)
		}
	}
	if len(s.MaybeNames) > 0 || s.MaybeDeleted || s.Deleted || s.Name != "lamp" {
		t.Errorf("got %+v", s)
	}
	f.answers(500, map[string]string{"code": "internal_error"})
	before := len(history.findings)
	c.read(t.Context(), s)
	if len(history.findings) != before+1 {
		t.Error("a 500 is no finding")
	}
}

func TestWhatIsAcknowledgedIsRemembered(t *testing.T) {
	t.Parallel()
	f, c, history := newFake(t)
	f.answers(201, client.Product{ID: 4, Version: 1, Images: []client.Image{{ID: 9}}})
	c.create(t.Context())
	s := c.expectations[0]
	if !s.Accepted || s.ID != 4 || s.Version != 1 || !slices.Equal(s.images, []int64{9}) || s.etag != `"1.1-x"` {
		t.Errorf("after its POST: %+v", s)
	}
	f.answers(200, client.Product{ID: 4, Description: s.Token, Version: 3})
	c.read(t.Context(), s)
	c.patch(t.Context(), s)
	if s.Version != 3 || f.asked.Load() != "PATCH /products/4" {
		t.Errorf("after a read and a PATCH: %+v", s)
	}
	f.answers(200, client.Product{ID: 4, Description: "another's", Version: 3})
	c.read(t.Context(), s)
	if len(history.findings) != 1 {
		t.Errorf("another's product: found %v", history.findings)
	}
	f.answers(204, nil)
	c.delete(t.Context(), s)
	if !s.Deleted || c.pick() != nil {
		t.Errorf("after its deletion: %+v", s)
	}
}

func TestAPOSTWithAKeyIsRepeatedUntilItIsAnswered(t *testing.T) {
	t.Parallel()
	f, c, _ := newFake(t)
	s := &Expectation{Token: "token-1", Key: "key-1"}
	c.expectations = append(c.expectations, s, &Expectation{Token: "token-2"})
	f.answers(503, map[string]string{"code": "outcome_unknown"})
	if c.post(t.Context(), s) {
		t.Error("an unknown outcome is the end")
	}
	f.answers(409, map[string]string{"code": "idempotency_in_progress"})
	if c.post(t.Context(), s) {
		t.Error("another request under way is the end")
	}
	f.answers(201, client.Product{ID: 4})
	c.resolve(t.Context())
	if !s.Accepted || c.expectations[1].Accepted {
		t.Error("what has a key is not resolved, or what has none is")
	}
}

func TestAFailureIsToldWithItsScheduleAndNotAtAnyLength(t *testing.T) {
	t.Parallel()
	r := Result{Seed: 7, Logs: "/there"}
	for i := range 8 {
		r.Findings = append(r.Findings, Finding{"images reach a final state", fmt.Sprintf("picture %d does not", i)})
	}
	var out bytes.Buffer
	printResult(&out, r, 25*time.Second)
	for _, want := range []string{
		"seed 7    FAILED", "picture 4 does not", "8 times: every picture ends", "seed 7: ", "logs: /there",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "picture 5") {
		t.Error("it tells everything")
	}
	out.Reset()
	if printResult(&out, Result{Seed: 7, OK: true}, 25*time.Second); strings.Count(out.String(), "\n") != 1 {
		t.Errorf("a good run is told as %q", out.String())
	}
}
