// Package sandbox gives up, for a process that only computes, nearly everything that a process may ask of the kernel.
//
// [Enter] puts a seccomp filter on every thread of the process, for good. What is left is reading and writing what is
// already open, memory, time, and threads. No file can be opened, not even for reading; there are no sockets, no other
// programs, no new processes, no signals to others, no tracing. Code that a hostile file has taken over has what it holds in
// its hands, and a pipe to its parent.
//
// Invariants:
//   - What is allowed is listed; the rest is refused. A refused call fails as it would for want of a privilege (EPERM), so
//     that a library that can do without goes on without; nothing is killed for asking. Calls younger than Linux 5.1 do not
//     exist here (ENOSYS): whoever uses them has a way to do without.
//   - Calls of another architecture's numbering end the process: no library makes them.
//   - It needs no privilege and works below other filters, a container's for instance.
//   - Enter has tried some refused calls before it returns nil: a kernel that only pretends is an error.
//
// Linux on amd64 and arm64; anywhere else Enter is an error.
package sandbox
