package testenv

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// stopPatience is how long a server may take to shut down before it is killed.
const stopPatience = 15 * time.Second

// logTail is how much of a server's log is shown when something went wrong with it, in bytes.
const logTail = 6 << 10

// nursery starts every child process from one OS thread that lives as long as the nursery does.
//
// The kernel sends a child its parent-death signal when the thread that forked it ends, not when the process does, and the
// Go runtime ends threads as it likes. One locked thread makes "my parent died" mean what it says.
type nursery struct {
	once  sync.Once
	start chan func()
	ended chan struct{}
}

func newNursery() *nursery {
	return &nursery{start: make(chan func()), ended: make(chan struct{})}
}

// run calls fork on the nursery's thread and returns its error.
func (n *nursery) run(fork func() error) error {
	n.once.Do(func() { go n.loop() })
	answer := make(chan error, 1)
	n.start <- func() { answer <- fork() }
	return <-answer
}

func (n *nursery) loop() {
	defer close(n.ended)
	runtime.LockOSThread()
	for fork := range n.start {
		fork()
	}
	runtime.UnlockOSThread()
}

// close ends the thread. No process may be started after it, and all should have been stopped before.
func (n *nursery) close() {
	n.once.Do(func() { close(n.ended) })
	close(n.start)
	<-n.ended
}

// process is one child process with its log in a file. It may be started again after it was stopped.
type process struct {
	name    string   // for messages
	argv    []string // the program and its arguments
	env     []string // added to the environment
	dir     string   // working directory
	log     string   // file for standard output and error, appended to
	user    *syscall.Credential
	quit    syscall.Signal // asks for a clean shutdown
	orphan  syscall.Signal // sent by the kernel if this process dies first
	nursery *nursery

	patience time.Duration // before it is killed; 0: stopPatience

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has been waited for
}

// start forks the process. It is running, not ready, when start returns.
func (p *process) start() error {
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", p.name, err)
	}
	defer out.Close()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, out, out
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = childAttr(p.user, p.orphan)
	if err := p.nursery.run(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		close(exited)
	}()
	p.cmd, p.exited = cmd, exited
	return nil
}

// running says whether the process was started and has not ended.
func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// stop asks the process to shut down, kills it if it does not within stopPatience, and returns when it and its process
// group are gone. It is safe on a process that never started or has ended.
func (p *process) stop() error {
	if p.cmd == nil {
		return nil
	}
	var late error
	patience := cmp.Or(p.patience, stopPatience)
	if p.running() {
		_ = p.cmd.Process.Signal(p.quit) // it may have ended a moment ago
		select {
		case <-p.exited:
		case <-time.After(patience):
			late = fmt.Errorf("stop %s: not down after %s, killed", p.name, patience)
		}
	}
	// Children of the server share its process group and may be left even if it is gone.
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
	p.cmd = nil
	return late
}

// tail returns the end of the log, headed by the process' name.
func (p *process) tail() string {
	text, err := readTail(p.log, logTail)
	if err != nil {
		return fmt.Sprintf("--- %s: no log: %v\n", p.name, err)
	}
	return fmt.Sprintf("--- log of %s (%s)\n%s\n", p.name, p.log, text)
}

func readTail(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(-limit, io.SeekEnd); errors.Is(err, syscall.EINVAL) {
		_, err = f.Seek(0, io.SeekStart) // shorter than the limit
		if err != nil {
			return nil, err
		}
	}
	return io.ReadAll(f)
}
