package kafka

import "sync"

// lanes makes messages with the same key go one after the other. A lane exists while somebody is in it or waits for it.
type lanes struct {
	mu   sync.Mutex
	open map[string]*lane
}

type lane struct {
	users int           // in it or waiting
	free  chan struct{} // holds one token while nobody is in it
}

func newLanes() *lanes { return &lanes{open: make(map[string]*lane)} }

// join counts the caller as a user of key's lane.
func (l *lanes) join(key string) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.open[key]
	if a == nil {
		a = &lane{free: make(chan struct{}, 1)}
		a.free <- struct{}{}
		l.open[key] = a
	}
	a.users++
	return a
}

// part undoes join.
func (l *lanes) part(key string, a *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.users--; a.users == 0 {
		delete(l.open, key)
	}
}

// enter takes key's lane. When it is taken, waiting is called once before the wait; stop ends the wait. leave is nil if the
// lane was not entered.
func (l *lanes) enter(key string, stop <-chan struct{}, waiting func()) (leave func()) {
	a := l.join(key)
	leave = func() {
		a.free <- struct{}{}
		l.part(key, a)
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
		l.part(key, a)
		return nil
	}
}
