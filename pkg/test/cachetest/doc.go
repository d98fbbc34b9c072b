// Package cachetest is the conformance suite of catalog.Cache.
//
// Most tests are about order: with slow readers and repeated messages, a cache never returns a version that has been
// invalidated. One test compares random interleavings with a model; one runs concurrent readers and writers.
//
// Each Run needs a store of its own. The suite leaves its keys there.
package cachetest
