package port

// Internals for tests.
var (
	Take      = take
	Ephemeral = func() (low, high int) { s := ephemeralRange(ephemeralFile); return s.low, s.high }
)
