package rediscache

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// maxBatchKeys bounds the keys of one batch. All members of a batch wait for its last reply, so a larger one is slower for
// each of them.
const maxBatchKeys = 64

var errBatcherBusy = errors.New("earlier reads from this node are not answered yet")

// batcher pipelines concurrent GETs for one Redis node into one round trip. A GET that finds no batch in progress is sent at
// once. GETs that arrive during a batch wait for its end and are then sent together. So an idle node answers without delay,
// and a busy node is read with few system calls.
//
// A GET never joins a batch that was sent before the GET began. Like a GET on a connection of its own, it therefore sees
// every write that was acknowledged before it.
//
// A batcher has no goroutine of its own: one member of each batch sends it.
type batcher struct {
	send    func(members []*pendingGet) // sets the reply of every member, within timeout
	now     func() time.Time
	timeout time.Duration // a GET that has waited longer is not sent any more

	mu      sync.Mutex
	running bool          // a batch is in progress
	waiting []*pendingGet // GETs that wait for the end of that batch, in order of arrival
}

// pendingGet is a GET of one key from the node that should hold it. reply is nil until its batch has ended, and stays nil if
// the GET waited too long and was not sent.
type pendingGet struct {
	key   string
	node  *redis.Client
	start time.Time
	reply *redis.StringCmd

	ready   chan struct{} // closed when the wait is over: reply is final, or members are to be sent
	members []*pendingGet // the batch that this GET has to send
}

// get reads one key for a caller that has waited since start. It returns within twice the timeout: once for the batch in
// progress and once for its own. It returns errBatcherBusy if the batch in progress lasts too long, and the error of ctx if
// ctx ends before the GET is sent.
func (b *batcher) get(ctx context.Context, key string, node *redis.Client, start time.Time) (*redis.StringCmd, error) {
	own := &pendingGet{key: key, node: node, start: start}
	if b.start(own) {
		b.run([]*pendingGet{own})
		return own.reply, nil
	}
	select {
	case <-own.ready:
	case <-ctx.Done():
		if b.withdraw(own) {
			return nil, ctx.Err()
		}
		<-own.ready // it is a member of a batch already
	}
	if own.members != nil {
		b.run(own.members)
	}
	if own.reply == nil {
		return nil, errBatcherBusy
	}
	return own.reply, nil
}

// start reports whether own is to be sent at once. If a batch is in progress, own waits for the next one.
func (b *batcher) start(own *pendingGet) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.running {
		b.running = true
		return true
	}
	own.ready = make(chan struct{})
	b.waiting = append(b.waiting, own)
	return false
}

// withdraw removes own from the waiting GETs. It returns false if own is a member of a batch already.
func (b *batcher) withdraw(own *pendingGet) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, own)
	if i >= 0 {
		b.waiting = slices.Concat(b.waiting[:i], b.waiting[i+1:])
	}
	return i >= 0
}

// run sends a batch, whose first member is the caller's own GET. It then makes the first of the waiting GETs send the
// next batch, even if send panics.
func (b *batcher) run(members []*pendingGet) {
	defer func() {
		next, expired := b.nextBatch()
		if len(next) > 0 {
			next[0].members = next
			close(next[0].ready)
		}
		for _, get := range expired {
			close(get.ready)
		}
		for _, get := range members[1:] {
			close(get.ready)
		}
	}()
	b.send(members)
}

// nextBatch removes the members of the next batch from the waiting GETs. It also removes the GETs that have waited longer
// than timeout.
func (b *batcher) nextBatch() (next, expired []*pendingGet) {
	b.mu.Lock()
	defer b.mu.Unlock()
	oldest := b.now().Add(-b.timeout)
	for len(expired) < len(b.waiting) && b.waiting[len(expired)].start.Before(oldest) {
		expired = b.waiting[:len(expired)+1]
	}
	rest := b.waiting[len(expired):]
	next = rest[:min(len(rest), maxBatchKeys):min(len(rest), maxBatchKeys)]
	if b.waiting = rest[len(next):]; len(b.waiting) == 0 {
		b.waiting = nil // next and expired share its array
	}
	b.running = len(next) > 0
	return next, expired
}
