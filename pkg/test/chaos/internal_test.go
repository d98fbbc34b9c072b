package main

// These tests cover unexported parts: processes, and how clients interpret responses.

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

// script starts a shell script as a Program. Its output goes to a log file.
func script(t *testing.T, text string) *Program {
	t.Helper()
	dir := t.TempDir()
	forkThread := process.NewForkThread()
	p := &Program{Name: "script", process: &process.Process{
		Name: "script", Argv: []string{"sh", "-c", text}, Dir: dir, Log: filepath.Join(dir, "log"),
		Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, StopTimeout: stopTimeout, ForkThread: forkThread,
	}}
	t.Cleanup(func() {
		_ = p.Resume()
		_ = p.Kill() // it may have exited
		forkThread.Close()
	})
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// awaitOutput waits until the script's log contains text at least times times.
func (p *Program) awaitOutput(t *testing.T, text string, times int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if log, err := os.ReadFile(p.process.Log); err == nil && strings.Count(string(log), text) >= times {
			return
		}
		if !sleep(ctx, 5*time.Millisecond) {
			t.Fatalf("the log does not contain %q %d times", text, times)
		}
	}
}

func TestProgram(t *testing.T) {
	t.Parallel()
	t.Run("kill_and_start", testProgramKillAndStart)
	t.Run("unexpected_exit", testProgramUnexpectedExit)
	t.Run("stop_reports_exit_code", testProgramStopReportsExitCode)
	t.Run("pause_and_resume", testProgramPauseAndResume)
}

func testProgramKillAndStart(t *testing.T) {
	t.Parallel()
	p := script(t, "sleep 1000 & echo up; wait; exec sleep 1000")
	p.awaitOutput(t, "up", 1)
	if n := p.KillChildren(); n != 1 {
		t.Errorf("killed %d children, want 1", n)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("second kill: %v", err)
	}
	if n := p.KillChildren(); n != 0 {
		t.Errorf("killed %d children of an exited program", n)
	}
	if err := p.Start(); err != nil {
		t.Error(err)
	}
	p.awaitOutput(t, "up", 2)
	if err := p.Start(); err != nil {
		t.Errorf("starting a running program: %v", err)
	}
	if exits := p.UnexpectedExits(); len(exits) > 0 {
		t.Errorf("unexpected exits: %q", exits)
	}
}

func testProgramUnexpectedExit(t *testing.T) {
	t.Parallel()
	p := script(t, "exit 3")
	<-p.process.Exited()
	if err := p.Start(); err != nil { // as at the end of a fault
		t.Error(err)
	}
	<-p.process.Exited()
	if got, want := p.UnexpectedExits(), []string{"exit status 3", "exit status 3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func testProgramStopReportsExitCode(t *testing.T) {
	t.Parallel()
	p := script(t, "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done")
	p.awaitOutput(t, "up", 1)
	if err := p.Stop(); err != nil {
		t.Errorf("exit code 0: %v", err)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("second stop: %v", err)
	}
	p = script(t, "trap 'exit 1' TERM; echo up; while :; do sleep 0.01; done")
	p.awaitOutput(t, "up", 1)
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("exit code 1: %v", err)
	}
	if exits := p.UnexpectedExits(); len(exits) > 0 {
		t.Errorf("unexpected exits: %q", exits)
	}
}

func testProgramPauseAndResume(t *testing.T) {
	t.Parallel()
	p := script(t, "echo up; read line </dev/null; while :; do echo tick; sleep 0.01; done")
	p.awaitOutput(t, "tick", 1)
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
	p.awaitOutput(t, "tick", bytes.Count(log, []byte("tick"))+2)
}

// fakeAPI is an API with the same response to every request.
type fakeAPI struct {
	status  atomic.Int64
	body    atomic.Value
	request atomic.Value // method and path of the last request
	wait    atomic.Value // Retry-After
}

func newFakeAPI(t *testing.T) (*fakeAPI, *apiUser, *History) {
	t.Helper()
	f := &fakeAPI{}
	f.body.Store("")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.request.Store(r.Method + " " + r.URL.Path)
		w.Header().Set("ETag", `"1.1-x"`)
		if wait := f.wait.Load(); wait != nil {
			w.Header().Set("Retry-After", wait.(string)) //nolint:forcetypeassert // only strings are stored
		}
		w.WriteHeader(int(f.status.Load()))
		fmt.Fprint(w, f.body.Load())
	}))
	t.Cleanup(server.Close)
	history := NewHistory(&bytes.Buffer{})
	c := newAPIUser(0, 1, []string{server.URL}, "http://127.0.0.1:1", history)
	t.Cleanup(c.client.Close)
	return f, c, history
}

func (f *fakeAPI) respond(status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	f.status.Store(int64(status))
	f.body.Store(string(text))
}

func TestAPIUser(t *testing.T) {
	t.Parallel()
	t.Run("unknown_outcome", testAPIUserUnknownOutcome)
	t.Run("rejected_request", testAPIUserRejectedRequest)
	t.Run("acknowledged_request", testAPIUserAcknowledgedRequest)
	t.Run("post_with_key_is_repeated", testAPIUserPostWithKeyIsRepeated)
}

func testAPIUserUnknownOutcome(t *testing.T) {
	t.Parallel()
	f, c, history := newFakeAPI(t)
	s := &Expectation{Token: "token-1", ID: 1, Accepted: true, Name: "lamp", Price: "1.00"}
	f.respond(503, map[string]string{"code": "outcome_unknown"})
	c.patch(t.Context(), s)
	c.delete(t.Context(), s)
	recorded := len(s.MaybeNames) == 1 && len(s.MaybePrices) == 1 && len(s.MaybeImages) == 1 && s.MaybeDeleted
	if !recorded || s.Name != "lamp" || s.Deleted {
		t.Errorf("got %+v", s)
	}
	f.respond(404, map[string]string{"code": "product_not_found"})
	c.delete(t.Context(), s)
	if !s.Deleted {
		t.Error("404 after a deletion of unknown outcome does not count as deleted")
	}
	if len(history.findings) > 0 {
		t.Errorf("found %v", history.findings)
	}
}

func testAPIUserRejectedRequest(t *testing.T) {
	t.Parallel()
	f, c, history := newFakeAPI(t)
	f.wait.Store("2")
	s := &Expectation{Token: "token-1", ID: 1, Accepted: true, Name: "lamp", Price: "1.00", images: []int64{3}}
	for _, response := range []struct {
		status int
		code   string
		valid  bool // no finding
	}{
		{503, "database_unavailable", true},
		{503, "overloaded", true},
		{412, "revision_mismatch", true},
		{404, "image_not_found", true},
		{404, "product_not_found", false},
		{422, "invalid_fields", false},
	} {
		f.respond(response.status, map[string]string{"code": response.code})
		before := len(history.findings)
		c.patch(t.Context(), s)
		c.delete(t.Context(), s)
		c.reprocess(t.Context(), s)
		if found := len(history.findings) - before; (found == 0) != response.valid {
			t.Errorf("%d %s: %d findings", response.status, response.code, found)
		}
	}
	if len(s.MaybeNames) > 0 || s.MaybeDeleted || s.Deleted || s.Name != "lamp" {
		t.Errorf("got %+v", s)
	}
	f.respond(500, map[string]string{"code": "internal_error"})
	before := len(history.findings)
	c.read(t.Context(), s)
	if len(history.findings) != before+1 {
		t.Error("a response with status 500 gives no finding")
	}
}

func testAPIUserAcknowledgedRequest(t *testing.T) {
	t.Parallel()
	f, c, history := newFakeAPI(t)
	f.respond(201, client.Product{ID: 4, Version: 1, Images: []client.Image{{ID: 9}}})
	c.create(t.Context())
	s := c.expectations[0]
	if !s.Accepted || s.ID != 4 || s.Version != 1 || !slices.Equal(s.images, []int64{9}) || s.etag != `"1.1-x"` {
		t.Errorf("after its POST: %+v", s)
	}
	f.respond(200, client.Product{ID: 4, Description: s.Token, Version: 3})
	c.read(t.Context(), s)
	c.patch(t.Context(), s)
	if s.Version != 3 || f.request.Load() != "PATCH /products/4" {
		t.Errorf("after a read and a PATCH: %+v", s)
	}
	f.respond(200, client.Product{ID: 4, Description: "another's", Version: 3})
	c.read(t.Context(), s)
	if len(history.findings) != 1 {
		t.Errorf("response with another product: found %v", history.findings)
	}
	f.respond(204, nil)
	c.delete(t.Context(), s)
	if !s.Deleted || c.pick() != nil {
		t.Errorf("after its deletion: %+v", s)
	}
}

func testAPIUserPostWithKeyIsRepeated(t *testing.T) {
	t.Parallel()
	f, c, _ := newFakeAPI(t)
	s := &Expectation{Token: "token-1", Key: "key-1"}
	c.expectations = append(c.expectations, s, &Expectation{Token: "token-2"})
	f.respond(503, map[string]string{"code": "outcome_unknown"})
	if c.post(t.Context(), s) {
		t.Error("an unknown outcome is not repeated")
	}
	f.respond(409, map[string]string{"code": "idempotency_in_progress"})
	if c.post(t.Context(), s) {
		t.Error("a request in progress is not repeated")
	}
	f.respond(201, client.Product{ID: 4})
	c.resolve(t.Context())
	if !s.Accepted || c.expectations[1].Accepted {
		t.Error("the request with a key is not accepted, or the one without a key is repeated")
	}
}

func TestPrintResult(t *testing.T) {
	t.Parallel()
	r := Result{Seed: 7, Logs: "/there"}
	for i := range 8 {
		r.Findings = append(r.Findings, Finding{"images reach a final state", fmt.Sprintf("image %d does not", i)})
	}
	var out bytes.Buffer
	printResult(&out, r, 25*time.Second)
	for _, want := range []string{
		"seed 7    FAILED", "image 4 does not", "8 findings: images reach a final state", "seed 7: ", "logs: /there",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "image 5") {
		t.Error("it prints all findings of a rule")
	}
	out.Reset()
	if printResult(&out, Result{Seed: 7, OK: true}, 25*time.Second); strings.Count(out.String(), "\n") != 1 {
		t.Errorf("a passed run is printed as %q", out.String())
	}
}
