package kafka

import "sync"

// keyedMutex makes messages with the same key go one after the other. A lane exists while somebody is in it or waits for it.
type keyedMutex struct {
	mu   sync.Mutex
	open map[string]*keyedEntry
}

type keyedEntry struct {
	users int           // in it or waiting
	free  chan struct{} // holds one token while nobody is in it
}

func newKeyedMutex() *keyedMutex { return &keyedMutex{open: make(map[string]*keyedEntry)} }

// join counts the caller as a user of key's lane.
func (l *keyedMutex) join(key string) *keyedEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.open[key]
	if a == nil {
		a = &keyedEntry{free: make(chan struct{}, 1)}
		a.free <- struct{}{}
		l.open[key] = a
	}
	a.users++
	return a
}

// leave undoes join.
func (l *keyedMutex) leave(key string, a *keyedEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.users--; a.users == 0 {
		delete(l.open, key)
	}
}

// lock takes key's lane. When it is taken, waiting is called once before the wait; stop ends the wait. leave is nil if the
// lane was not entered.
func (l *keyedMutex) lock(key string, stop <-chan struct{}, waiting func()) (leave func()) {
	a := l.join(key)
	leave = func() {
		a.free <- struct{}{}
		l.leave(key, a)
	}
	select {
	case <-a.free:
		return leave
	default:
	}
	waiting()
	select {
	case <-a.free:
		return leave
	case <-stop:
		l.leave(key, a)
		return nil
	}
}
