package servers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"vitrine.io/pkg/foundation/process"
)

// Servers are all four servers, for a command that runs the tests of many packages.
type Servers struct {
	env    *environment
	values []string
}

// StartServers starts all servers concurrently, except those that getenv names, and calls report when one is ready, with the
// time since the beginning (one call at a time). If a server does not start, StartServers stops the others.
func StartServers(getenv func(string) string, report func(name string, elapsed time.Duration)) (*Servers, error) {
	return startServers(newEnvironment(getenv), report)
}

func startServers(env *environment, report func(name string, elapsed time.Duration)) (*Servers, error) {
	all := []struct {
		name, variable string
		launch         func() (string, error)
	}{
		{"postgres", envPostgres, env.postgres},
		{"redis cluster", envRedis, env.redis},
		{"kafka", envKafka, env.kafka},
		{"minio", envS3, env.s3},
	}
	s := &Servers{env: env, values: make([]string, len(all))}
	errs := make([]error, len(all))
	start := time.Now()
	var wg sync.WaitGroup
	var reporting sync.Mutex
	for i, server := range all {
		wg.Go(func() {
			value, err := server.launch()
			s.values[i], errs[i] = server.variable+"="+value, err
			if err == nil {
				reporting.Lock()
				defer reporting.Unlock()
				report(server.name, time.Since(start))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Crashed returns the logs of servers that ended without Stop, "" if all are running.
func (s *Servers) Crashed() string { return s.env.crashed() }

// Run runs a command with the servers' variables and the given output files, and forwards signals to it and to its children.
// When it ends, its remaining children are killed. Run returns the exit code, or 128 + n for a command that signal n has
// ended.
func (s *Servers) Run(argv []string, stdout, stderr *os.File, signals <-chan os.Signal) (int, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), s.values...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = process.Attr(nil, syscall.SIGTERM)
	if err := s.env.forkThread.Start(cmd); err != nil {
		return 0, fmt.Errorf("start command: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the result is in ProcessState
		close(ended)
	}()
	for {
		select {
		case sig := <-signals:
			if number, ok := sig.(syscall.Signal); ok {
				_ = syscall.Kill(-cmd.Process.Pid, number) // it may have ended
			}
		case <-ended:
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the remaining processes of its group
			return exitCode(cmd.ProcessState), nil
		}
	}
}

func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// Stop stops the servers that StartServers has started, and removes their files.
func (s *Servers) Stop() error { return s.env.stop() }
