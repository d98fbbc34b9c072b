// Package fault names what can go wrong by what the caller can do about it.
//
// An error is classified once, where it is first understood, with [New] or [Wrap]; its callers only wrap it with a
// verb ("load product: …"). Two tables turn a kind into a decision: the HTTP status in httpapi, and readiness to repeat
// in the worker. Code and Detail are public and stable; the cause is for logs and never leaves the process.
//
// An unclassified error is Internal, a defect. The end of a caller's own context is not a fault.
package fault
