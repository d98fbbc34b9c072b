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

// stopTimeout is the time that a program has to exit after SIGTERM.
const stopTimeout = 60 * time.Second

// Program is one process of the system under test. It is safe for concurrent use.
type Program struct {
	Name  string
	Admin string // URL of the admin port

	mu              sync.Mutex
	process         *process.Process
	stopped         bool     // by the harness
	unexpectedExits []string // states of exits that the harness did not cause
}

// checkRunning reports whether the program is running, and records an unexpected exit. p.mu must be held.
func (p *Program) checkRunning() (running bool) {
	running = p.process.Running()
	if state := p.process.State(); state != "" && !p.stopped {
		p.unexpectedExits, p.stopped = append(p.unexpectedExits, state), true
	}
	return running
}

// Start starts the program unless it is running.
func (p *Program) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.checkRunning() {
		return nil
	}
	p.stopped = false
	return p.process.Start()
}

// Kill ends the program with SIGKILL. The kernel ends its children by their parent-death signal.
func (p *Program) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.checkRunning() {
		return p.process.Stop()
	}
	p.stopped = true
	_ = syscall.Kill(p.process.PID(), syscall.SIGKILL) // fails only if it has just exited
	<-p.process.Exited()
	return p.process.Stop()
}

// Stop ends the program with SIGTERM. It is an error if the program needs more than stopTimeout or exits with another code
// than 0.
func (p *Program) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.checkRunning() {
		return nil
	}
	p.stopped = true
	_ = syscall.Kill(p.process.PID(), syscall.SIGTERM) // fails only if it has just exited
	select {
	case <-p.process.Exited():
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("%s does not exit on SIGTERM", p.Name), p.process.Stop())
	}
	state := p.process.State()
	err := p.process.Stop()
	if state != "exit status 0" {
		return errors.Join(fmt.Errorf("%s exited on SIGTERM with: %s", p.Name, state), err)
	}
	return err
}

// Pause suspends the program with SIGSTOP.
func (p *Program) Pause() error { return p.signal(syscall.SIGSTOP) }

// Resume continues a suspended program.
func (p *Program) Resume() error { return p.signal(syscall.SIGCONT) }

func (p *Program) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process.Running() {
		_ = syscall.Kill(p.process.PID(), sig) // fails only if it has just exited
	}
	return nil
}

// KillChildren sends SIGKILL to the program's children and returns how many it killed.
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

// Running reports whether the program is running.
func (p *Program) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checkRunning()
}

// UnexpectedExits returns the process states of all exits that the harness did not cause.
func (p *Program) UnexpectedExits() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checkRunning()
	return p.unexpectedExits
}

// ready returns nil if the program's /readyz returns 200.
func (p *Program) ready(ctx context.Context, c *client.Client) error {
	a, err := c.Do(ctx, http.MethodGet, p.Admin+"/readyz", nil)
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("%s is not ready: %s", p.Name, bytes.TrimSpace(a.Body))
	}
	return err
}

// childrenOf returns the processes whose parent is pid. It reads /proc, so it works on Linux only.
func childrenOf(pid int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is valid
	var children []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has exited
		}
		// Format: pid (name) state ppid ... The name may contain spaces and parentheses.
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
