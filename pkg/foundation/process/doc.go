// Package process runs other programs that must not outlive this one.
//
// Linux signals a child when the thread that forked it ends, not when the process ends, and the Go runtime ends threads at
// any time. A [ForkThread] forks all children from one thread that it keeps, so the signal is sent when this program ends,
// by SIGKILL as well. Other systems have no such signal: there, children end only when they are stopped.
//
// A [Process] is a program with its log in a file and a process group of its own. A Ctrl-C in the terminal therefore reaches
// only this program, which stops its children in the order it needs.
package process
