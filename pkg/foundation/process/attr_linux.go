package process

import "syscall"

// Attr puts a child into a process group of its own, running as user (nil: the current user). The kernel sends it the signal
// orphan when the forking thread ends, see [ForkThread].
func Attr(user *syscall.Credential, orphan syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: user, Pdeathsig: orphan}
}

// onMainThread reports whether this goroutine runs on the main thread of the process.
func onMainThread() bool { return syscall.Gettid() == syscall.Getpid() }
