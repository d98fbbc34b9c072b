//go:build linux && (amd64 || arm64)

package sandbox

import "slices"

// Internals for tests.
var (
	Filter = filter
	Probe  = probe
	Calls  = slices.Concat(calls, callsHere)
)

// Results of the filter, and the first number that fails with ENOSYS.
const (
	Arch        = arch
	Allow       = uint32(allow)
	Refuse      = refuse
	Unknown     = unknown
	Kill        = uint32(kill)
	FirstShared = firstShared
)

// EnterThread is Enter for the calling thread only. The caller must have locked the thread and must never unlock it.
func EnterThread() error { return enter(0) }
