package process_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/process"
	"vitrine.io/pkg/test/servers"
)

// asParent makes this test binary a parent process that a test can kill. Its value is the script of the child.
const asParent = "VITRINE_CHILD_TEST_PARENT"

func TestMain(m *testing.M) {
	if text := os.Getenv(asParent); text != "" {
		if err := newProcess(os.TempDir(), process.NewForkThread(), text).Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		select {}
	}
	servers.Main(m)
}

func newProcess(dir string, forkThread *process.ForkThread, text string) *process.Process {
	return &process.Process{
		Name: "script", Argv: []string{"sh", "-c", text}, Log: filepath.Join(dir, "log"),
		Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, StopTimeout: 10 * time.Second, ForkThread: forkThread,
	}
}

// script returns a process that is stopped at the end of the test.
func script(t *testing.T, text string) *process.Process {
	t.Helper()
	forkThread := process.NewForkThread()
	p := newProcess(t.TempDir(), forkThread, text)
	t.Cleanup(func() {
		_ = p.Stop() // it may have been stopped, or not stop within the timeout on purpose
		forkThread.Close()
	})
	return p
}

// pipe is a named pipe. It reads an end of file when every process that a script gave the other end to has ended.
type pipe struct {
	name string
	file *os.File
}

func newPipe(t *testing.T) *pipe {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return &pipe{name: name}
}

// opened waits until a process has opened the other end.
func (p *pipe) opened(t *testing.T) {
	t.Helper()
	file, err := os.Open(p.name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := file.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p.file = file
}

// ended waits until no process has the other end open.
func (p *pipe) ended(t *testing.T) {
	t.Helper()
	if n, err := p.file.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the child still runs (read %d bytes, %v)", n, err)
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	t.Run("child_of_killed_parent_is_killed", testProcessChildOfKilledParentIsKilled)
	t.Run("tail_of_long_log", testProcessTailOfLongLog)
	t.Run("failed_start", testProcessFailedStart)
}

func testProcessChildOfKilledParentIsKilled(t *testing.T) {
	t.Parallel()
	held := newPipe(t)
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), asParent+"=exec sleep 1000 >"+held.name, "TMPDIR="+t.TempDir())
	parent.Stderr = os.Stderr
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	held.opened(t)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed
	held.ended(t)
}

func TestStop(t *testing.T) {
	t.Parallel()
	t.Run("whole_process_group_ends", testStopWholeProcessGroupEnds)
	t.Run("killed_after_timeout", testStopKilledAfterTimeout)
	t.Run("restart_appends_to_log", testStopRestartAppendsToLog)
}

func testStopWholeProcessGroupEnds(t *testing.T) {
	t.Parallel()
	held := newPipe(t)
	p := script(t, fmt.Sprintf("(trap '' TERM; exec sleep 100 >%s) & trap 'exit 0' TERM; wait", held.name))
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	held.opened(t)
	if !p.Running() || p.PID() == 0 || p.State() != "" {
		t.Errorf("running %v, id %d, state %q of a running process", p.Running(), p.PID(), p.State())
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	held.ended(t)
	if p.Running() || p.PID() != 0 || p.State() != "" {
		t.Errorf("running %v, id %d, state %q of a stopped process", p.Running(), p.PID(), p.State())
	}
	if err := p.Stop(); err != nil {
		t.Errorf("stopping twice: %v", err)
	}
}

func testStopKilledAfterTimeout(t *testing.T) {
	t.Parallel()
	held := newPipe(t)
	p := script(t, fmt.Sprintf("trap '' TERM; exec >%s; while :; do sleep 0.1; done", held.name))
	p.StopTimeout = 50 * time.Millisecond
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	held.opened(t)
	if err := p.Stop(); err == nil || err.Error() != "stop script: not down after 50ms, killed" {
		t.Errorf("got %v", err)
	}
	held.ended(t)
}

func testStopRestartAppendsToLog(t *testing.T) {
	t.Parallel()
	p := script(t, "echo hello; exit 3")
	for range 2 {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		<-p.Exited()
		if got := p.State(); got != "exit status 3" || p.Running() {
			t.Errorf("got state %q, running %v", got, p.Running())
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}
	if got := p.Tail(); !strings.HasPrefix(got, "--- log of script (") || strings.Count(got, "hello\n") != 1 {
		t.Errorf("the tail is %q, want the output since the last start", got)
	}
	if got, err := os.ReadFile(p.Log); err != nil || string(got) != "hello\nhello\n" {
		t.Errorf("the log is %q, %v", got, err)
	}
}

func testProcessTailOfLongLog(t *testing.T) {
	t.Parallel()
	p := script(t, "")
	if err := os.WriteFile(p.Log, []byte("beginning"+strings.Repeat(".", 10<<10)+"end"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := p.Tail(); strings.Contains(got, "beginning") || !strings.HasSuffix(got, "...end\n") {
		t.Errorf("got %.60q...", got)
	}
}

func testProcessFailedStart(t *testing.T) {
	t.Parallel()
	p := script(t, "")
	if err := p.Stop(); err != nil {
		t.Errorf("stop before start: %v", err)
	}
	p.Argv = []string{"/does/not/exist"}
	if err := p.Start(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "start script") {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	p.Log = "/does/not/exist/log"
	if err := p.Start(); err == nil || !strings.Contains(err.Error(), "open log of script") {
		t.Errorf("got %v", err)
	}
	if got := p.Tail(); !strings.Contains(got, "script: no log") {
		t.Errorf("got %q", got)
	}
}
