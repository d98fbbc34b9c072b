package port

// What the tests see of the inside.
var (
	Take      = take
	Ephemeral = func() (low, high int) { s := ephemeralRange(ephemeralFile); return s.low, s.high }
)
