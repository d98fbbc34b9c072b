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

// asParent makes this test binary a parent that a test can kill. It holds the script of its child.
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
		Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, Patience: 10 * time.Second, ForkThread: forkThread,
	}
}

// script is a process that a test starts and that is gone at its end.
func script(t *testing.T, text string) *process.Process {
	t.Helper()
	forkThread := process.NewForkThread()
	p := newProcess(t.TempDir(), forkThread, text)
	t.Cleanup(func() {
		_ = p.Stop() // it may have been stopped, or have been slow on purpose
		forkThread.Close()
	})
	return p
}

// pipe is a named pipe: whoever a script gives its other end to is gone when it ends.
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

// opened waits until somebody has the other end.
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

// ended waits until nobody has the other end any more.
func (p *pipe) ended(t *testing.T) {
	t.Helper()
	if n, err := p.file.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the child is still there (read %d bytes, %v)", n, err)
	}
}

func TestAChildDiesWithAParentThatIsKilled(t *testing.T) {
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

func TestStopEndsTheWholeProcessGroup(t *testing.T) {
	t.Parallel()
	held := newPipe(t)
	p := script(t, fmt.Sprintf("(trap '' TERM; exec sleep 100 >%s) & trap 'exit 0' TERM; wait", held.name))
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	held.opened(t)
	if !p.Running() || p.PID() == 0 || p.State() != "" {
		t.Errorf("running %v, id %d, state %q of a process that runs", p.Running(), p.PID(), p.State())
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	held.ended(t)
	if p.Running() || p.PID() != 0 || p.State() != "" {
		t.Errorf("running %v, id %d, state %q of a process that was stopped", p.Running(), p.PID(), p.State())
	}
	if err := p.Stop(); err != nil {
		t.Errorf("stopping twice: %v", err)
	}
}

func TestAProcessThatDoesNotStopIsKilledAndNamed(t *testing.T) {
	t.Parallel()
	held := newPipe(t)
	p := script(t, fmt.Sprintf("trap '' TERM; exec >%s; while :; do sleep 0.1; done", held.name))
	p.Patience = 50 * time.Millisecond
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	held.opened(t)
	if err := p.Stop(); err == nil || err.Error() != "stop script: not down after 50ms, killed" {
		t.Errorf("got %v", err)
	}
	held.ended(t)
}

func TestAStoppedProcessStartsAgainAndItsLogGoesOn(t *testing.T) {
	t.Parallel()
	p := script(t, "echo one more; exit 3")
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
	if got := p.Tail(); !strings.HasPrefix(got, "--- log of script (") || strings.Count(got, "one more\n") != 1 {
		t.Errorf("the tail is %q, want what was logged since the last start", got)
	}
	if got, err := os.ReadFile(p.Log); err != nil || string(got) != "one more\none more\n" {
		t.Errorf("the log is %q, %v", got, err)
	}
}

func TestTheTailOfALongLogIsItsEnd(t *testing.T) {
	t.Parallel()
	p := script(t, "")
	if err := os.WriteFile(p.Log, []byte("beginning"+strings.Repeat(".", 10<<10)+"end"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := p.Tail(); strings.Contains(got, "beginning") || !strings.HasSuffix(got, "...end\n") {
		t.Errorf("got %.60q and so on", got)
	}
}

func TestWhatCannotStartIsAnError(t *testing.T) {
	t.Parallel()
	p := script(t, "")
	if err := p.Stop(); err != nil {
		t.Errorf("stopping what never started: %v", err)
	}
	p.Argv = []string{"/does/not/exist"}
	if err := p.Start(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "start script") {
		t.Errorf("got %v, want that there is no such program", err)
	}
	p.Log = "/does/not/exist/log"
	if err := p.Start(); err == nil || !strings.Contains(err.Error(), "open log of script") {
		t.Errorf("got %v", err)
	}
	if got := p.Tail(); !strings.Contains(got, "script: no log") {
		t.Errorf("got %q", got)
	}
}
