// Package sandbox restricts the system calls of a process that only computes.
//
// [Enter] sets a seccomp filter on every thread of the process. The filter cannot be removed. The process can read and write
// open descriptors, manage memory, read clocks, and start threads. It cannot open files, not even for reading, create
// sockets, run programs, start processes, signal other processes, or trace. Code injected by a hostile file can therefore
// use only the memory of the process and the pipes to its parent.
//
// Invariants:
//   - Allowed calls are listed; all others are refused. A refused call fails with EPERM, so that libraries use their
//     fallback; the process is not killed. Calls since Linux 5.1 fail with ENOSYS, for which every library has a fallback.
//   - Calls with the numbers of another architecture end the process: no library makes them.
//   - It needs no privilege and works inside other filters, for instance a container's.
//   - Enter tries some refused calls before it returns nil: a kernel that does not enforce the filter is an error.
//
// It works on Linux on amd64 and arm64; on other systems Enter returns an error.
package sandbox
