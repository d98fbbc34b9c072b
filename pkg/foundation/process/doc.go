// Package process runs other programs that must not outlive this one.
//
// The kernel can signal a child when its parent dies, but it means the thread that forked the child, not the process, and
// the Go runtime ends threads as it likes. A [ForkThread] keeps one thread for forking, so the signal is sent when this
// program ends, kill -9 included (Linux; elsewhere children are only stopped in order).
//
// A [Process] is a program with its log in a file and a process group of its own: a Ctrl-C on the terminal reaches only us,
// so that we decide in which order to stop.
package process
