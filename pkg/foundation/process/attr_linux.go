package process

import "syscall"

// Attr puts a child into a process group of its own, under user (nil: ours), and has the kernel send it orphan if we die.
func Attr(user *syscall.Credential, orphan syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: user, Pdeathsig: orphan}
}

// onMainThread says whether this goroutine runs on the thread that the process began with.
func onMainThread() bool { return syscall.Gettid() == syscall.Getpid() }
