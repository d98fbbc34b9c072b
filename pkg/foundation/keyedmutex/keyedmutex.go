// Package keyedmutex provides one mutex per key.
package keyedmutex

import "sync"

// Mutex is one mutex per key. It is safe for concurrent use. An entry exists while its mutex is held or waited for.
type Mutex[K comparable] struct {
	mu      sync.Mutex
	entries map[K]*entry
}

type entry struct {
	users int           // holders and waiters, by the Mutex's mu
	token chan struct{} // holds one token while the entry is unlocked
}

// New returns a Mutex whose keys are all unlocked.
func New[K comparable]() *Mutex[K] { return &Mutex[K]{entries: make(map[K]*entry)} }

// retain returns key's entry with the caller counted as a user, or nil if it has maxUsers users.
func (m *Mutex[K]) retain(key K, maxUsers int) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[key]
	if e == nil {
		e = &entry{token: make(chan struct{}, 1)}
		e.token <- struct{}{}
		m.entries[key] = e
	}
	if maxUsers > 0 && e.users >= maxUsers {
		return nil
	}
	e.users++
	return e
}

// release undoes retain.
func (m *Mutex[K]) release(key K, e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.users--; e.users == 0 {
		delete(m.entries, key)
	}
}

// Wait bounds the wait for a key.
type Wait struct {
	Stop     <-chan struct{} // ends the wait; nil: the wait does not end
	Before   func()          // is called once before a wait; may be nil
	MaxUsers int             // holders and waiters of a key, beyond which Lock does not wait; 0: no limit
}

// Lock locks key and returns the function that unlocks it. If key is held, it waits. unlock is nil if Stop ended the wait,
// or if the key has MaxUsers holders and waiters already; full is true in the second case.
func (m *Mutex[K]) Lock(key K, wait Wait) (unlock func(), full bool) {
	e := m.retain(key, wait.MaxUsers)
	if e == nil {
		return nil, true
	}
	unlock = func() {
		e.token <- struct{}{}
		m.release(key, e)
	}
	select {
	case <-e.token:
		return unlock, false
	default:
	}
	if wait.Before != nil {
		wait.Before()
	}
	select {
	case <-e.token:
		return unlock, false
	case <-wait.Stop:
		m.release(key, e)
		return nil, false
	}
}

// Users returns how many hold key or wait for it.
func (m *Mutex[K]) Users(key K) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[key]; e != nil {
		return e.users
	}
	return 0
}
