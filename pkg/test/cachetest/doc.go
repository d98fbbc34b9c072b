// Package cachetest is what every catalog.Cache has to pass, whatever stands behind it.
//
// Most of it is about order: whatever slow readers and repeated messages do, a cache never answers with something older than
// the last change it was told of. One test walks random interleavings beside a model of ten lines, one lets goroutines race.
//
// A failure names the rule that was broken. The suite needs a store of its own for each Run, and leaves its keys there.
package cachetest
