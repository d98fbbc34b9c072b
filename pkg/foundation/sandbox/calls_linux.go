//go:build linux && (amd64 || arm64)

package sandbox

import "golang.org/x/sys/unix"

// firstShared is the first number that is the same call everywhere: those from Linux 5.1 on. Numbers of amd64's x32 variants
// are far above it, too.
const firstShared = unix.SYS_PIDFD_SEND_SIGNAL

// calls, and callsHere of this architecture, are what a process may do that computes, and that Go, glibc, jemalloc, GLib and
// libvips need for that. Most frequent first.
var calls = []uint32{
	// Threads wait for each other.
	unix.SYS_FUTEX, unix.SYS_SCHED_YIELD, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_RESTART_SYSCALL,
	// Memory.
	unix.SYS_MADVISE, unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MREMAP, unix.SYS_BRK, unix.SYS_MINCORE,
	unix.SYS_MEMBARRIER,
	// What is open: the pipes to the parent, and what Go waits for them with.
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_CLOSE, unix.SYS_FSTAT, unix.SYS_LSEEK,
	unix.SYS_PPOLL, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
	// Threads come and go. clone, prctl and, of what is open, fcntl are ruled on below.
	unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SIGALTSTACK, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	// Signals are handled. tgkill is ruled on below.
	unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGACTION,
	// Who and where am I, what time is it, how busy is the machine.
	unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID,
	unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY, unix.SYS_GETCPU, unix.SYS_SCHED_GETAFFINITY,
	unix.SYS_GETRUSAGE, unix.SYS_SYSINFO, unix.SYS_UNAME, unix.SYS_UMASK, unix.SYS_GETRANDOM,
}

// rule allows a call for some values of one argument, which the kernel takes as 32 bits.
type rule struct {
	call uint32
	arg  uint32 // its place, from 0
	mask uint32 // of the argument's bits that matter
	want uint32 // what they have to be
}

// rules are the calls that depend on what they are for. self is this process.
func rules(self uint32) []rule {
	const (
		everyBit = 1<<32 - 1
		thread   = unix.CLONE_THREAD | unix.CLONE_VM | unix.CLONE_SIGHAND
		spaces   = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
			unix.CLONE_NEWPID | unix.CLONE_NEWNET
	)
	return []rule{
		{unix.SYS_CLONE, 0, thread | spaces, thread},            // a thread, and no process
		{unix.SYS_TGKILL, 0, everyBit, self},                    // Go interrupts its threads; abort ends the process
		{unix.SYS_PRCTL, 0, everyBit, uint32(unix.PR_SET_NAME)}, // of a thread
		// Not F_SETOWN, F_SETSIG and O_ASYNC, with which a pipe sends any signal to any process whenever the parent writes to it.
		{unix.SYS_FCNTL, 1, everyBit, unix.F_GETFD}, {unix.SYS_FCNTL, 1, everyBit, unix.F_SETFD},
		{unix.SYS_FCNTL, 1, everyBit, unix.F_GETFL}, {unix.SYS_FCNTL, 1, everyBit, unix.F_DUPFD_CLOEXEC},
	}
}
