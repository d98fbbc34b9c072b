package process

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// logTail is how much of a log Tail shows, in bytes.
const logTail = 6 << 10

// Process is a program with its log in a file. It may be started again after it was stopped. It is not safe for concurrent
// use, but for Exited and Running.
type Process struct {
	Name       string   // for messages
	Argv       []string // the program and its arguments
	Env        []string // the whole environment
	Dir        string   // working directory
	Log        string   // file for standard output and error, appended to
	User       *syscall.Credential
	Quit       syscall.Signal // asks for a clean shutdown
	Orphan     syscall.Signal // sent by the kernel if this process dies first
	Patience   time.Duration  // how long a clean shutdown may take; then it is killed
	ForkThread *ForkThread

	from   int64 // size of the log at the start
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has been waited for
}

// Start forks the process. It is running, not ready, when Start returns.
func (p *Process) Start() error {
	out, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", p.Name, err)
	}
	defer out.Close()
	if info, err := out.Stat(); err == nil {
		p.from = info.Size()
	}
	cmd := exec.Command(p.Argv[0], p.Argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = p.Dir, out, out, p.Env
	cmd.SysProcAttr = Attr(p.User, p.Orphan)
	if err := p.ForkThread.Start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		close(exited)
	}()
	p.cmd, p.exited = cmd, exited
	return nil
}

// Exited is closed when the process has ended. It is nil before Start.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Running says whether the process was started and has not ended.
func (p *Process) Running() bool {
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

// State says how the process ended: "exit status 1". "" while it runs, or if it never started.
func (p *Process) State() string {
	if p.cmd == nil || p.Running() {
		return ""
	}
	return p.cmd.ProcessState.String()
}

// PID is the process' id, also after it ended; 0 if it was not started or has been stopped.
func (p *Process) PID() int {
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Stop asks the process to shut down, kills it if it does not within Patience, and returns when it and its process group are
// gone; the error says that it had to be killed. It is safe on a process that never started or has ended.
func (p *Process) Stop() error {
	if p.cmd == nil {
		return nil
	}
	var late error
	if p.Running() {
		_ = p.cmd.Process.Signal(p.Quit) // it may have ended a moment ago
		select {
		case <-p.exited:
		case <-time.After(p.Patience):
			late = fmt.Errorf("stop %s: not down after %s, killed", p.Name, p.Patience)
		}
	}
	// Children of the process share its group and may be left even if it is gone.
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
	p.cmd = nil
	return late
}

// Tail returns the end of what was logged since the start, headed by the process' name.
func (p *Process) Tail() string {
	text, err := readTail(p.Log, p.from, logTail)
	if err != nil {
		return fmt.Sprintf("--- %s: no log: %v\n", p.Name, err)
	}
	return fmt.Sprintf("--- log of %s (%s)\n%s\n", p.Name, p.Log, text)
}

// readTail reads at most limit bytes from the end of a file, and nothing before from.
func readTail(path string, from, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(max(from, info.Size()-limit), io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}
