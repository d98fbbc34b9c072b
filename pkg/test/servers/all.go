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

// Servers are all four servers, for a command that runs many packages' tests.
type Servers struct {
	env    *environment
	values []string
}

// StartServers starts all servers at once and calls report as each is up (not from two goroutines at a time). A server that
// getenv names is left as it is. If one does not come up, the others are stopped again.
func StartServers(getenv func(string) string, report func(name string, took time.Duration)) (*Servers, error) {
	return startServers(newEnvironment(getenv), report)
}

func startServers(env *environment, report func(name string, took time.Duration)) (*Servers, error) {
	all := []struct {
		name, variable string
		start          func() (string, error)
	}{
		{"postgres", envPostgres, env.postgres},
		{"redis cluster", envRedis, env.redis},
		{"kafka", envKafka, env.kafka},
		{"minio", envS3, env.s3},
	}
	s := &Servers{env: env, values: make([]string, len(all))}
	errs := make([]error, len(all))
	began := time.Now()
	var wg sync.WaitGroup
	var reporting sync.Mutex
	for i, one := range all {
		wg.Go(func() {
			value, err := one.start()
			s.values[i], errs[i] = one.variable+"="+value, err
			if err == nil {
				reporting.Lock()
				defer reporting.Unlock()
				report(one.name, time.Since(began))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Crashed returns the logs of servers that ended by themselves, "" if all are well.
func (s *Servers) Crashed() string { return s.env.crashed() }

// Run runs a command with the servers' variables and our standard streams until it ends, passes signals on to it and to
// what it started, and leaves none of them behind. It returns the exit code, 128 + n for a command that died of signal n.
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
		_ = cmd.Wait() // how it ended is in ProcessState
		close(ended)
	}()
	for {
		select {
		case sig := <-signals:
			if number, ok := sig.(syscall.Signal); ok {
				_ = syscall.Kill(-cmd.Process.Pid, number) // it may be gone
			}
		case <-ended:
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left running in its group
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

// Stop stops what StartServers started and returns when nothing is left.
func (s *Servers) Stop() error { return s.env.stop() }
