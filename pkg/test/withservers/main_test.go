package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"vitrine.io/pkg/test/servers"
)

// asProgram makes this test binary be the program under test, which a test can then kill.
const asProgram = "VITRINE_SERVERS_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		nothing := func(string) string { return "" }
		getenv := func(name string) string { // everything but running servers
			if strings.HasPrefix(name, "VITRINE_TEST_") {
				return nothing(name)
			}
			return os.Getenv(name)
		}
		os.Exit(run(os.Args[1:], getenv, os.Stdout, os.Stderr))
	}
	servers.Main(m)
}

// program is a started copy of the program under test.
type program struct {
	cmd *exec.Cmd
	out *bufio.Reader // ends when the program and its command have, or in a minute with an error
}

func start(t *testing.T, args ...string) *program {
	t.Helper()
	if testing.Short() {
		t.Skip("needs servers; `make test` runs it")
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+tempDir(t))
	cmd.Stderr = os.Stderr
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = in
	if err := out.SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); out.Close() })
	return &program{cmd: cmd, out: bufio.NewReader(out)}
}

// tempDir is a directory that Postgres' user can enter as well, unlike t.TempDir's.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "servers-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// addresses reads the command's environment from its output up to the line "end" and returns where the servers listen.
func (p *program) addresses(t *testing.T) []string {
	t.Helper()
	var addrs []string
	for {
		line, err := p.out.ReadString('\n')
		if err != nil {
			t.Fatalf("the command ended early: %v", err)
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "VITRINE_TEST_POSTGRES":
			u, err := url.Parse(value)
			if err != nil {
				t.Fatal(err)
			}
			addrs = append(addrs, u.Host)
		case "VITRINE_TEST_REDIS", "VITRINE_TEST_KAFKA":
			addrs = append(addrs, strings.Split(value, ",")...)
		case "VITRINE_TEST_S3":
			var bucket servers.Bucket
			if err := json.Unmarshal([]byte(value), &bucket); err != nil {
				t.Fatal(err)
			}
			addrs = append(addrs, strings.TrimPrefix(bucket.Endpoint, "http://"))
		case "end":
			return addrs
		}
	}
}

func listening(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// allGone waits until nobody listens any more.
func allGone(t *testing.T, addrs []string) {
	t.Helper()
	if len(addrs) != 6 {
		t.Fatalf("got %d addresses %v, want 6: one of Postgres, three of Redis, one of Kafka, one of MinIO", len(addrs), addrs)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for _, addr := range addrs {
		for listening(addr) {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("somebody still listens on %s", addr)
			}
		}
	}
}

func TestProgram(t *testing.T) {
	t.Parallel()
	t.Run("exit_code_of_command_is_returned", testProgramExitCodeOfCommandIsReturned)
	t.Run("signal_is_forwarded_and_servers_end", testProgramSignalIsForwardedAndServersEnd)
	t.Run("servers_end_with_killed_parent", testProgramServersEndWithKilledParent)
	t.Run("no_command_prints_usage", testProgramNoCommandPrintsUsage)
	t.Run("unknown_command_or_failed_servers", testProgramUnknownCommandOrFailedServers)
}

func testProgramExitCodeOfCommandIsReturned(t *testing.T) {
	t.Parallel()
	p := start(t, "--", "sh", "-c", "env; echo end; exit 7")
	addrs := p.addresses(t)
	err := p.cmd.Wait()
	if got := p.cmd.ProcessState.ExitCode(); got != 7 {
		t.Errorf("got exit code %d (%v), want the command's 7", got, err)
	}
	allGone(t, addrs)
}

func testProgramSignalIsForwardedAndServersEnd(t *testing.T) {
	t.Parallel()
	p := start(t, "--", "sh", "-c", "trap 'echo told; exit 3' TERM; env; echo end; while :; do sleep 0.1; done")
	addrs := p.addresses(t)
	for _, addr := range addrs {
		if !listening(addr) {
			t.Errorf("nobody listens on %s while the command runs", addr)
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(p.out)
	if err != nil || !strings.Contains(string(rest), "told") {
		t.Errorf("the command said %q, error %v; want it to have had the signal", rest, err)
	}
	_ = p.cmd.Wait()
	if got := p.cmd.ProcessState.ExitCode(); got != 3 {
		t.Errorf("got exit code %d, want the command's 3", got)
	}
	allGone(t, addrs)
}

func testProgramServersEndWithKilledParent(t *testing.T) {
	t.Parallel()
	p := start(t, "--", "sh", "-c", "env; echo end; exec sleep 1000")
	addrs := p.addresses(t)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The command holds the other end of the pipe, so its end means that it is gone too.
	if _, err := io.ReadAll(p.out); err != nil {
		t.Error(err)
	}
	_ = p.cmd.Wait()
	allGone(t, addrs)
}

func testProgramNoCommandPrintsUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"--"}} {
		out, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		if got := run(args, os.Getenv, out, out); got != exitUsage {
			t.Errorf("%v: got exit code %d, want %d", args, got, exitUsage)
		}
		text, err := os.ReadFile(out.Name())
		if err != nil || !strings.Contains(string(text), "usage:") {
			t.Errorf("%v: said %q, error %v", args, text, err)
		}
	}
}

func testProgramUnknownCommandOrFailedServers(t *testing.T) {
	t.Parallel()
	named := func(string) string { return "somewhere" } // all servers are there already: nothing is started
	silent, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	if got := run([]string{"/does/not/exist"}, named, silent, silent); got != exitFailed {
		t.Errorf("got exit code %d, want %d", got, exitFailed)
	}
	if got := run([]string{"sh", "-c", "kill -9 $$"}, named, silent, silent); got != 137 {
		t.Errorf("got exit code %d for a command that died of signal 9, want 137", got)
	}
}
