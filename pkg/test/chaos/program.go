package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"vitrine.io/pkg/foundation/process"
	"vitrine.io/pkg/test/client"
)

// stopTimeout is how long a program may take to end in order.
const stopTimeout = 60 * time.Second

// Program is one process of the system that is tested. It may be used concurrently.
type Program struct {
	Name  string
	Admin string // URL of the admin port

	mu      sync.Mutex
	process *process.Process
	stopped    bool     // because we wanted it
	unexpectedExits  []string // how it ended when nobody wanted it to
}

// checkRunning notices that the program has ended by itself. The lock is held.
func (p *Program) checkRunning() (running bool) {
	running = p.process.Running()
	if state := p.process.State(); state != "" && !p.stopped {
		p.unexpectedExits, p.stopped = append(p.unexpectedExits, state), true
	}
	return running
}

// Start starts a program that is down.
func (p *Program) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.checkRunning() {
		return nil
	}
	p.stopped = false
	return p.process.Start()
}

// Kill ends the program at once. Its children are left to the kernel, which is told to end them with it.
func (p *Program) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.checkRunning() {
		return p.process.Stop()
	}
	p.stopped = true
	_ = syscall.Kill(p.process.PID(), syscall.SIGKILL) // it may have ended a moment ago
	<-p.process.Exited()
	return p.process.Stop()
}

// Stop ends the program in order. Not in time, or with another code than 0, is an error.
func (p *Program) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.checkRunning() {
		return nil
	}
	p.stopped = true
	_ = syscall.Kill(p.process.PID(), syscall.SIGTERM) // it may have ended a moment ago
	select {
	case <-p.process.Exited():
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("%s does not stop", p.Name), p.process.Stop())
	}
	state := p.process.State()
	err := p.process.Stop()
	if state != "exit status 0" {
		return errors.Join(fmt.Errorf("%s was told to stop and ended with: %s", p.Name, state), err)
	}
	return err
}

// Pause stops the program where it is.
func (p *Program) Pause() error { return p.signal(syscall.SIGSTOP) }

// Resume lets it go on.
func (p *Program) Resume() error { return p.signal(syscall.SIGCONT) }

func (p *Program) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process.Running() {
		_ = syscall.Kill(p.process.PID(), sig) // it may have ended a moment ago
	}
	return nil
}

// KillChildren kills the program's children and reports how many there were.
func (p *Program) KillChildren() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.process.Running() {
		return 0
	}
	killed := 0
	for _, pid := range childrenOf(p.process.PID()) {
		if syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	return killed
}

// Running reports whether the program has not ended.
func (p *Program) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checkRunning()
}

// UnexpectedExits says how the program ended, as often as it did when nobody wanted it to.
func (p *Program) UnexpectedExits() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checkRunning()
	return p.unexpectedExits
}

// ready returns nil when the program says that it is.
func (p *Program) ready(ctx context.Context, c *client.Client) error {
	a, err := c.Do(ctx, http.MethodGet, p.Admin+"/readyz", nil)
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("%s is not ready: %s", p.Name, bytes.TrimSpace(a.Body))
	}
	return err
}

// childrenOf lists the processes whose parent is pid, by Linux' table of processes.
func childrenOf(pid int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // only a malformed pattern fails
	var children []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it is gone
		}
		// pid (name, which may hold anything) state ppid ...
		_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
		fields := strings.Fields(rest)
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if n, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			children = append(children, n)
		}
	}
	return children
}
