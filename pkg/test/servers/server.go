package servers

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"vitrine.io/pkg/foundation/process"
)

const (
	startTimeout = 90 * time.Second      // for a JVM beside a -race build on two cores
	readyPoll    = 50 * time.Millisecond // interval of the checks of a starting server
	stopTimeout  = 15 * time.Second      // then the server is killed, which is an error
	startTries   = 3                     // a program that does not reserve ports may have taken one
)

// missing returns the error that a program is not installed.
func missing(what string) error {
	return fmt.Errorf("%s is not installed: run `make deps-test`", what)
}

// lookup finds a program in the PATH.
func lookup(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", missing(name)
	}
	return path, nil
}

// server is one server of one or more processes.
type server struct {
	name  string
	addrs []string
	procs []*process.Process
	ready func(ctx context.Context) error // nil when the server is ready

	// Optional, both or none: at the first start, setup is called when alive returns nil.
	alive, setup func(ctx context.Context) error
}

// launch builds a server and starts it. If the start fails, it retries with a new server on other ports.
func launch(build func() (*server, error)) (*server, error) {
	var failures []error
	for range startTries {
		s, err := build()
		if err != nil {
			return nil, err
		}
		if err = s.start(); err == nil {
			return s, nil
		}
		failures = append(failures, err, s.stop())
	}
	return nil, errors.Join(failures...)
}

// start starts all processes and returns when the server is ready.
func (s *server) start() error {
	for _, p := range s.procs {
		if err := p.Start(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if s.setup != nil {
		if err := s.await(ctx, s.alive); err != nil {
			return err
		}
		if err := s.setup(ctx); err != nil {
			return fmt.Errorf("set up %s: %w", s.name, err)
		}
		s.setup = nil
	}
	return s.await(ctx, s.ready)
}

// await calls check until it succeeds, a process ends or ctx does.
func (s *server) await(ctx context.Context, check func(ctx context.Context) error) error {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if logs := s.ended(); logs != "" {
			return fmt.Errorf("%s ended while it started:\n%s", s.name, logs)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %w\n%s", s.name, startTimeout, err, s.tails(s.procs))
		case <-tick.C:
		}
	}
}

// ended returns the logs of processes that have ended without a stop, "" if there are none.
func (s *server) ended() string {
	var ended []*process.Process
	for _, p := range s.procs {
		if p.State() != "" {
			ended = append(ended, p)
		}
	}
	return s.tails(ended)
}

func (s *server) tails(procs []*process.Process) string {
	var b strings.Builder
	for _, p := range procs {
		b.WriteString(p.Tail())
	}
	return b.String()
}

// stop stops all processes concurrently and returns when they have ended.
func (s *server) stop() error {
	errs := make([]error, len(s.procs))
	var wg sync.WaitGroup
	for i, p := range s.procs {
		wg.Go(func() { errs[i] = p.Stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
