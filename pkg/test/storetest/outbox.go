package storetest

import (
	"context"
	"errors"
	"time"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/event"
	"vitrine.io/pkg/fault"
	"vitrine.io/pkg/relay"
)

func outboxes() []test {
	return []test{
		{name: "an empty outbox publishes nothing", run: emptyOutbox},
		{name: "messages go out in order, as many as asked for, and are gone", run: drainOrder},
		{name: "a delayed message waits", run: delayed},
		{name: "a message repeated while it waits goes out once", run: repeated},
		{name: "a refused message waits, and the others go", run: refused},
		{name: "a message refused too often is parked", run: parked, maxTries: 1},
		{name: "a parked message that is repeated is tried again, with all its tries", run: unparked, maxTries: 2},
		{name: "repeating a message that is being sent waits for nobody", run: repeatedMeanwhile},
		{name: "an unreachable Kafka spends no tries", run: unreachable, maxTries: 1},
		{name: "messages that cannot be sent step aside for those that can", run: stepAside, maxTries: 1},
		{name: "a round full of messages that cannot be sent keeps nobody waiting", run: fullOfUnsent, maxTries: 1},
		{name: "a round that ends forgets nothing of the one beside it", run: besideUnsent},
		{name: "a round is bounded", run: bounded},
		{name: "the oldest message's age is known", run: oldest},
	}
}

// unavailable is what a publisher says of a Kafka that does not answer.
func unavailable() error {
	return fault.New(fault.Unavailable, "kafka_unavailable", "no broker answers")
}

func emptyOutbox(b *bench) {
	drained, err := b.Outbox.Drain(b.ctx(), 10, func(context.Context, []event.Message) []error {
		b.Error("publish was called with nothing")
		return nil
	})
	b.must(err, "drain")
	b.same(drained, relay.Drained{}, "drained")
	b.same(b.depth(), relay.Depth{}, "depth")
}

func drainOrder(b *bench) {
	p := b.product(0)
	var want []event.Message
	for range 5 {
		m := message(p.ID)
		b.send(p.ID, catalog.Outgoing{Message: m})
		want = append(want, m)
	}
	first, drained := b.drain(3, nil)
	b.same(first, want[:3], "the first round")
	b.same(drained, relay.Drained{Claimed: 3, Published: 3}, "drained")
	second, _ := b.drain(3, nil)
	b.same(second, want[3:], "the second round")
	if third, _ := b.drain(3, nil); len(third) != 0 {
		b.Errorf("got %d messages again", len(third))
	}
}

func delayed(b *bench) {
	p := b.product(0)
	now := message(p.ID)
	b.send(p.ID, catalog.Outgoing{Message: message(p.ID), Delay: time.Hour}, catalog.Outgoing{Message: now})
	seen, _ := b.drain(10, nil)
	b.same(seen, []event.Message{now}, "what is due")
	if d := b.depth(); d.Due != 0 || d.Delayed != 1 {
		b.Errorf("got %+v, want one delayed", d)
	}
}

func repeated(b *bench) {
	p := b.product(0)
	m, late := message(p.ID), message(p.ID)
	b.send(p.ID, catalog.Outgoing{Message: m}, catalog.Outgoing{Message: late, Delay: time.Hour})
	b.send(p.ID, catalog.Outgoing{Message: m}, catalog.Outgoing{Message: late})
	seen, _ := b.drain(10, nil)
	b.same(seen, []event.Message{m}, "what goes out: a delay is not undone")
}

func refused(b *bench) {
	p := b.product(0)
	bad, good := message(p.ID), message(p.ID)
	b.send(p.ID, catalog.Outgoing{Message: bad})
	b.send(p.ID, catalog.Outgoing{Message: good})
	drained, err := b.Outbox.Drain(b.ctx(), 10, func(_ context.Context, messages []event.Message) []error {
		b.same(messages, []event.Message{bad, good}, "messages")
		return []error{errors.New("no"), nil}
	})
	b.must(err, "drain")
	b.same(drained, relay.Drained{Claimed: 2, Published: 1, Refused: 1}, "drained")
	if seen, _ := b.drain(10, nil); len(seen) != 0 {
		b.Errorf("got %d messages at once again, want a pause", len(seen))
	}
	if d := b.depth(); d.Delayed != 1 || d.Due != 0 || d.Parked != 0 {
		b.Errorf("got %+v, want one delayed", d)
	}
}

func parked(b *bench) {
	p := b.product(0)
	b.send(p.ID, catalog.Outgoing{Message: message(p.ID)})
	_, drained := b.drain(10, fault.New(fault.Invalid, "too_large", "too large"))
	b.same(drained, relay.Drained{Claimed: 1, Refused: 1, Parked: 1}, "drained")
	if d := b.depth(); d != (relay.Depth{Parked: 1}) {
		b.Errorf("got %+v, want one parked", d)
	}
}

func unparked(b *bench) {
	p := b.product(0)
	m := message(p.ID)
	no := fault.New(fault.Invalid, "message_refused", "no")
	first := relay.Drained{Claimed: 1, Refused: 1}
	b.send(p.ID, catalog.Outgoing{Message: m})
	_, drained := b.drain(10, no)
	b.same(drained, first, "the first of two tries")
	b.send(p.ID, catalog.Outgoing{Message: m})
	if d := b.depth(); d.Delayed != 1 {
		b.Errorf("repeated between its tries: got %+v, want it to wait on", d)
	}
	deadline, poll := time.After(20*time.Second), time.NewTicker(50*time.Millisecond)
	defer poll.Stop()
	for drained.Parked == 0 { // the pause is about a second
		select {
		case <-poll.C:
			_, drained = b.drain(10, no)
		case <-deadline:
			b.Fatal("the second refusal did not park it")
		}
	}
	b.send(p.ID, catalog.Outgoing{Message: m})
	seen, drained := b.drain(10, no)
	b.same(seen, []event.Message{m}, "the repeated message")
	b.same(drained, first, "the first of two new tries")
}

func repeatedMeanwhile(b *bench) {
	p := b.product(0)
	m := message(p.ID)
	b.send(p.ID, catalog.Outgoing{Message: m})
	_, err := b.Outbox.Drain(b.ctx(), 10, func(ctx context.Context, _ []event.Message) []error {
		b.send(p.ID, catalog.Outgoing{Message: m})
		if ctx.Err() != nil {
			b.Error("the round was over before the message was repeated")
		}
		return []error{unavailable()}
	})
	b.must(err, "drain")
	b.same(b.depth().Due, int64(1), "waiting")
}

func unreachable(b *bench) {
	p := b.product(0)
	for range 3 {
		b.send(p.ID, catalog.Outgoing{Message: message(p.ID)})
	}
	for range 3 {
		seen, drained := b.drain(10, unavailable())
		if len(seen) != 3 || drained != (relay.Drained{Claimed: 3}) {
			b.Errorf("got %d messages and %+v, want 3 claimed and left alone", len(seen), drained)
		}
	}
	_, err := b.Outbox.Drain(b.ctx(), 10, func(context.Context, []event.Message) []error {
		return []error{unavailable(), errors.New("no"), nil}
	})
	b.must(err, "drain")
	if d := b.depth(); d.Due != 0 || d.Parked != 1 || d.Delayed != 1 {
		b.Errorf("got %+v, want one delayed and one parked", d)
	}
}

// drainExcept drains one round in which Kafka takes everything but the messages of one id.
func (b *bench) drainExcept(limit int, bad string) relay.Drained {
	b.Helper()
	drained, err := b.Outbox.Drain(b.ctx(), limit, func(_ context.Context, messages []event.Message) []error {
		answers := make([]error, len(messages))
		for i, m := range messages {
			if m.Key == bad {
				answers[i] = unavailable()
			}
		}
		return answers
	})
	b.must(err, "drain")
	return drained
}

func stepAside(b *bench) {
	bad, good := b.product(0), b.product(0)
	b.send(bad.ID, catalog.Outgoing{Message: message(bad.ID)}, catalog.Outgoing{Message: message(bad.ID)})
	for range 5 {
		b.send(good.ID, catalog.Outgoing{Message: message(good.ID)})
	}
	b.same(b.drainExcept(3, bad.ID.String()), relay.Drained{Claimed: 3, Published: 1}, "the first round")
	if d := b.depth(); d.Due != 4 || d.Delayed != 2 || d.Parked != 0 {
		b.Errorf("got %+v, want two out of the way and none parked", d)
	}
	b.same(b.drainExcept(9, bad.ID.String()), relay.Drained{Claimed: 4, Published: 4}, "the second round")
}

// besideUnsent has two rounds at once, of which the first to claim ends last: the head cannot be sent, and what follows must
// not begin there.
func besideUnsent(b *bench) {
	p := b.product(0)
	for i := range 40 {
		b.send(p.ID, catalog.Outgoing{Message: message(p.ID), Delay: time.Duration(i-41) * time.Hour})
	}
	down := fault.New(fault.Unavailable, "kafka_unavailable", "down")
	var head string
	elsewhere := 0
	for range 10 {
		_, err := b.Outbox.Drain(b.ctx(), 2, func(context.Context, []event.Message) []error {
			unsent, _ := b.drain(2, down)
			head = unsent[0].ID
			return []error{nil, down}
		})
		b.must(err, "drain")
		if next, _ := b.drain(1, nil); len(next) != 1 || next[0].ID != head {
			elsewhere++
		}
	}
	if elsewhere == 0 {
		b.Error("every round began at the head, of which the one before could send nothing")
	}
}

func fullOfUnsent(b *bench) {
	bad, good := b.product(0), b.product(0)
	for range 3 {
		b.send(bad.ID, catalog.Outgoing{Message: message(bad.ID), Delay: -time.Hour})
	}
	b.send(good.ID, catalog.Outgoing{Message: message(good.ID)})
	b.same(b.drainExcept(2, bad.ID.String()), relay.Drained{Claimed: 2}, "the head of the queue")
	if d := b.depth(); d.Due != 4 || d.Oldest < time.Hour {
		b.Errorf("got %+v, want all in their places: it may be an outage", d)
	}
	published := 0
	for range 4 { // from the second on at a chance moment of the hour
		published += b.drainExcept(2, bad.ID.String()).Published
	}
	if published != 1 {
		b.Errorf("got %d published, want the one that can be", published)
	}
}

func bounded(b *bench) {
	p := b.product(0)
	b.send(p.ID, catalog.Outgoing{Message: message(p.ID)})
	_, err := b.Outbox.Drain(b.ctx(), 10, func(ctx context.Context, messages []event.Message) []error {
		deadline, ok := ctx.Deadline()
		if left := time.Until(deadline); !ok || left > 5*time.Second {
			b.Errorf("got %s to publish, want at most 5s", left)
		}
		return make([]error, len(messages))
	})
	b.must(err, "drain")
}

func oldest(b *bench) {
	p := b.product(0)
	b.send(p.ID, catalog.Outgoing{Message: message(p.ID), Delay: -time.Hour}, catalog.Outgoing{Message: message(p.ID)})
	d := b.depth()
	if d.Due != 2 || d.Oldest < time.Hour || d.Oldest > 2*time.Hour {
		b.Errorf("got %+v, want two due, the oldest for an hour", d)
	}
}
