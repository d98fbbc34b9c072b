//go:build failpoint

package failpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestMain also runs the program under test, which hits one step three times and appends its progress to a file.
func TestMain(m *testing.M) {
	if notes := os.Getenv("TEST_NOTES"); notes != "" {
		note := func(text string) {
			f, err := os.OpenFile(notes, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				panic(err)
			}
			_, _ = f.WriteString(text)
			_ = f.Close()
		}
		defer note("deferred ")
		for range 3 {
			note("before ")
			Hit(WorkerFetched)
			note("after ")
		}
		return
	}
	os.Exit(m.Run())
}

// crash starts the program under test with VITRINE_FAILPOINT set to steps.
func crash(t *testing.T, steps string) (cmd *exec.Cmd, notes func() string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "notes")
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_NOTES="+file, variable+"="+steps)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, func() string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
}

func status(cmd *exec.Cmd) syscall.WaitStatus { return cmd.ProcessState.Sys().(syscall.WaitStatus) }

func TestTaggedHit(t *testing.T) {
	t.Run("kills_at_requested_hit", testTaggedHitKillsAtRequestedHit)
	t.Run("other_steps_do_nothing", testTaggedHitOtherStepsDoNothing)
	t.Run("stops_until_sigcont", testTaggedHitStopsUntilSigcont)
}

func testTaggedHitKillsAtRequestedHit(t *testing.T) {
	for steps, want := range map[string]string{
		"worker.fetched":                  "before ",
		"worker.fetched:3":                "before after before after before ",
		"kafka.marked,worker.fetched:2":   "before after before ",
		"worker.fetched:9,worker.fetched": "before ",
	} {
		cmd, notes := crash(t, steps)
		if err := cmd.Wait(); err == nil || status(cmd).Signal() != syscall.SIGKILL {
			t.Errorf("%s: it exited with %v, want killed", steps, err)
		}
		if got := notes(); got != want {
			t.Errorf("%s: got %q, want %q", steps, got, want)
		}
	}
}

func testTaggedHitOtherStepsDoNothing(t *testing.T) {
	for _, steps := range []string{"", "worker.begun", "worker.fetched:4"} {
		cmd, notes := crash(t, steps)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", steps, err)
		}
		if got, want := notes(), "before after before after before after deferred "; got != want {
			t.Errorf("%s: got %q, want %q", steps, got, want)
		}
	}
}

func testTaggedHitStopsUntilSigcont(t *testing.T) {
	cmd, notes := crash(t, "worker.fetched:2=stop")
	var state syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &state, syscall.WUNTRACED, nil); err != nil || !state.Stopped() {
		t.Fatalf("%v, %v: the process has not stopped", state, err)
	}
	if got, want := notes(), "before after before "; got != want {
		t.Errorf("stopped: got %q, want %q", got, want)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGCONT: %v", err)
	}
	if got, want := notes(), "before after before after before after deferred "; got != want {
		t.Errorf("after SIGCONT: got %q, want %q", got, want)
	}
}

func TestParse(t *testing.T) {
	for _, text := range []string{"a:", "a:0", "a:-1", "a:x", "a=go", ":1", "a,,b", "=stop"} {
		if p, err := parse(text); err == nil {
			t.Errorf("%q: got %v", text, p.steps)
		}
	}
}
