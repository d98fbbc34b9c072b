package servers

// Tests of servers that do not start, do not stop, or belong to ended processes.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"vitrine.io/pkg/foundation/process"
)

// script describes a server that is a shell script.
func script(t *testing.T, n *process.ForkThread, text string) *process.Process {
	t.Helper()
	return &process.Process{
		Name: "script", Argv: []string{"sh", "-c", text}, Log: filepath.Join(t.TempDir(), "log"),
		StopTimeout: stopTimeout, Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, ForkThread: n,
	}
}

// stubborn ignores SIGTERM.
func stubborn(t *testing.T, n *process.ForkThread) *process.Process {
	t.Helper()
	p := script(t, n, "trap '' TERM; echo trapped; while :; do sleep 0.1; done")
	p.StopTimeout = 50 * time.Millisecond
	return p
}

// trapped returns nil when a stubborn process has set its signal handler.
func trapped(p *process.Process) func(context.Context) error {
	return func(context.Context) error {
		if text, err := os.ReadFile(p.Log); err != nil || !strings.Contains(string(text), "trapped") {
			return fmt.Errorf("no signal handler yet: %q, %w", text, err)
		}
		return nil
	}
}

func newTestForkThread(t *testing.T) *process.ForkThread {
	t.Helper()
	n := process.NewForkThread()
	t.Cleanup(n.Close)
	return n
}

func never(context.Context) error { return errors.New("not yet") }

func always(context.Context) error { return nil }

func TestLaunch(t *testing.T) {
	t.Parallel()
	t.Run("early_exit_shows_log", testLaunchEarlyExitShowsLog)
	t.Run("never_ready_shows_log", testLaunchNeverReadyShowsLog)
	t.Run("failed_setup_or_start", testLaunchFailedSetupOrStart)
	t.Run("retry_on_other_ports", testLaunchRetryOnOtherPorts)
	t.Run("killed_after_timeout", testLaunchKilledAfterTimeout)
}

func testLaunchEarlyExitShowsLog(t *testing.T) {
	t.Parallel()
	p := script(t, newTestForkThread(t), "echo fatal error; exit 1")
	s := &server{name: "failing", procs: []*process.Process{p}, ready: never}
	err := s.start()
	if err == nil || !strings.Contains(err.Error(), "failing ended while it started") ||
		!strings.Contains(err.Error(), "fatal error") {
		t.Errorf("got %v, want the server's name and its log", err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func testLaunchNeverReadyShowsLog(t *testing.T) {
	t.Parallel()
	p := script(t, newTestForkThread(t), "echo thinking; exec sleep 100")
	s := &server{name: "slow", procs: []*process.Process{p}}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.stop() })
	ctx, cancel := context.WithCancel(t.Context())
	checks := 0
	err := s.await(ctx, func(context.Context) error {
		if checks++; checks == 3 {
			cancel()
		}
		return errors.New("not yet")
	})
	if err == nil || !strings.Contains(err.Error(), "slow is not ready") || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("got %v, want the last error", err)
	}
}

func testLaunchFailedSetupOrStart(t *testing.T) {
	t.Parallel()
	n := newTestForkThread(t)
	broken := &server{
		name: "broken", procs: []*process.Process{script(t, n, "exec sleep 100")}, ready: always, alive: always,
		setup: func(context.Context) error { return errors.New("no slots") },
	}
	t.Cleanup(func() { _ = broken.stop() })
	if err := broken.start(); err == nil || !strings.Contains(err.Error(), "set up broken: no slots") {
		t.Errorf("got %v", err)
	}
	absent := &server{name: "absent", procs: []*process.Process{script(t, n, "")}, ready: always}
	absent.procs[0].Argv = []string{"/does/not/exist"}
	if err := absent.start(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

func testLaunchRetryOnOtherPorts(t *testing.T) {
	t.Parallel()
	n := newTestForkThread(t)
	built := 0
	s, err := launch(func() (*server, error) {
		built++
		text := "echo port taken; exit 1"
		ready := never
		if built == 2 {
			text, ready = "exec sleep 100", always
		}
		return &server{name: "second", procs: []*process.Process{script(t, n, text)}, ready: ready}, nil
	})
	if err != nil || built != 2 {
		t.Fatalf("built %d times, error %v; want success at the second", built, err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	_, err = launch(func() (*server, error) {
		return &server{name: "never", procs: []*process.Process{script(t, n, "echo port taken")}, ready: never}, nil
	})
	if got := strings.Count(fmt.Sprint(err), "port taken"); got != startTries {
		t.Errorf("got %d logs in %v, want one for each of %d tries", got, err, startTries)
	}
	if _, err := launch(func() (*server, error) { return nil, missing("it") }); err == nil ||
		!strings.Contains(err.Error(), "it is not installed: run `make deps-test`") {
		t.Errorf("got %v, want an instruction", err)
	}
}

func testLaunchKilledAfterTimeout(t *testing.T) {
	t.Parallel()
	p := stubborn(t, newTestForkThread(t))
	s := &server{name: "stubborn", procs: []*process.Process{p}, ready: trapped(p)}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err == nil || !strings.Contains(err.Error(), "stop script: not down after 50ms, killed") {
		t.Errorf("got %v", err)
	}
}

func TestSweepDirectories(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	ended, err := newWorkDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	ended.lock.Close() // as the kernel does when a process ends
	unlocked := filepath.Join(parent, dirPrefix+"unlocked")
	if err := os.Mkdir(unlocked, 0o700); err != nil {
		t.Fatal(err)
	}
	running, err := newWorkDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	later, err := newWorkDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{ended.path: false, unlocked: true, running.path: true, later.path: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s exists: %v, want %v", path, err == nil, want)
		}
	}
	if err := errors.Join(running.remove(), later.remove()); err != nil {
		t.Error(err)
	}
	if _, err := newWorkDir(filepath.Join(parent, "nowhere")); err == nil {
		t.Error("no error for a directory that cannot be created")
	}
	if _, err := running.sub("x", nil); err == nil {
		t.Error("no error for a directory in a removed one")
	}
}

func TestPostgresProgram(t *testing.T) {
	t.Setenv("PATH", "") // not parallel: the environment belongs to the process
	root := t.TempDir()
	for _, version := range []string{"9", "15", "14", "x"} {
		dir := filepath.Join(root, "usr/lib/postgresql", version, "bin")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "initdb"), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := postgresBin(root); err != nil || got != filepath.Join(root, "usr/lib/postgresql/15/bin") {
		t.Errorf("got %s, error %v; want version 15's", got, err)
	}
	if got, err := postgresBin(t.TempDir()); err == nil || !strings.Contains(err.Error(), "make deps-test") {
		t.Errorf("got %q, error %v; want an instruction", got, err)
	}
	if got, err := lookup("redis-server"); err == nil || !strings.Contains(err.Error(), "make deps-test") {
		t.Errorf("got %q, error %v; want an instruction", got, err)
	}
	if got, err := postgresCredential(0); err != nil || got == nil || got.Uid == 0 {
		t.Errorf("as root: got %v, error %v; want another user", got, err)
	}
	if got, err := postgresCredential(1000); err != nil || got != nil {
		t.Errorf("as a user: got %v, error %v; want nil", got, err)
	}
}

func TestMissingProgram(t *testing.T) {
	t.Parallel()
	cache := t.TempDir()
	getenv := func(name string) string { return map[string]string{"XDG_CACHE_HOME": cache}[name] }
	if _, err := kafkaJars(getenv); err == nil || !strings.Contains(err.Error(), "make deps-test") {
		t.Errorf("got %v, want an instruction", err)
	}
	if _, err := minioProgram(getenv); err == nil || !strings.Contains(err.Error(), "make deps-test") {
		t.Errorf("got %v, want an instruction", err)
	}
	unset := func(string) string { return "" }
	for _, find := range []func(func(string) string) (string, error){kafkaJars, minioProgram} {
		if _, err := find(unset); err == nil || !strings.Contains(err.Error(), "XDG_CACHE_HOME") {
			t.Errorf("got %v, want an error that names the variable", err)
		}
	}
	if got, err := cacheDir(func(name string) string { return map[string]string{"HOME": "/h"}[name] }); err != nil ||
		got != "/h/.cache/vitrine" {
		t.Errorf("got %s, error %v", got, err)
	}
}

// tests is a run of tests that returns an exit code.
type tests func() int

func (f tests) Run() int { return f() }

//nolint:paralleltest // it and its subtests check all goroutines of the process
func TestMainReportsLeaks(t *testing.T) {
	ignore := []goleak.Option{goleak.IgnoreCurrent()}
	unset := func(string) string { return "" }
	t.Run("failure_shows_log_of_crashed_server", func(t *testing.T) {
		env, output := newEnvironment(unset), &strings.Builder{}
		code := runMain(tests(func() int {
			p := script(t, env.forkThread, "echo last words")
			s, err := env.launch(func(*workDir, *process.ForkThread) (*server, error) {
				return &server{name: "crashed", procs: []*process.Process{p}, ready: always}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			<-s.procs[0].Exited()
			return 1
		}), env, output, ignore)
		if code != 1 || !strings.Contains(output.String(), "last words") {
			t.Errorf("got code %d and %q", code, output)
		}
		if _, err := os.Stat(env.dir.path); err == nil {
			t.Error("the directory still exists")
		}
	})
	t.Run("remaining_goroutine_is_a_failure", func(t *testing.T) {
		env, output := newEnvironment(unset), &strings.Builder{}
		release := make(chan struct{})
		var wg sync.WaitGroup
		code := runMain(tests(func() int { wg.Go(func() { <-release }); return 0 }), env, output, ignore)
		close(release)
		wg.Wait()
		if code != 1 || !strings.Contains(output.String(), "goroutines outlive the tests") {
			t.Errorf("got code %d and %q", code, output)
		}
	})
	t.Run("server_that_does_not_stop_is_a_failure", func(t *testing.T) {
		env, output := newEnvironment(unset), &strings.Builder{}
		p := stubborn(t, env.forkThread)
		code := runMain(tests(func() int {
			_, err := env.launch(func(*workDir, *process.ForkThread) (*server, error) {
				return &server{name: "stubborn", procs: []*process.Process{p}, ready: trapped(p)}, nil
			})
			if err != nil {
				t.Error(err)
			}
			return 0
		}), env, output, ignore)
		if code != 1 || !strings.Contains(output.String(), "not down after 50ms") {
			t.Errorf("got code %d and %q", code, output)
		}
	})
	t.Run("no_failure", testMainNoFailure)
}

// failingTB is a testing.TB that records failures.
type failingTB struct {
	testing.TB
	output   string
	cleanups []func()
}

func (f *failingTB) Helper()                        {}
func (f *failingTB) Cleanup(fn func())              { f.cleanups = append(f.cleanups, fn) }
func (f *failingTB) Errorf(format string, a ...any) { f.output += fmt.Sprintf(format, a...) }
func (f *failingTB) Fatalf(format string, a ...any) { f.Errorf(format, a...); runtime.Goexit() }
func (f *failingTB) Skip(...any)                    { f.output += "SKIPPED"; runtime.Goexit() }

// try runs a function with a failingTB and returns its failures.
func try(t *testing.T, fn func(t testing.TB)) string {
	t.Helper()
	f := &failingTB{TB: t}
	var wg sync.WaitGroup
	wg.Go(func() { fn(f) })
	wg.Wait()
	for _, cleanup := range f.cleanups {
		cleanup()
	}
	return f.output
}

// unlessShort returns the failure that a test without its server reports: in short mode it is skipped instead.
func unlessShort(want string) string {
	if testing.Short() {
		return "SKIPPED"
	}
	return want
}

func TestMissingServer(t *testing.T) {
	t.Parallel()
	none := func() (string, error) { return "", missing("Kafka") }
	got := try(t, func(fake testing.TB) { fake.Helper(); need(fake, none) })
	if want := unlessShort("servers: Kafka is not installed: run `make deps-test`"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got = try(t, func(fake testing.TB) {
		fake.Helper()
		own(fake, func(*workDir, *process.ForkThread) (*server, error) { return nil, missing("Redis") })
	})
	if want := unlessShort("servers: Redis is not installed: run `make deps-test`"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOpenTransaction(t *testing.T) {
	t.Parallel()
	Postgres(t) // skips in short mode
	var left *pgx.Conn
	got := try(t, func(fake testing.TB) {
		fake.Helper()
		dsn := Postgres(fake)
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := conn.Exec(t.Context(), "BEGIN; CREATE TABLE thing (id int)"); err != nil {
			t.Error(err)
		}
		left = conn
	})
	if left != nil {
		left.Close(context.Background())
	}
	if !strings.Contains(got, "is a transaction still open?") {
		t.Errorf("got %q, want a failure", got)
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	t.Run("invalid_response", testReadinessInvalidResponse)
	t.Run("error_response", testReadinessErrorResponse)
}

func testReadinessInvalidResponse(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{"", "+", "-ERR no\r\n", "$-1\r\n", "$x\r\n", "$5\r\nab", "*1\r\n", "\r\n"} {
		if got, err := readReply(bufio.NewReader(strings.NewReader(reply))); err == nil {
			t.Errorf("%q: got %q and no error", reply, got)
		}
	}
	for reply, want := range map[string]string{"+OK\r\n": "OK", "$4\r\na\r\nb\r\n": "a\r\nb"} {
		if got, err := readReply(bufio.NewReader(strings.NewReader(reply))); err != nil || got != want {
			t.Errorf("%q: got %q, error %v; want %q", reply, got, err, want)
		}
	}
	if got := lineWith("a:1\r\ncluster_state:fail\r\nb:2", "cluster_state"); got != "cluster_state:fail" {
		t.Errorf("got %q", got)
	}
}

func TestStartServers(t *testing.T) {
	t.Parallel()
	t.Run("failure_stops_the_others", testStartServersFailureStopsTheOthers)
	t.Run("command_gets_environment", testStartServersCommandGetsEnvironment)
}

func testStartServersFailureStopsTheOthers(t *testing.T) {
	t.Parallel()
	getenv := func(name string) string {
		if name == envKafka {
			return "named:9092"
		}
		return ""
	}
	env := newEnvironment(getenv)
	fail := func() (string, error) { return "", errors.New("start failed") }
	env.postgres, env.redis, env.s3 = fail, fail, fail
	var up []string
	_, err := startServers(env, func(name string, _ time.Duration) { up = append(up, name) })
	if err == nil || !strings.Contains(err.Error(), "start failed") || len(up) != 1 || up[0] != "kafka" {
		t.Errorf("got %v with %v up; want the error, and kafka to be ready", err, up)
	}
	if !env.stopped {
		t.Error("the started servers are not stopped")
	}
}

func testStartServersCommandGetsEnvironment(t *testing.T) {
	t.Parallel()
	servers, err := StartServers(func(name string) string { return "<" + name + ">" }, func(string, time.Duration) {})
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGCONT // it has no effect on the command
	code, err := servers.Run([]string{"sh", "-c", "echo $VITRINE_TEST_KAFKA; exit 4"}, out, out, signals)
	if err != nil || code != 4 {
		t.Errorf("got exit code %d, error %v; want 4", code, err)
	}
	if got, err := os.ReadFile(out.Name()); err != nil || string(got) != "<VITRINE_TEST_KAFKA>\n" {
		t.Errorf("got %q, error %v; want the variable's value", got, err)
	}
	if code, err := servers.Run([]string{"sh", "-c", "kill -9 $$"}, out, out, nil); err != nil || code != 128+9 {
		t.Errorf("got exit code %d, error %v; want 137", code, err)
	}
	if _, err := servers.Run([]string{"/does/not/exist"}, out, out, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
	if got := servers.Crashed(); got != "" {
		t.Errorf("crashed: %q", got)
	}
	if err := servers.Stop(); err != nil {
		t.Error(err)
	}
	if err := servers.Stop(); err != nil {
		t.Errorf("stopping twice: %v", err)
	}
}

// serve accepts connections on a port of 127.0.0.1 and answers each with the same bytes, for any request.
func serve(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			_, _ = conn.Read(make([]byte, 1))
			_, _ = conn.Write([]byte(answer))
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func testReadinessErrorResponse(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"kafka that closes":           pingKafka(t.Context(), serve(t, "")),
		"kafka that answers error 35": pingKafka(t.Context(), serve(t, "\x00\x00\x00\x06\x00\x00\x00\x01\x00\x23")),
		"kafka that does not run":     pingKafka(t.Context(), "127.0.0.1:1"),
		"redis that closes":           everyRedis(t.Context(), []string{serve(t, "")}, "PING", "PONG"),
		"redis with another reply":    everyRedis(t.Context(), []string{serve(t, "+PING\r\n")}, "PING", "PONG"),
		"redis whose cluster is down": clusterReady(t.Context(), []string{serve(t, "$18\r\ncluster_state:fail\r\n")}, 1),
		"redis that does not run":     setUpCluster(t.Context(), []string{"127.0.0.1:1"}),
		"s3 that is busy":             pingS3(t.Context(), serve(t, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")),
		"s3 that does not run":        pingS3(t.Context(), "127.0.0.1:1"),
		"postgres that does not run":  ping(t.Context(), "postgres://x@127.0.0.1:1/x"),
	} {
		if err == nil {
			t.Errorf("%s is found to be ready", name)
		}
	}
	if err := pingKafka(t.Context(), serve(t, "\x00\x00\x00\x06\x00\x00\x00\x01\x00\x00")); err != nil {
		t.Errorf("a kafka that is ready: %v", err)
	}
}

func testMainNoFailure(t *testing.T) {
	env, output := newEnvironment(func(string) string { return "" }), &strings.Builder{}
	code := runMain(tests(func() int { return 0 }), env, output, []goleak.Option{goleak.IgnoreCurrent()})
	if code != 0 || output.Len() > 0 {
		t.Errorf("got code %d and %q", code, output)
	}
	_, err := env.launch(func(*workDir, *process.ForkThread) (*server, error) { return nil, errors.New("built") })
	if err == nil || strings.Contains(err.Error(), "built") {
		t.Errorf("got %v, want that the servers are stopped", err)
	}
}
