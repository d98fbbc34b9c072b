// Package slots limits how many users each key has at a time.
package slots

import (
	"context"
	"slices"
	"sync"
)

// Slots counts the users of each key. It is safe for concurrent use. An entry exists while its key has users or waiters.
type Slots[K comparable] struct {
	mu      sync.Mutex
	entries map[K]*entry
}

type entry struct {
	used    int
	waiters []chan struct{} // in the order of arrival; closed when the waiter has its slot
}

// New returns Slots that are all free.
func New[K comparable]() *Slots[K] { return &Slots[K]{entries: map[K]*entry{}} }

// Acquire waits until key has fewer than limit users, in the order of the calls, and returns the function that releases the
// slot. release may be called more than once. ok is false if ctx ended first. limit is at least 1; calls may differ in it.
func (s *Slots[K]) Acquire(ctx context.Context, key K, limit int) (release func(), ok bool) {
	turn := s.enter(key, limit)
	if turn != nil {
		select {
		case <-turn:
		case <-ctx.Done():
			if !s.leave(key, turn) {
				return nil, false
			}
		}
	}
	return sync.OnceFunc(func() { s.release(key) }), true
}

// TryAcquire is Acquire that does not wait: ok is false if key has limit users or more, or waiters.
func (s *Slots[K]) TryAcquire(key K, limit int) (release func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.take(key, limit); !ok {
		return nil, false
	}
	return sync.OnceFunc(func() { s.release(key) }), true
}

// take takes a slot, if one is free and no other caller waits for it. The caller holds mu.
func (s *Slots[K]) take(key K, limit int) (e *entry, ok bool) {
	if e = s.entries[key]; e == nil {
		e = &entry{}
		s.entries[key] = e
	}
	if ok = e.used < limit && len(e.waiters) == 0; ok {
		e.used++
	}
	return e, ok
}

// enter takes a slot, or returns the channel of a new waiter.
func (s *Slots[K]) enter(key K, limit int) (turn chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.take(key, limit)
	if ok {
		return nil
	}
	turn = make(chan struct{})
	e.waiters = append(e.waiters, turn)
	return turn
}

// leave removes a waiter. It returns true if the waiter got its slot in the same moment.
func (s *Slots[K]) leave(key K, turn chan struct{}) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	i := -1
	if e != nil {
		i = slices.Index(e.waiters, turn)
	}
	if i < 0 {
		return true
	}
	e.waiters = slices.Delete(e.waiters, i, i+1)
	s.tidy(key, e)
	return false
}

// release gives the slot to the first waiter, or frees it. So a limit that has fallen holds only once the waiters are gone.
func (s *Slots[K]) release(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if len(e.waiters) > 0 {
		close(e.waiters[0])
		e.waiters = e.waiters[1:]
		return
	}
	e.used--
	s.tidy(key, e)
}

func (s *Slots[K]) tidy(key K, e *entry) {
	if e.used == 0 && len(e.waiters) == 0 {
		delete(s.entries, key)
	}
}

// Users returns how many users key has.
func (s *Slots[K]) Users(key K) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		return e.used
	}
	return 0
}

// Keys returns how many keys have users or waiters.
func (s *Slots[K]) Keys() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}
