package process

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// logTail is the maximum of what Tail returns of a log, in bytes.
const logTail = 6 << 10

// Process is a program with its log in a file. It can be started again after Stop. Only Exited and Running are safe for
// concurrent use.
type Process struct {
	Name        string   // for errors and Tail
	Argv        []string // the program and its arguments
	Env         []string // the complete environment; nil is that of this process
	Dir         string   // working directory
	Log         string   // file for standard output and error, appended to
	User        *syscall.Credential
	Quit        syscall.Signal // requests a clean shutdown
	Orphan      syscall.Signal // sent by the kernel when this program ends first (Linux)
	StopTimeout time.Duration  // the maximum of a clean shutdown; then the process is killed
	ForkThread  *ForkThread

	from   int64 // size of the log at the last start, in bytes
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has been waited for
}

// Start forks the process. When Start returns the process runs, but may not be ready. The error names the process.
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
		_ = cmd.Wait() // the result is in ProcessState
		close(exited)
	}()
	p.cmd, p.exited = cmd, exited
	return nil
}

// Exited is closed when the process has ended. It is nil before Start.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Running reports whether the process has been started and has not ended.
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

// State describes how the process ended, such as "exit status 1". It is "" while the process runs and before Start.
func (p *Process) State() string {
	if p.cmd == nil || p.Running() {
		return ""
	}
	return p.cmd.ProcessState.String()
}

// PID returns the process id, also after the process has ended; 0 before Start and after Stop.
func (p *Process) PID() int {
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Stop sends Quit, kills the process if it has not ended after StopTimeout, and returns when the process and its process
// group have ended. The error says that the process had to be killed. Stop does nothing before Start.
func (p *Process) Stop() error {
	if p.cmd == nil {
		return nil
	}
	var late error
	if p.Running() {
		_ = p.cmd.Process.Signal(p.Quit) // it may have ended a moment ago
		select {
		case <-p.exited:
		case <-time.After(p.StopTimeout):
			late = fmt.Errorf("stop %s: not down after %s, killed", p.Name, p.StopTimeout)
		}
	}
	// Children of the process share its group and may outlive it.
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
	p.cmd = nil
	return late
}

// Tail returns the end of the log since the last start, at most 6 KiB, below a line with the name of the process.
func (p *Process) Tail() string {
	text, err := readTail(p.Log, p.from, logTail)
	if err != nil {
		return fmt.Sprintf("--- %s: no log: %v\n", p.Name, err)
	}
	return fmt.Sprintf("--- log of %s (%s)\n%s\n", p.Name, p.Log, text)
}

// readTail returns the last bytes of a file, at most limit of them, and none before the offset from.
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
