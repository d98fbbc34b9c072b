package slots

import (
	"slices"
	"sync"
)

// Shared is a number of slots that preferred users share with others. A free slot goes to a preferred user that waits,
// before all others. It is safe for concurrent use.
type Shared struct {
	mu        sync.Mutex
	free      int
	preferred Part
	others    Part
}

// Part is one of the two kinds of users of a Shared.
type Part struct {
	shared  *Shared
	used    int
	limit   int
	waiters []chan struct{} // in the order of arrival; closed when the waiter has its slot
}

// NewShared returns n slots, of which others may use up to limit.
func NewShared(n, limit int) *Shared {
	s := &Shared{free: n}
	s.preferred, s.others = Part{shared: s, limit: n}, Part{shared: s, limit: limit}
	return s
}

// Preferred returns the preferred users.
func (s *Shared) Preferred() *Part { return &s.preferred }

// Others returns the other users.
func (s *Shared) Others() *Part { return &s.others }

// Acquire waits for a slot and returns true, or returns false if stop is closed before.
func (p *Part) Acquire(stop <-chan struct{}) bool {
	turn := make(chan struct{})
	p.shared.mu.Lock()
	p.waiters = append(p.waiters, turn)
	p.shared.give()
	p.shared.mu.Unlock()
	select {
	case <-turn:
		return true
	case <-stop:
	}
	p.shared.mu.Lock()
	defer p.shared.mu.Unlock()
	i := slices.Index(p.waiters, turn)
	if i < 0 {
		return true // it got its slot in the same moment
	}
	p.waiters = slices.Delete(p.waiters, i, i+1)
	return false
}

// Release frees a slot that Acquire has returned.
func (p *Part) Release() {
	p.shared.mu.Lock()
	defer p.shared.mu.Unlock()
	p.used--
	p.shared.free++
	p.shared.give()
}

// give gives the free slots to those who wait.
func (s *Shared) give() {
	for _, p := range []*Part{&s.preferred, &s.others} {
		for s.free > 0 && p.used < p.limit && len(p.waiters) > 0 {
			s.free--
			p.used++
			close(p.waiters[0])
			p.waiters = p.waiters[1:]
		}
	}
}
