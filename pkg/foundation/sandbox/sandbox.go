//go:build linux && (amd64 || arm64)

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Enter applies the filter to all present and future threads of this process. It cannot be undone. Libraries that open files
// during their start must be started before.
//
// It is an error if the kernel has no filters, if the kernel or an outer filter does not permit one, or if a call that must
// be refused is not.
func Enter() error {
	// Kernels before 5.16 slow down a process with a filter to protect its memory from speculation attacks. A codec holds no
	// secrets and does not need that.
	err := enter(unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
	if errors.Is(err, unix.EINVAL) { // the flag is unknown to older kernels
		err = enter(unix.SECCOMP_FILTER_FLAG_TSYNC)
	}
	return err
}

// enter sets the filter on this thread, and with TSYNC on all of them.
func enter(flags uintptr) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Without this, only root may set filters. It also disables set-user-id programs.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("enter sandbox: give up privileges: %w", err)
	}
	raw, err := bpf.Assemble(filter(uint32(os.Getpid())))
	if err != nil {
		return fmt.Errorf("enter sandbox: assemble filter: %w", err)
	}
	program := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		program[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	of := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	thread, _, errno := unix.Syscall(
		unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&of))) //nolint:gosec // seccomp(2)
	runtime.KeepAlive(program)
	switch {
	case errno != 0:
		return fmt.Errorf("enter sandbox: set filter: %w", errno)
	case thread != 0:
		return fmt.Errorf("enter sandbox: set filter: thread %d has another one", thread)
	}
	if err := probe(); err != nil {
		return fmt.Errorf("enter sandbox: %w", err)
	}
	return nil
}

// probe tries calls that must be refused. Their arguments are invalid, so that a call that is not refused has no effect and
// fails with another error.
func probe() error {
	const nowhere = ^uintptr(0)
	var open []error
	for _, c := range []struct {
		name    string
		call    uintptr
		a, b, d uintptr
	}{
		{"open a file", unix.SYS_OPENAT, nowhere, 0, 0},
		{"make a socket", unix.SYS_SOCKET, nowhere, 0, 0},
		{"run a program", unix.SYS_EXECVE, 0, 0, 0},
		{"make a process", unix.SYS_CLONE, unix.CLONE_SIGHAND, 0, 0}, // without CLONE_VM: invalid
		{"signal a process", unix.SYS_KILL, uintptr(os.Getpid()), nowhere, 0},
		{"have a pipe send signals", unix.SYS_FCNTL, nowhere, unix.F_SETOWN, 0},
		{"trace a process", unix.SYS_PTRACE, nowhere, nowhere, 0},
	} {
		if _, _, errno := unix.RawSyscall(c.call, c.a, c.b, c.d); errno != unix.EPERM {
			open = append(open, fmt.Errorf("the kernel does not refuse to %s (%w)", c.name, errno))
		}
	}
	return errors.Join(open...)
}
