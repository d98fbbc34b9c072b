package kafka

import "sync"

// tracker knows which messages of one partition are being worked on and how far the partition is done: up to the first
// message that is not. It is what allows several messages of a partition at once without ever losing one.
type tracker struct {
	room chan struct{} // one token for each message that was taken and not yet marked

	mu   sync.Mutex
	open []*trackedRecord // in the order of their offsets; the first one is not finished
}

// trackedRecord is one message between its being taken and its being marked.
type trackedRecord struct {
	offset   int64
	finished bool
}

// newTracker returns a tracker that lets at most window messages be between the oldest unfinished one and the newest taken
// one: that is what comes again after a crash.
func newTracker(window int) *tracker {
	return &tracker{room: make(chan struct{}, window)}
}

// reserve waits until there is room for one more message, or until stop is closed, and reports whether there is.
func (t *tracker) reserve(stop <-chan struct{}) bool {
	select {
	case t.room <- struct{}{}:
		return true
	case <-stop:
		return false
	}
}

// take records a message, for which room was reserved. Offsets come in growing order; they may have gaps.
func (t *tracker) take(offset int64) *trackedRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &trackedRecord{offset: offset}
	t.open = append(t.open, m)
	return m
}

// finish says that m is done. If the finished prefix grew it returns the offset that follows it, which is what to mark.
func (t *tracker) finish(m *trackedRecord) (next int64, grew bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m.finished = true
	n := 0
	for n < len(t.open) && t.open[n].finished {
		next = t.open[n].offset + 1
		n++
		<-t.room
	}
	t.open = t.open[n:]
	return next, n > 0
}
