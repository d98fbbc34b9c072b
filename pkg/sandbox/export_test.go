//go:build linux && (amd64 || arm64)

package sandbox

// What the tests look into.
var (
	Filter = filter
	Probe  = probe
	Calls  = calls
)

// The answers, and the number from which calls do not exist.
const (
	Arch        = arch
	Allow       = uint32(allow)
	Refuse      = uint32(refuse)
	Unknown     = uint32(unknown)
	Kill        = uint32(kill)
	FirstShared = firstShared
)

// EnterThread is Enter for the calling thread alone. Whoever calls it must have locked the thread, and never unlock it.
func EnterThread() error { return enter(0) }
