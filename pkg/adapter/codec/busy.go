package codec

import (
	"sync"
	"time"
)

// leastSpan is over how long the utilization is an average at least, once the pool is as old.
const minSpan = 15 * time.Second

// busyTime adds up how long slots were taken. It may be used concurrently.
type busyTime struct {
	slots float64
	now   func() time.Time

	mu       sync.Mutex
	busy     int
	at       time.Time // until when seconds is added up
	seconds  float64   // of slots, so that two slots taken for one second are two
	old, new reading   // readings: the utilization is the average since old
}

// mark is what had added up at some time.
type reading struct {
	at      time.Time
	seconds float64
}

func newBusyTime(slots int, now func() time.Time) *busyTime {
	began := reading{at: now()}
	return &busyTime{slots: float64(slots), now: now, at: began.at, old: began, new: began}
}

// add says that n slots more are taken, or fewer.
func (b *busyTime) add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance()
	b.busy += n
}

// total returns how many seconds slots were taken, until now.
func (b *busyTime) total() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance()
	return b.seconds
}

// utilization returns which share of the slots' time was taken, 0 to 1, since a reading that is at least leastSpan old: with
// readings that are further apart than that, since the last one. Who else reads, and how often, hardly matters.
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

// advance adds up to now. A clock that goes back adds nothing.
func (b *busyTime) advance() {
	now := b.now()
	if gone := now.Sub(b.at); gone > 0 {
		b.seconds += gone.Seconds() * float64(b.busy)
		b.at = now
	}
}
