package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/process"
	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/port"
)

// programs returns the directory of our programs, which make test has built or which it builds.
var programs = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("VITRINE_TEST_BIN_DIR"); dir != "" {
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "vitrine", "bench-bin") // always the same directory, so that old builds do not accumulate
	out, err := exec.Command("go", "build", "-o", dir+"/", "vitrine.io/cmd/api", "vitrine.io/cmd/worker",
		"vitrine.io/cmd/codec", "vitrine.io/cmd/vitrine", "vitrine.io/pkg/test/codecstub").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
})

// environ returns the environment of a program. The names of settings lack their prefix VITRINE_.
func environ(dir string, settings map[string]string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + cmp.Or(os.Getenv("GOCOVERDIR"), dir)}
	for name, value := range settings {
		env = append(env, "VITRINE_"+name+"="+value)
	}
	return env
}

// program is one of our programs, as a process.
type program struct {
	*process.Process
	admin string // host:port
}

// startProgram starts a program and waits until it is ready. It stops at the end of the test.
func startProgram(tb testing.TB, name string, settings map[string]string) *program {
	tb.Helper()
	bin, err := programs()
	must(tb, err)
	dir := tb.TempDir()
	p := &program{admin: port.Addr(tb)}
	env := append(environ(dir, settings), "VITRINE_LOG_LEVEL=info", "VITRINE_ADMIN_ADDR="+p.admin)
	forkThread := process.NewForkThread()
	tb.Cleanup(forkThread.Close)
	p.Process = &process.Process{
		Name: name, Argv: []string{filepath.Join(bin, name)}, Dir: dir, Log: filepath.Join(dir, name+".log"), Env: env,
		Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, StopTimeout: time.Minute, ForkThread: forkThread,
	}
	must(tb, p.Start())
	tb.Cleanup(func() { must(tb, p.Stop()) })
	p.await(tb)
	return p
}

// await waits until the program reports that it is ready.
func (p *program) await(tb testing.TB) {
	tb.Helper()
	admin := client.New("http://"+p.admin, client.Options{FreshConns: true})
	for until := time.Now().Add(2 * time.Minute); ; <-time.After(50 * time.Millisecond) {
		err := admin.Call(tb.Context(), http.MethodGet, "/readyz", nil, http.StatusOK, nil)
		if err == nil {
			return
		}
		if !p.Running() || time.Now().After(until) {
			tb.Fatalf("the %s is not ready: %v %s\n%s", p.Name, err, p.State(), p.Tail())
		}
	}
}
