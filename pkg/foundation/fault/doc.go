// Package fault classifies errors by what the caller can do about them.
//
// The function that first understands an error classifies it with [New] or [Wrap]; its callers only wrap it with a verb
// ("load product: …"). Package httpapi maps a kind to an HTTP status, and package worker decides by it whether to retry.
// Code and Detail are public and stable; the cause is for logs and is never sent to a client.
//
// An unclassified error is Internal, a defect. The end of the caller's context is not a fault.
package fault
