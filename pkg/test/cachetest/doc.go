// Package cachetest is the conformance suite of catalog.Cache.
//
// Most of it is about order: in spite of slow readers and repeated messages, a cache never returns a version older than the
// last one it was told to forget. One test compares random interleavings with a small model, one runs goroutines at once.
//
// A failure names the rule that was broken. The suite needs a store of its own for each Run, and leaves its keys there.
package cachetest
