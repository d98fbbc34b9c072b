package child

import "syscall"

// Attr puts a child into a process group of its own, under user (nil: ours), and has the kernel send it orphan if we die.
func Attr(user *syscall.Credential, orphan syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: user, Pdeathsig: orphan}
}
