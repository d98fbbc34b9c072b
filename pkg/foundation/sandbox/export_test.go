//go:build linux && (amd64 || arm64)

package sandbox

import "slices"

// What the tests look into.
var (
	Filter = filter
	Probe  = probe
	Calls  = slices.Concat(calls, callsHere)
)

// The answers, and the number from which calls do not exist.
const (
	Arch        = arch
	Allow       = uint32(allow)
	Refuse      = refuse
	Unknown     = unknown
	Kill        = uint32(kill)
	FirstShared = firstShared
)

// EnterThread is Enter for the calling thread alone. Whoever calls it must have locked the thread, and never unlock it.
func EnterThread() error { return enter(0) }
