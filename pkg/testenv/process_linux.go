package testenv

import "syscall"

// childAttr puts a child into a process group of its own, under the given user (nil: ours), and has the kernel signal it if
// we die.
func childAttr(user *syscall.Credential, orphan syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: user, Pdeathsig: orphan}
}
