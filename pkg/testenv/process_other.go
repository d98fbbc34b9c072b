//go:build unix && !linux

package testenv

import "syscall"

// childAttr is the same as on Linux but for the parent-death signal, which other kernels do not have: there, servers outlive
// a test process that dies by SIGKILL.
func childAttr(user *syscall.Credential, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: user}
}
