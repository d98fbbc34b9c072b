// Package lifecycle starts the parts of a program in order and stops them in reverse order, within one deadline.
//
// A [Part] runs until its context ends. Each part starts when the one before it is ready, and stops when the one after it
// has returned, so a part may use the parts before it as long as it runs. The end of the caller's context stops all parts,
// and so does a part that returns early: the process must exit, because only a process that has exited is restarted.
//
// A panic in a part is that part's error. When [Run] returns nil, every goroutine that it started has ended. When a part
// does not return within the grace period, Run returns without it, and the error names it.
package lifecycle
