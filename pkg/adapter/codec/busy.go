package codec

import (
	"sync"
	"time"
)

// minSpan is the minimum time over which the utilization is averaged, once the pool is that old.
const minSpan = 15 * time.Second

// busyTime adds up the time for which slots are in use. It may be used concurrently.
type busyTime struct {
	slots float64
	now   func() time.Time

	mu       sync.Mutex
	busy     int
	at       time.Time // the time up to which seconds is added up
	seconds  float64   // summed over slots: two slots in use for one second count as two
	old, new reading   // readings: the utilization is the average since old
}

// reading is the sum at a point in time.
type reading struct {
	at      time.Time
	seconds float64
}

func newBusyTime(slots int, now func() time.Time) *busyTime {
	start := reading{at: now()}
	return &busyTime{slots: float64(slots), now: now, at: start.at, old: start, new: start}
}

// add records that n more slots are in use; n may be negative.
func (b *busyTime) add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance()
	b.busy += n
}

// total returns the slot-seconds in use until now.
func (b *busyTime) total() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance()
	return b.seconds
}

// utilization returns the share of the slots' time in use, 0 to 1. The average starts at an earlier reading that is at
// least minSpan old, so the result depends little on how often it is called.
func (b *busyTime) utilization() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance()
	if b.at.Sub(b.new.at) >= minSpan {
		b.old, b.new = b.new, reading{b.at, b.seconds}
	}
	span := b.at.Sub(b.old.at).Seconds()
	if span <= 0 {
		return float64(b.busy) / b.slots
	}
	return (b.seconds - b.old.seconds) / span / b.slots
}

// advance adds the time up to now. A clock that goes back adds nothing.
func (b *busyTime) advance() {
	now := b.now()
	if elapsed := now.Sub(b.at); elapsed > 0 {
		b.seconds += elapsed.Seconds() * float64(b.busy)
		b.at = now
	}
}
