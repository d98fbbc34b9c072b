package kafkatest

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
)

// errRetry is a handler's error, after which the message is reattempted.
var errRetry = errors.New("retry")

func startsAtOldest(t *testing.T, config kafka.Config) {
	messages := requests(30)
	publish(t, config, messages)
	for _, group := range []string{"first", "second"} {
		seen := newRecorder()
		join(t, config, options(group), seen.handle)
		eventually(t, "group "+group+" receives the earlier messages", func() bool { return seen.all(messages) })
	}
}

func failsThenSucceeds(t *testing.T, config kafka.Config) {
	messages := requests(10)
	publish(t, config, messages)
	attempted, done := newRecorder(), newRecorder()
	one := options("fails")
	one.InFlight = 1 // a message that waits for its next attempt must not hold the only slot
	join(t, config, one, func(_ context.Context, m event.Message) error {
		attempted.add(m)
		if m.ID == messages[0].ID && !done.all(messages[1:]) {
			return errRetry
		}
		done.add(m)
		return nil
	})
	eventually(t, "every message is done", func() bool { return done.all(messages) })
	if got := attempted.times(messages[0]); got < 2 {
		t.Errorf("attempts at the failing message: got %d, want at least 2", got)
	}
	for _, m := range messages[1:] {
		if got := attempted.times(m); got != 1 {
			t.Errorf("attempts at another message: got %d, want 1", got)
		}
	}
	eventually(t, "all is committed", func() bool { return offsets(t, config, "fails")[0] == 10 })
}

func panicIsRetried(t *testing.T, config kafka.Config) {
	messages := requests(5)
	publish(t, config, messages)
	attempted, done := newRecorder(), newRecorder()
	join(t, config, options("panics"), func(_ context.Context, m event.Message) error {
		if m.ID == messages[2].ID && attempted.add(m) < 3 {
			panic("a defect")
		}
		done.add(m)
		return nil
	})
	eventually(t, "every message is done", func() bool { return done.all(messages) })
}

// stuckOn returns a handler that records every message except the stuck one, on which it blocks until its context ends, and
// a channel that is closed when it blocks.
func stuckOn(stuck event.Message, seen *recorder) (kafka.Handle, <-chan struct{}) {
	blocked := make(chan struct{})
	var once sync.Once
	return func(ctx context.Context, m event.Message) error {
		if m.ID != stuck.ID {
			seen.add(m)
			return nil
		}
		once.Do(func() { close(blocked) })
		<-ctx.Done()
		return ctx.Err()
	}, blocked
}

func stoppedMidMessage(t *testing.T, config kafka.Config) {
	messages := requests(1)
	publish(t, config, messages)
	handle, blocked := stuckOn(messages[0], newRecorder())
	first := join(t, config, options("stopped"), handle)
	await(t, "the handler blocks", blocked)
	first.stop(t)
	seen := newRecorder()
	join(t, config, options("stopped"), seen.handle)
	eventually(t, "the message is redelivered", func() bool { return seen.all(messages) })
}

// severableNetwork dials until it is severed, which also closes its connections.
type severableNetwork struct {
	mu      sync.Mutex
	severed bool
	conns   []net.Conn
}

func (n *severableNetwork) dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.severed {
		return nil, errors.New("the network is severed")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		n.conns = append(n.conns, conn)
	}
	return conn, err
}

func (n *severableNetwork) sever() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.severed = true
	for _, conn := range n.conns {
		_ = conn.Close()
	}
}

func crashedMidMessage(t *testing.T, config kafka.Config) {
	messages := requests(5)
	publish(t, config, messages)
	seen := newRecorder()
	handle, blocked := stuckOn(messages[2], seen)
	network := &severableNetwork{}
	severable := options("crashed")
	severable.Dial = network.dial
	first := join(t, config, severable, handle)
	await(t, "the handler blocks", blocked)
	eventually(t, "the others are done", func() bool {
		return seen.all(messages[:2]) && seen.all(messages[3:])
	})
	network.sever() // so that it can neither commit nor leave the group
	first.cancel()
	second := newRecorder()
	join(t, config, options("crashed"), second.handle)
	eventually(t, "every message from the unfinished one on is redelivered", func() bool { return second.all(messages[2:]) })
}

func onlyThePrefix(t *testing.T, config kafka.Config) {
	messages := requests(10)
	publish(t, config, messages)
	seen := newRecorder()
	handle, blocked := stuckOn(messages[3], seen)
	first := join(t, config, options("prefix"), handle)
	await(t, "the handler blocks", blocked)
	eventually(t, "the others are done", func() bool { return seen.all(messages[:3]) && seen.all(messages[4:]) })
	first.stop(t)
	if got := offsets(t, config, "prefix")[0]; got != 3 {
		t.Fatalf("committed offset: got %d, want 3, the unfinished message", got)
	}
	redelivered := newRecorder()
	second := join(t, config, options("prefix"), redelivered.handle)
	eventually(t, "the rest is redelivered", func() bool { return redelivered.all(messages[3:]) })
	second.stop(t)
	if got := redelivered.times(messages[0]) + redelivered.times(messages[1]) + redelivered.times(messages[2]); got != 0 {
		t.Errorf("redeliveries of committed messages: got %d, want 0", got)
	}
}

func committed(t *testing.T, config kafka.Config) {
	messages := requests(60)
	publish(t, config, messages)
	seen := newRecorder()
	first := join(t, config, options("committed"), seen.handle)
	eventually(t, "every message is done", func() bool { return seen.all(messages) })
	eventually(t, "all is committed while running", func() bool {
		return total(offsets(t, config, "committed")) == int64(len(messages))
	})
	first.stop(t)
	more := requests(1)
	publish(t, config, more)
	redelivered := newRecorder()
	join(t, config, options("committed"), redelivered.handle)
	eventually(t, "the new message arrives", func() bool { return redelivered.all(more) })
	for _, m := range messages {
		if redelivered.times(m) != 0 {
			t.Fatal("a committed message was redelivered")
		}
	}
}

func finishesBeforeStop(t *testing.T, config kafka.Config) {
	publish(t, config, requests(1))
	started, release := make(chan struct{}), make(chan struct{})
	m := join(t, config, options("finishes"), func(ctx context.Context, _ event.Message) error {
		close(started)
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	await(t, "the handler starts", started)
	m.cancel()
	select {
	case <-m.done:
		t.Fatal("the consumer stopped with a message in flight")
	case <-time.After(500 * time.Millisecond): // within the grace period of two seconds
	}
	close(release)
	await(t, "the consumer stops", m.done)
	if got := offsets(t, config, "finishes")[0]; got != 1 {
		t.Errorf("committed offset: got %d, want 1: messages finished during the stop count", got)
	}
}

func rebalance(t *testing.T, config kafka.Config) {
	ensureTopics(t, config)
	publisher := newPublisher(t, config)
	var sent []event.Message
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // load from before the first member joins until after the last change
		defer close(stopped)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			batch := requests(20)
			for i, err := range publisher.Publish(context.Background(), batch) {
				if err == nil { // only acknowledged messages must arrive
					sent = append(sent, batch[i])
				}
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	seen := newRecorder()
	var interrupted atomic.Int64
	worker := func(handled *atomic.Int64) kafka.Handle {
		return func(ctx context.Context, m event.Message) error {
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				interrupted.Add(1)
				return ctx.Err()
			}
			seen.add(m)
			handled.Add(1)
			return nil
		}
	}
	var byA, byB, byC atomic.Int64
	group := options("rebalance")
	a := join(t, config, group, worker(&byA))
	eventually(t, "the first member works", func() bool { return byA.Load() > 50 })
	b := join(t, config, group, worker(&byB))
	eventually(t, "the second member works", func() bool { return byB.Load() > 50 })
	a.stop(t)
	join(t, config, group, worker(&byC))
	eventually(t, "the third member works", func() bool { return byC.Load() > 50 })
	b.stop(t)
	close(stop)
	await(t, "the load ends", stopped)
	eventually(t, "every message is done", func() bool { return seen.all(sent) })
	if got := interrupted.Load(); got != 0 {
		t.Errorf("messages in flight that were interrupted by a rebalance: got %d, want 0", got)
	}
}

func oneKeyAtATime(t *testing.T, config kafka.Config) {
	messages := requests(40)
	publish(t, config, messages)
	var running, maxRunning atomic.Int64
	seen := newRecorder()
	one := options("one-key")
	one.OrderingKey = func(event.Message) string { return "same" }
	join(t, config, one, func(_ context.Context, m event.Message) error {
		maxRunning.Store(max(maxRunning.Load(), running.Add(1)))
		defer running.Add(-1)
		<-time.After(2 * time.Millisecond)
		seen.add(m)
		return nil
	})
	eventually(t, "every message is done", func() bool { return seen.all(messages) })
	if got := maxRunning.Load(); got != 1 {
		t.Errorf("messages at the same time: got %d, want 1", got)
	}
}

func inFlight(t *testing.T, config kafka.Config) {
	messages := requests(40)
	publish(t, config, messages)
	const limit = 3
	var running, maxRunning atomic.Int64
	full := make(chan struct{})
	var once sync.Once
	seen := newRecorder()
	three := options("in-flight")
	three.InFlight = limit
	join(t, config, three, func(ctx context.Context, m event.Message) error {
		now := running.Add(1)
		defer running.Add(-1)
		for old := maxRunning.Load(); now > old; old = maxRunning.Load() {
			if maxRunning.CompareAndSwap(old, now) {
				break
			}
		}
		if now == limit {
			once.Do(func() { close(full) })
		}
		select {
		case <-full: // the limit is reached
		case <-ctx.Done():
			return ctx.Err()
		}
		<-time.After(2 * time.Millisecond)
		seen.add(m)
		return nil
	})
	eventually(t, "every message is done", func() bool { return seen.all(messages) })
	if got := maxRunning.Load(); got != limit {
		t.Errorf("messages at the same time: got %d, want %d", got, limit)
	}
}

func pauses(t *testing.T, config kafka.Config) {
	messages := requests(10)
	publish(t, config, messages)
	seen := newRecorder()
	m := join(t, config, options("pauses"), seen.handle)
	eventually(t, "the first messages are done", func() bool { return seen.all(messages) })
	m.Pause()
	m.Pause() // idempotent
	held := requests(10)
	publish(t, config, held)
	<-time.After(time.Second) // ten times the long poll of a fetch
	for _, message := range held {
		if seen.times(message) != 0 {
			t.Fatal("a paused consumer started a message")
		}
	}
	m.Resume()
	m.Resume()
	eventually(t, "the rest is done after the pause", func() bool { return seen.all(held) })
}

func ready(t *testing.T, config kafka.Config) {
	ensureTopics(t, config)
	m := join(t, config, options("ready"), newRecorder().handle)
	eventually(t, "the consumer is ready", func() bool { return m.Ready() == nil })
	m.stop(t)
	if m.Ready() == nil {
		t.Error("a stopped consumer is ready")
	}
}
