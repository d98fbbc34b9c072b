package kafka

import "sync"

// tracker records which messages of one partition are in progress, and how long the contiguous finished prefix is. It
// allows several messages of a partition at once without committing an offset beyond an unfinished one.
type tracker struct {
	capacity chan struct{} // one token for each message that is not part of the finished prefix

	mu      sync.Mutex
	records []*trackedRecord // in the order of their offsets; the first one is not finished
}

// trackedRecord is one message from add until it is part of the finished prefix.
type trackedRecord struct {
	offset   int64
	finished bool
}

// newTracker returns a tracker that allows at most window messages from the oldest unfinished one on. After a crash, at
// most that many are delivered again.
func newTracker(window int) *tracker {
	return &tracker{capacity: make(chan struct{}, window)}
}

// reserve waits for capacity for one more message and returns true, or false once stop is closed.
func (t *tracker) reserve(stop <-chan struct{}) bool { return send(t.capacity, stop) }

// add records a message after reserve. Offsets must grow; they may have gaps.
func (t *tracker) add(offset int64) *trackedRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &trackedRecord{offset: offset}
	t.records = append(t.records, r)
	return r
}

// finish records that r is done. If the finished prefix grew, next is the offset that follows it, to be marked.
func (t *tracker) finish(r *trackedRecord) (next int64, grew bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.finished = true
	n := 0
	for n < len(t.records) && t.records[n].finished {
		next = t.records[n].offset + 1
		n++
		<-t.capacity
	}
	t.records = t.records[n:]
	return next, n > 0
}
