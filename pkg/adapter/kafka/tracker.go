package kafka

import "sync"

// tracker records which messages of one partition are finished, and the offset up to which all are. Several messages of a
// partition may therefore be in progress at once, and no offset beyond an unfinished message is committed.
type tracker struct {
	capacity chan struct{} // one token for each message from the oldest unfinished one on

	mu      sync.Mutex
	records []*trackedRecord // in the order of their offsets; the first one is not finished
}

// trackedRecord is one message, from add until it and all messages before it are finished.
type trackedRecord struct {
	offset   int64
	finished bool
}

// newTracker returns a tracker that allows at most window messages from the oldest unfinished one on. After a crash, at
// most that many are delivered again.
func newTracker(window int) *tracker {
	return &tracker{capacity: make(chan struct{}, window)}
}

// reserve waits for capacity for one more message and returns true. If stop is closed before, it returns false.
func (t *tracker) reserve(stop <-chan struct{}) bool { return send(t.capacity, stop) }

// add records a message after reserve. Offsets must grow; they may have gaps.
func (t *tracker) add(offset int64) *trackedRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &trackedRecord{offset: offset}
	t.records = append(t.records, r)
	return r
}

// finish records that r is done. If r was the oldest unfinished message, grew is true, and next is the offset that the
// caller has to mark: all messages before it are finished.
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
