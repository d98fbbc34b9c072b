package rediscache

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// maxBatchKeys is how many keys a flight takes at most: all of them wait for the last.
const maxBatchKeys = 64

var errBatcherBusy = errors.New("earlier questions are still waiting for an answer")

// batcher lets those who ask one node ask together. Who finds no flight under way asks at once and alone; while one is, the
// others wait, and the next takes them all, for the price of one system call. So a node that is asked little answers as fast
// as it can, and one that is asked a lot is asked cheaply.
//
// Nobody is answered by a flight that left before the question was put, so a GET through here sees everything that was
// acknowledged before it began, as a GET of its own does.
//
// It has no goroutine of its own: each flight is flown by one of those on board.
type batcher struct {
	ask     func(crew []*pendingGet) // sets every answer within timeout
	now     func() time.Time
	timeout time.Duration // who has waited that long for a flight does not board it any more

	mu      sync.Mutex
	flying  bool
	waiting []*pendingGet
}

// pendingGet is one key, the node that should have it and, after the flight, what Redis said. Without an answer it was left
// behind.
type pendingGet struct {
	key    string
	node   *redis.Client
	asked  time.Time
	answer *redis.StringCmd

	called chan struct{} // closed when the question has been answered, or has a crew to fly
	crew   []*pendingGet
}

// get asks for one key, for someone who has waited since asked. It waits no longer than two flights take, since a flight
// leaves behind who waited longer than one may take, and not to board one when ctx has ended.
func (g *batcher) get(ctx context.Context, key string, node *redis.Client, asked time.Time) (*redis.StringCmd, error) {
	own := &pendingGet{key: key, node: node, asked: asked}
	if g.start(own) {
		g.run([]*pendingGet{own})
		return own.answer, nil
	}
	select {
	case <-own.called:
	case <-ctx.Done():
		if g.withdraw(own) {
			return nil, ctx.Err()
		}
		<-own.called // on board already
	}
	if own.crew != nil {
		g.run(own.crew)
	}
	if own.answer == nil {
		return nil, errBatcherBusy
	}
	return own.answer, nil
}

// start begins a flight if none is under way, or joins those who wait for the next.
func (g *batcher) start(own *pendingGet) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.flying {
		g.flying = true
		return true
	}
	own.called = make(chan struct{})
	g.waiting = append(g.waiting, own)
	return false
}

// withdraw gives up the wait. It is too late when a flight has taken the question.
func (g *batcher) withdraw(own *pendingGet) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, q := range g.waiting {
		if q == own {
			g.waiting = append(g.waiting[:i:i], g.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// run asks for a crew, whose first is the caller, and hands the flight to those who wait by then.
func (g *batcher) run(crew []*pendingGet) {
	defer func() { // whatever happens on board, the next ones fly
		next, late := g.nextBatch()
		if len(next) > 0 {
			next[0].crew = next
			close(next[0].called)
		}
		for _, q := range late {
			close(q.called)
		}
		for _, q := range crew[1:] {
			close(q.called)
		}
	}()
	g.ask(crew)
}

// nextBatch takes those who fly next and those who have waited for too long.
func (g *batcher) nextBatch() (next, late []*pendingGet) {
	g.mu.Lock()
	defer g.mu.Unlock()
	tooLate := g.now().Add(-g.timeout)
	for len(late) < len(g.waiting) && g.waiting[len(late)].asked.Before(tooLate) {
		late = g.waiting[:len(late)+1]
	}
	rest := g.waiting[len(late):]
	next = rest[:min(len(rest), maxBatchKeys):min(len(rest), maxBatchKeys)]
	if g.waiting = rest[len(next):]; len(g.waiting) == 0 {
		g.waiting = nil // the crews keep what was in it
	}
	g.flying = len(next) > 0
	return next, late
}
