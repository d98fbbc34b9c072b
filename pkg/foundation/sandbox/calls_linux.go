//go:build linux && (amd64 || arm64)

package sandbox

import "golang.org/x/sys/unix"

// firstShared is the first number that is the same call on all architectures: those since Linux 5.1. The numbers of amd64's
// x32 variants are above it, too.
const firstShared = unix.SYS_PIDFD_SEND_SIGNAL

// calls, together with callsHere of this architecture, are the allowed calls: those that Go, glibc, jemalloc, GLib and
// libvips need to compute. The most frequent come first.
var calls = []uint32{
	// Synchronisation of threads.
	unix.SYS_FUTEX, unix.SYS_SCHED_YIELD, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_RESTART_SYSCALL,
	// Memory.
	unix.SYS_MADVISE, unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MREMAP, unix.SYS_BRK, unix.SYS_MINCORE,
	unix.SYS_MEMBARRIER,
	// Open descriptors: the pipes to the parent, and Go's poller.
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_CLOSE, unix.SYS_FSTAT, unix.SYS_LSEEK,
	unix.SYS_PPOLL, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
	// Start and end of threads. clone, prctl and fcntl have rules below.
	unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SIGALTSTACK, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	// Handling of signals. tgkill has a rule below.
	unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGACTION,
	// Process ids, clocks, and information about the system.
	unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID,
	unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY, unix.SYS_GETCPU, unix.SYS_SCHED_GETAFFINITY,
	unix.SYS_GETRUSAGE, unix.SYS_SYSINFO, unix.SYS_UNAME, unix.SYS_UMASK, unix.SYS_GETRANDOM,
}

// rule allows a call for some values of one argument, of which the low 32 bits are compared.
type rule struct {
	call uint32
	arg  uint32 // its index, from 0
	mask uint32 // the bits of the argument that are compared
	want uint32 // their required value
}

// rules returns the calls that are allowed for some arguments only. self is the id of this process.
func rules(self uint32) []rule {
	const (
		everyBit = 1<<32 - 1
		thread   = unix.CLONE_THREAD | unix.CLONE_VM | unix.CLONE_SIGHAND
		spaces   = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
			unix.CLONE_NEWPID | unix.CLONE_NEWNET
	)
	return []rule{
		{unix.SYS_CLONE, 0, thread | spaces, thread},            // a thread, not a process
		{unix.SYS_TGKILL, 0, everyBit, self},                    // Go preempts its threads; abort ends the process
		{unix.SYS_PRCTL, 0, everyBit, uint32(unix.PR_SET_NAME)}, // the name of a thread
		// Not F_SETOWN, F_SETSIG and O_ASYNC: with them a pipe sends any signal to any process when the parent writes to it.
		{unix.SYS_FCNTL, 1, everyBit, unix.F_GETFD}, {unix.SYS_FCNTL, 1, everyBit, unix.F_SETFD},
		{unix.SYS_FCNTL, 1, everyBit, unix.F_GETFL}, {unix.SYS_FCNTL, 1, everyBit, unix.F_DUPFD_CLOEXEC},
	}
}
