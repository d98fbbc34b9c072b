package kafka

import "sync"

// keyedMutex is one mutex per key. An entry exists while its mutex is held or waited for.
type keyedMutex struct {
	mu      sync.Mutex
	entries map[string]*keyedEntry
}

type keyedEntry struct {
	users int           // number of holders and waiters; protected by the keyedMutex's mu
	token chan struct{} // holds one token while the entry is unlocked
}

func newKeyedMutex() *keyedMutex { return &keyedMutex{entries: make(map[string]*keyedEntry)} }

// retain returns key's entry with the caller counted as a user.
func (k *keyedMutex) retain(key string) *keyedEntry {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entries[key]
	if e == nil {
		e = &keyedEntry{token: make(chan struct{}, 1)}
		e.token <- struct{}{}
		k.entries[key] = e
	}
	e.users++
	return e
}

// release undoes retain.
func (k *keyedMutex) release(key string, e *keyedEntry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.users--; e.users == 0 {
		delete(k.entries, key)
	}
}

// lock locks key and returns the function that unlocks it. If key is locked already, it calls beforeWait once and waits.
// If stop is closed before the wait ends, unlock is nil.
func (k *keyedMutex) lock(key string, stop <-chan struct{}, beforeWait func()) (unlock func()) {
	e := k.retain(key)
	unlock = func() {
		e.token <- struct{}{}
		k.release(key, e)
	}
	select {
	case <-e.token:
		return unlock
	default:
	}
	beforeWait()
	select {
	case <-e.token:
		return unlock
	case <-stop:
		k.release(key, e)
		return nil
	}
}
