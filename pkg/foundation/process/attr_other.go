//go:build unix && !linux

package process

import "syscall"

// Attr puts a child into a process group of its own, running as user (nil: the current user). Only Linux can signal a child
// when its parent dies.
func Attr(user *syscall.Credential, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: user}
}

// onMainThread matters only on Linux, where children get a signal when the forking thread ends.
func onMainThread() bool { return false }
