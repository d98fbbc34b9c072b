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
// each of them. Members that read the same key count once.
const maxBatchKeys = 64

// maxUnanswered is the number of consecutive unanswered batches after which a node counts as down.
const maxUnanswered = 2

// The reasons for which a GET is not sent.
var (
	errBatcherBusy = errors.New("earlier reads from this node are not answered yet")
	errNodeDown    = errors.New("this node did not answer the last reads")
)

// batcher pipelines concurrent GETs for one Redis node into one round trip. A GET that finds no batch in progress is sent at
// once. GETs that arrive during a batch wait for its end and are then sent together. So an idle node answers without delay,
// and a busy node is read with few system calls.
//
// A GET never joins a batch that was sent before the GET began. Like a GET on a connection of its own, it therefore sees
// every write that was acknowledged before it.
//
// A batcher is also the circuit breaker of its node: after maxUnanswered batches without an answer, GETs fail at once for
// the time of pause, so that a silent node does not delay every request. The first GET after the pause is sent alone and
// tests the node, while all others still fail.
//
// A batcher has no goroutine of its own: one member of each batch sends it.
type batcher struct {
	send    func(members []*pendingGet) (answered bool) // sets the reply of every member, within timeout
	opened  func()                                      // is called when the node starts to count as down
	now     func() time.Time
	timeout time.Duration // a GET that has waited longer is not sent any more
	pause   time.Duration // from an unanswered batch until the node is tested, while it counts as down

	mu         sync.Mutex
	running    bool          // a batch is in progress
	waiting    []*pendingGet // for the end of that batch, in order of arrival
	unanswered int           // consecutive batches
	testAt     time.Time     // while the node counts as down: when a GET may test it
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
// progress and once for its own. It returns errBatcherBusy if the batch in progress lasts too long or is not answered,
// errNodeDown at once if the node counts as down, and the error of ctx if ctx ends before the GET is sent.
func (b *batcher) get(ctx context.Context, key string, node *redis.Client, start time.Time) (*redis.StringCmd, error) {
	own := &pendingGet{key: key, node: node, start: start}
	started, err := b.start(own)
	if err != nil {
		return nil, err
	}
	if started {
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

// start reports whether own is to be sent at once. If a batch is in progress, own waits for the next one. It returns
// errNodeDown if the node counts as down and own is not the GET that tests it.
func (b *batcher) start(own *pendingGet) (started bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isDown() && (b.running || b.now().Before(b.testAt)) {
		return false, errNodeDown
	}
	if !b.running {
		b.running = true
		return true, nil
	}
	own.ready = make(chan struct{})
	b.waiting = append(b.waiting, own)
	return false, nil
}

// isDown reports whether the node counts as down. The caller holds mu.
func (b *batcher) isDown() bool { return b.unanswered >= maxUnanswered }

// down reports whether the node counts as down.
func (b *batcher) down() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.isDown()
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
	answered := false
	defer func() {
		next, expired := b.nextBatch(answered)
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
	answered = b.send(members)
}

// nextBatch records whether the last batch was answered. It removes the members of the next batch from those that wait, and
// those that have waited longer than timeout. If the node counts as down, all of them have.
func (b *batcher) nextBatch(answered bool) (next, expired []*pendingGet) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.record(answered)
	if b.isDown() {
		expired, b.waiting, b.running = b.waiting, nil, false
		return nil, expired
	}
	oldest := b.now().Add(-b.timeout)
	for len(expired) < len(b.waiting) && b.waiting[len(expired)].start.Before(oldest) {
		expired = b.waiting[:len(expired)+1]
	}
	rest := b.waiting[len(expired):]
	n := batchLen(rest)
	next = rest[:n:n]
	if b.waiting = rest[n:]; len(b.waiting) == 0 {
		b.waiting = nil // next and expired share its array
	}
	b.running = n > 0
	return next, expired
}

// record counts a batch for the circuit breaker. The caller holds mu.
func (b *batcher) record(answered bool) {
	if answered {
		b.unanswered = 0
		return
	}
	b.unanswered++
	b.testAt = b.now().Add(b.pause)
	if b.unanswered == maxUnanswered {
		b.opened()
	}
}

// batchLen returns how many of the waiting GETs read at most maxBatchKeys different keys.
func batchLen(waiting []*pendingGet) int {
	if len(waiting) <= maxBatchKeys {
		return len(waiting)
	}
	keys := make(map[string]struct{}, maxBatchKeys)
	for i, get := range waiting {
		if keys[get.key] = struct{}{}; len(keys) > maxBatchKeys {
			return i
		}
	}
	return len(waiting)
}
