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
	startPatience = 90 * time.Second      // a JVM beside a -race build on two cores needs it
	readyPoll     = 50 * time.Millisecond // how often a starting server is asked whether it is up
	stopPatience  = 15 * time.Second      // then it is killed, and that is a failure
	startTries    = 3                     // a program that reserves no port may take one of ours
)

// missing says that a program which a server needs is not on this machine.
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

// server is one server, made of one process or several.
type server struct {
	name  string
	addrs []string
	procs []*process.Process
	ready func(ctx context.Context) error // nil once it serves

	// Optional, both or none: the first time, as soon as alive says nil, form is called to make it what it shall be.
	alive, form func(ctx context.Context) error
}

// launch builds a server and starts it, on other ports if that fails.
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

// start starts every process and returns when the server serves.
func (s *server) start() error {
	for _, p := range s.procs {
		if err := p.Start(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), startPatience)
	defer cancel()
	if s.form != nil {
		if err := s.await(ctx, s.alive); err != nil {
			return err
		}
		if err := s.form(ctx); err != nil {
			return fmt.Errorf("form %s: %w", s.name, err)
		}
		s.form = nil
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
		if dead := s.dead(); dead != "" {
			return fmt.Errorf("%s ended while it started:\n%s", s.name, dead)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not up after %s: %w\n%s", s.name, startPatience, err, s.tails(s.procs))
		case <-tick.C:
		}
	}
}

// dead returns the logs of processes that ended though nobody stopped them, "" if there are none.
func (s *server) dead() string {
	var dead []*process.Process
	for _, p := range s.procs {
		if p.State() != "" {
			dead = append(dead, p)
		}
	}
	return s.tails(dead)
}

func (s *server) tails(procs []*process.Process) string {
	var b strings.Builder
	for _, p := range procs {
		b.WriteString(p.Tail())
	}
	return b.String()
}

// stop ends all processes at once and returns when they are gone.
func (s *server) stop() error {
	errs := make([]error, len(s.procs))
	var wg sync.WaitGroup
	for i, p := range s.procs {
		wg.Go(func() { errs[i] = p.Stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
