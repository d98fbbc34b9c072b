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

// asProgram makes this test binary the program under test, which a test can kill.
const asProgram = "VITRINE_SERVERS_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {

		getenv := func(name string) string { // all variables except those of running servers
			if strings.HasPrefix(name, "VITRINE_TEST_") {
				return ""
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
	out *bufio.Reader // ends with the program and its command, or with an error after 5 minutes
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

// tempDir returns a directory that Postgres' user can enter, unlike that of t.TempDir.
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

// allClosed waits until no address accepts connections.
func allClosed(t *testing.T, addrs []string) {
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
				t.Fatalf("%s still accepts connections", addr)
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
	allClosed(t, addrs)
}

func testProgramSignalIsForwardedAndServersEnd(t *testing.T) {
	t.Parallel()
	p := start(t, "--", "sh", "-c", "trap 'echo trapped; exit 3' TERM; env; echo end; while :; do sleep 0.1; done")
	addrs := p.addresses(t)
	for _, addr := range addrs {
		if !listening(addr) {
			t.Errorf("%s does not accept connections while the command runs", addr)
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(p.out)
	if err != nil || !strings.Contains(string(rest), "trapped") {
		t.Errorf("the command printed %q, error %v; want that it has received the signal", rest, err)
	}
	_ = p.cmd.Wait()
	if got := p.cmd.ProcessState.ExitCode(); got != 3 {
		t.Errorf("got exit code %d, want the command's 3", got)
	}
	allClosed(t, addrs)
}

func testProgramServersEndWithKilledParent(t *testing.T) {
	t.Parallel()
	p := start(t, "--", "sh", "-c", "env; echo end; exec sleep 1000")
	addrs := p.addresses(t)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The command holds the other end of the pipe, so the end of file means that it has ended.
	if _, err := io.ReadAll(p.out); err != nil {
		t.Error(err)
	}
	_ = p.cmd.Wait()
	allClosed(t, addrs)
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
			t.Errorf("%v: printed %q, error %v", args, text, err)
		}
	}
}

func testProgramUnknownCommandOrFailedServers(t *testing.T) {
	t.Parallel()
	named := func(string) string { return "somewhere" } // all servers run already: none is started
	output, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { output.Close() })
	if got := run([]string{"/does/not/exist"}, named, output, output); got != exitFailed {
		t.Errorf("got exit code %d, want %d", got, exitFailed)
	}
	if got := run([]string{"sh", "-c", "kill -9 $$"}, named, output, output); got != 137 {
		t.Errorf("got exit code %d for a command that signal 9 has ended, want 137", got)
	}
}
