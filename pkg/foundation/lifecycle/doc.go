// Package lifecycle starts a program's parts one after another and stops them in reverse, within one deadline.
//
// A [Part] is anything that works until its context ends. Parts start in the order given, each when the one before is
// ready; they stop in reverse, each when the one after it has returned, so a part may rely on the parts before it for as
// long as it lives. The end of the caller's context, or the first part that ends by itself, stops all of them: half a
// program is worse than none, because nothing restarts it.
//
// A panic in a part is that part's error. When [Run] returns nil, every goroutine it started has ended. When a part does
// not return within the grace period, Run gives up on it, and the error names it.
package lifecycle
