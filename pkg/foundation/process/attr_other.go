//go:build unix && !linux

package process

import "syscall"

// Attr puts a child into a process group of its own, under user (nil: ours). Only Linux can tell a child that we died.
func Attr(user *syscall.Credential, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: user}
}

// onMainThread matters only where a thread's end reaches its children.
func onMainThread() bool { return false }
