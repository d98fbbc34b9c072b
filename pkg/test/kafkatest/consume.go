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

// errNotNow is how a handler says that a message is not done.
var errNotNow = errors.New("not now")

func startsAtOldest(t *testing.T, config kafka.Config) {
	messages := requests(30)
	publish(t, config, messages)
	for _, group := range []string{"first", "second"} {
		seen := newNotes()
		join(t, config, options(group), seen.take)
		eventually(t, "group "+group+" sees what was there before it", func() bool { return seen.all(messages) })
	}
}

func failsThenSucceeds(t *testing.T, config kafka.Config) {
	messages := requests(10)
	publish(t, config, messages)
	tried, done := newNotes(), newNotes()
	one := options("fails")
	one.InFlight = 1 // so that a message that waits for its next attempt may not keep its place
	join(t, config, one, func(_ context.Context, m event.Message) error {
		tried.add(m)
		if m.ID == messages[0].ID && !done.all(messages[1:]) {
			return errNotNow
		}
		done.add(m)
		return nil
	})
	eventually(t, "every message is done", func() bool { return done.all(messages) })
	if got := tried.times(messages[0]); got < 2 {
		t.Errorf("the failing message was tried %d times, want it repeated", got)
	}
	for _, m := range messages[1:] {
		if got := tried.times(m); got != 1 {
			t.Errorf("another message was tried %d times, want once", got)
		}
	}
	eventually(t, "all is committed", func() bool { return offsets(t, config, "fails")[0] == 10 })
}

func panics(t *testing.T, config kafka.Config) {
	messages := requests(5)
	publish(t, config, messages)
	tried, done := newNotes(), newNotes()
	join(t, config, options("panics"), func(_ context.Context, m event.Message) error {
		if m.ID == messages[2].ID && tried.add(m) < 3 {
			panic("a defect")
		}
		done.add(m)
		return nil
	})
	eventually(t, "every message is done", func() bool { return done.all(messages) })
}

// stuckOn returns a handler that notes every message but one, on which it works until its context ends, and a channel that
// tells when it began.
func stuckOn(stubborn event.Message, seen *notes) (kafka.Handle, <-chan struct{}) {
	begun := make(chan struct{})
	var once sync.Once
	return func(ctx context.Context, m event.Message) error {
		if m.ID != stubborn.ID {
			seen.add(m)
			return nil
		}
		once.Do(func() { close(begun) })
		<-ctx.Done()
		return ctx.Err()
	}, begun
}

func stoppedMidMessage(t *testing.T, config kafka.Config) {
	messages := requests(1)
	publish(t, config, messages)
	handle, begun := stuckOn(messages[0], newNotes())
	first := join(t, config, options("stopped"), handle)
	await(t, "the message is begun", begun)
	first.stop(t)
	seen := newNotes()
	join(t, config, options("stopped"), seen.take)
	eventually(t, "the message comes again", func() bool { return seen.all(messages) })
}

// lifeline is a network that can be torn.
type lifeline struct {
	mu    sync.Mutex
	torn  bool
	conns []net.Conn
}

func (l *lifeline) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.torn {
		return nil, errors.New("the network is torn")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		l.conns = append(l.conns, conn)
	}
	return conn, err
}

func (l *lifeline) tear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.torn = true
	for _, conn := range l.conns {
		_ = conn.Close()
	}
}

func diedMidMessage(t *testing.T, config kafka.Config) {
	messages := requests(5)
	publish(t, config, messages)
	seen := newNotes()
	handle, begun := stuckOn(messages[2], seen)
	network := &lifeline{}
	mortal := options("died")
	mortal.Dial = network.dial
	first := join(t, config, mortal, handle)
	await(t, "the message is begun", begun)
	eventually(t, "the others are done", func() bool {
		return seen.all(messages[:2]) && seen.all(messages[3:])
	})
	network.tear() // it can neither commit nor say goodbye
	first.cancel()
	heir := newNotes()
	join(t, config, options("died"), heir.take)
	eventually(t, "everything from the unfinished message on comes again", func() bool { return heir.all(messages[2:]) })
}

func onlyThePrefix(t *testing.T, config kafka.Config) {
	messages := requests(10)
	publish(t, config, messages)
	seen := newNotes()
	handle, begun := stuckOn(messages[3], seen)
	first := join(t, config, options("prefix"), handle)
	await(t, "the stubborn message is begun", begun)
	eventually(t, "the others are done", func() bool { return seen.all(messages[:3]) && seen.all(messages[4:]) })
	first.stop(t)
	if got := offsets(t, config, "prefix")[0]; got != 3 {
		t.Fatalf("committed offset: got %d, want 3, the unfinished message", got)
	}
	again := newNotes()
	second := join(t, config, options("prefix"), again.take)
	eventually(t, "the rest comes again", func() bool { return again.all(messages[3:]) })
	second.stop(t)
	if got := again.times(messages[0]) + again.times(messages[1]) + again.times(messages[2]); got != 0 {
		t.Errorf("what was committed came again %d times", got)
	}
}

func committed(t *testing.T, config kafka.Config) {
	messages := requests(60)
	publish(t, config, messages)
	seen := newNotes()
	first := join(t, config, options("committed"), seen.take)
	eventually(t, "every message is done", func() bool { return seen.all(messages) })
	eventually(t, "all is committed while running", func() bool {
		return total(offsets(t, config, "committed")) == int64(len(messages))
	})
	first.stop(t)
	more := requests(1)
	publish(t, config, more)
	again := newNotes()
	join(t, config, options("committed"), again.take)
	eventually(t, "the new message arrives", func() bool { return again.all(more) })
	for _, m := range messages {
		if again.times(m) != 0 {
			t.Fatal("a committed message came again")
		}
	}
}

func finishesBeforeStop(t *testing.T, config kafka.Config) {
	publish(t, config, requests(1))
	begun, release := make(chan struct{}), make(chan struct{})
	m := join(t, config, options("finishes"), func(ctx context.Context, _ event.Message) error {
		close(begun)
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	await(t, "the message is begun", begun)
	m.cancel()
	select {
	case <-m.done:
		t.Fatal("the consumer stopped with a message in flight")
	case <-time.After(500 * time.Millisecond): // well within the grace of two seconds
	}
	close(release)
	await(t, "the consumer stops", m.done)
	if got := offsets(t, config, "finishes")[0]; got != 1 {
		t.Errorf("committed offset: got %d, want 1: what finished during the stop counts", got)
	}
}

func rebalance(t *testing.T, config kafka.Config) {
	makeTopics(t, config)
	publisher := newPublisher(t, config)
	var sent []event.Message
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // load, from before the first member until after the last change
		defer close(stopped)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			batch := requests(20)
			for i, err := range publisher.Publish(context.Background(), batch) {
				if err == nil { // what counts is what was acknowledged
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
	seen := newNotes()
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

func exclusive(t *testing.T, config kafka.Config) {
	messages := requests(40)
	publish(t, config, messages)
	var running, most atomic.Int64
	seen := newNotes()
	one := options("exclusive")
	one.Exclusive = func(event.Message) string { return "all the same" }
	join(t, config, one, func(_ context.Context, m event.Message) error {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		<-time.After(2 * time.Millisecond)
		seen.add(m)
		return nil
	})
	eventually(t, "every message is done", func() bool { return seen.all(messages) })
	if got := most.Load(); got != 1 {
		t.Errorf("messages at once: got %d, want 1", got)
	}
}

func inFlight(t *testing.T, config kafka.Config) {
	messages := requests(40)
	publish(t, config, messages)
	const limit = 3
	var running, most atomic.Int64
	full := make(chan struct{})
	var once sync.Once
	seen := newNotes()
	three := options("in-flight")
	three.InFlight = limit
	join(t, config, three, func(ctx context.Context, m event.Message) error {
		now := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); now > old; old = most.Load() {
			if most.CompareAndSwap(old, now) {
				break
			}
		}
		if now == limit {
			once.Do(func() { close(full) })
		}
		select {
		case <-full: // as many as allowed have met
		case <-ctx.Done():
			return ctx.Err()
		}
		<-time.After(2 * time.Millisecond)
		seen.add(m)
		return nil
	})
	eventually(t, "every message is done", func() bool { return seen.all(messages) })
	if got := most.Load(); got != limit {
		t.Errorf("messages at once: got %d, want %d", got, limit)
	}
}

func pauses(t *testing.T, config kafka.Config) {
	messages := requests(10)
	publish(t, config, messages)
	seen := newNotes()
	m := join(t, config, options("pauses"), seen.take)
	eventually(t, "the first messages are done", func() bool { return seen.all(messages) })
	m.Pause()
	m.Pause() // again is the same
	held := requests(10)
	publish(t, config, held)
	<-time.After(time.Second) // ten times the longest fetch
	for _, message := range held {
		if seen.times(message) != 0 {
			t.Fatal("a paused consumer began a message")
		}
	}
	m.Resume()
	m.Resume()
	eventually(t, "the rest is done after the pause", func() bool { return seen.all(held) })
}

func ready(t *testing.T, config kafka.Config) {
	makeTopics(t, config)
	m := join(t, config, options("ready"), newNotes().take)
	eventually(t, "the consumer is ready", func() bool { return m.Ready() == nil })
	m.stop(t)
	if m.Ready() == nil {
		t.Error("a stopped consumer says that it is ready")
	}
}
