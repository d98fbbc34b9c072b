package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/storetest"
)

func TestPublishBatch(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "empty_outbox_publishes_nothing", run: emptyOutbox},
		{name: "order_and_limit_are_kept", run: drainOrder},
		{name: "delayed_message_waits", run: delayed},
		{name: "repeated_waiting_message_is_sent_once", run: repeated},
		{name: "refused_message_waits_and_others_go", run: refused},
		{name: "too_often_refused_message_is_parked", run: parked, maxTries: 1},
		{name: "repeated_parked_message_gets_all_tries", run: unparked, maxTries: 2},
		{name: "repeat_during_send_does_not_block", run: repeatedDuringRound},
		{name: "unreachable_kafka_spends_no_tries", run: unreachable, maxTries: 1},
		{name: "unsent_messages_are_delayed", run: unsentDelayed, maxTries: 1},
		{name: "full_batch_of_unsent_messages_blocks_no_other", run: fullBatchUnsent, maxTries: 1},
		{name: "concurrent_rounds_keep_stuck_state", run: concurrentUnsent},
		{name: "round_has_a_deadline", run: bounded},
		{name: "age_of_oldest_message_is_measured", run: oldest},
		{name: "concurrent_rounds_share_no_message", run: concurrentBatches},
	})
}

// unavailable is a publisher's error while Kafka does not answer.
func unavailable() error {
	return fault.New(fault.Unavailable, "kafka_unavailable", "no broker answers")
}

func emptyOutbox(f *fixture) {
	drained, err := f.outbox.PublishBatch(f.Context(), 10, func(context.Context, []event.Message) []error {
		f.Error("publish was called with nothing")
		return nil
	})
	f.Must(err, "publish_batch")
	f.Same(drained, relay.BatchResult{}, "drained")
	f.Same(f.depth(), relay.Depth{}, "depth")
}

func drainOrder(f *fixture) {
	p := f.Product(0)
	var want []event.Message
	for range 5 {
		m := storetest.Message(p.ID)
		f.send(p.ID, catalog.Outgoing{Message: m})
		want = append(want, m)
	}
	first, drained := f.drain(3, nil)
	f.Same(first, want[:3], "the first batch")
	f.Same(drained, relay.BatchResult{Claimed: 3, Published: 3}, "drained")
	second, _ := f.drain(3, nil)
	f.Same(second, want[3:], "the second batch")
	if third, _ := f.drain(3, nil); len(third) != 0 {
		f.Errorf("got %d messages a second time", len(third))
	}
}

func delayed(f *fixture) {
	p := f.Product(0)
	now := storetest.Message(p.ID)
	f.send(p.ID, catalog.Outgoing{Message: storetest.Message(p.ID), Delay: time.Hour}, catalog.Outgoing{Message: now})
	seen, _ := f.drain(10, nil)
	f.Same(seen, []event.Message{now}, "due messages")
	if d := f.depth(); d.Due != 0 || d.Delayed != 1 {
		f.Errorf("got %+v, want one delayed", d)
	}
}

func repeated(f *fixture) {
	p := f.Product(0)
	m, late := storetest.Message(p.ID), storetest.Message(p.ID)
	f.send(p.ID, catalog.Outgoing{Message: m}, catalog.Outgoing{Message: late, Delay: time.Hour})
	f.send(p.ID, catalog.Outgoing{Message: m}, catalog.Outgoing{Message: late})
	seen, _ := f.drain(10, nil)
	f.Same(seen, []event.Message{m}, "sent messages: a delay stays")
}

func refused(f *fixture) {
	p := f.Product(0)
	bad, good := storetest.Message(p.ID), storetest.Message(p.ID)
	f.send(p.ID, catalog.Outgoing{Message: bad})
	f.send(p.ID, catalog.Outgoing{Message: good})
	drained, err := f.outbox.PublishBatch(f.Context(), 10, func(_ context.Context, messages []event.Message) []error {
		f.Same(messages, []event.Message{bad, good}, "messages")
		return []error{errors.New("no"), nil}
	})
	f.Must(err, "publish_batch")
	f.Same(drained, relay.BatchResult{Claimed: 2, Published: 1, Refused: 1}, "drained")
	if seen, _ := f.drain(10, nil); len(seen) != 0 {
		f.Errorf("got %d messages without a pause", len(seen))
	}
	if d := f.depth(); d.Delayed != 1 || d.Due != 0 || d.Parked != 0 {
		f.Errorf("got %+v, want one delayed", d)
	}
}

func parked(f *fixture) {
	p := f.Product(0)
	f.send(p.ID, catalog.Outgoing{Message: storetest.Message(p.ID)})
	_, drained := f.drain(10, fault.New(fault.Invalid, "too_large", "too large"))
	f.Same(drained, relay.BatchResult{Claimed: 1, Refused: 1, Parked: 1}, "drained")
	if d := f.depth(); d != (relay.Depth{Parked: 1}) {
		f.Errorf("got %+v, want one parked", d)
	}
}

func unparked(f *fixture) {
	p := f.Product(0)
	m := storetest.Message(p.ID)
	no := fault.New(fault.Invalid, "message_refused", "no")
	first := relay.BatchResult{Claimed: 1, Refused: 1}
	f.send(p.ID, catalog.Outgoing{Message: m})
	_, drained := f.drain(10, no)
	f.Same(drained, first, "the first of two tries")
	f.send(p.ID, catalog.Outgoing{Message: m})
	if d := f.depth(); d.Delayed != 1 {
		f.Errorf("repeated between its tries: got %+v, want it still delayed", d)
	}
	deadline, poll := time.After(20*time.Second), time.NewTicker(50*time.Millisecond)
	defer poll.Stop()
	for drained.Parked == 0 { // the pause is about a second
		select {
		case <-poll.C:
			_, drained = f.drain(10, no)
		case <-deadline:
			f.Fatal("the second refusal did not park it")
		}
	}
	f.send(p.ID, catalog.Outgoing{Message: m})
	seen, drained := f.drain(10, no)
	f.Same(seen, []event.Message{m}, "the repeated message")
	f.Same(drained, first, "the first of two new tries")
}

func repeatedDuringRound(f *fixture) {
	p := f.Product(0)
	m := storetest.Message(p.ID)
	f.send(p.ID, catalog.Outgoing{Message: m})
	_, err := f.outbox.PublishBatch(f.Context(), 10, func(ctx context.Context, _ []event.Message) []error {
		f.send(p.ID, catalog.Outgoing{Message: m})
		if ctx.Err() != nil {
			f.Error("the batch was over before the message was repeated")
		}
		return []error{unavailable()}
	})
	f.Must(err, "publish_batch")
	f.Same(f.depth().Due, int64(1), "waiting")
}

func unreachable(f *fixture) {
	p := f.Product(0)
	for range 3 {
		f.send(p.ID, catalog.Outgoing{Message: storetest.Message(p.ID)})
	}
	for range 3 {
		seen, drained := f.drain(10, unavailable())
		if len(seen) != 3 || drained != (relay.BatchResult{Claimed: 3}) {
			f.Errorf("got %d messages and %+v, want 3 claimed and unchanged", len(seen), drained)
		}
	}
	_, err := f.outbox.PublishBatch(f.Context(), 10, func(context.Context, []event.Message) []error {
		return []error{unavailable(), errors.New("no"), nil}
	})
	f.Must(err, "publish_batch")
	if d := f.depth(); d.Due != 0 || d.Parked != 1 || d.Delayed != 1 {
		f.Errorf("got %+v, want one delayed and one parked", d)
	}
}

// publishExcept drains one batch in which Kafka accepts all messages but those with one key.
func (f *fixture) publishExcept(limit int, bad string) relay.BatchResult {
	f.Helper()
	drained, err := f.outbox.PublishBatch(f.Context(), limit, func(_ context.Context, messages []event.Message) []error {
		results := make([]error, len(messages))
		for i, m := range messages {
			if m.Key == bad {
				results[i] = unavailable()
			}
		}
		return results
	})
	f.Must(err, "publish_batch")
	return drained
}

func unsentDelayed(f *fixture) {
	bad, good := f.Product(0), f.Product(0)
	f.send(bad.ID, catalog.Outgoing{Message: storetest.Message(bad.ID)}, catalog.Outgoing{Message: storetest.Message(bad.ID)})
	for range 5 {
		f.send(good.ID, catalog.Outgoing{Message: storetest.Message(good.ID)})
	}
	f.Same(f.publishExcept(3, bad.ID.String()), relay.BatchResult{Claimed: 3, Published: 1}, "the first batch")
	if d := f.depth(); d.Due != 4 || d.Delayed != 2 || d.Parked != 0 {
		f.Errorf("got %+v, want two delayed and none parked", d)
	}
	f.Same(f.publishExcept(9, bad.ID.String()), relay.BatchResult{Claimed: 4, Published: 4}, "the second batch")
}

// concurrentUnsent runs one batch inside another. The inner one cannot send the messages at the start of the queue, and
// the outer one ends last. Later batches must not start there.
func concurrentUnsent(f *fixture) {
	p := f.Product(0)
	for i := range 40 {
		f.send(p.ID, catalog.Outgoing{Message: storetest.Message(p.ID), Delay: time.Duration(i-41) * time.Hour})
	}
	down := fault.New(fault.Unavailable, "kafka_unavailable", "down")
	var head string
	notHead := 0
	for range 10 {
		_, err := f.outbox.PublishBatch(f.Context(), 2, func(context.Context, []event.Message) []error {
			unsent, _ := f.drain(2, down)
			head = unsent[0].ID
			return []error{nil, down}
		})
		f.Must(err, "publish_batch")
		if next, _ := f.drain(1, nil); len(next) != 1 || next[0].ID != head {
			notHead++
		}
	}
	if notHead == 0 {
		f.Error("every batch started at the head, which the previous batch could not send")
	}
}

func fullBatchUnsent(f *fixture) {
	bad, good := f.Product(0), f.Product(0)
	for range 3 {
		f.send(bad.ID, catalog.Outgoing{Message: storetest.Message(bad.ID), Delay: -time.Hour})
	}
	f.send(good.ID, catalog.Outgoing{Message: storetest.Message(good.ID)})
	f.Same(f.publishExcept(2, bad.ID.String()), relay.BatchResult{Claimed: 2}, "the head of the queue")
	if d := f.depth(); d.Due != 4 || d.Oldest < time.Hour {
		f.Errorf("got %+v, want all in their places: it may be an outage", d)
	}
	published := 0
	for range 4 { // from the second on, batches start at a random place
		published += f.publishExcept(2, bad.ID.String()).Published
	}
	if published != 1 {
		f.Errorf("got %d published, want the one that can be", published)
	}
}

func bounded(f *fixture) {
	p := f.Product(0)
	f.send(p.ID, catalog.Outgoing{Message: storetest.Message(p.ID)})
	_, err := f.outbox.PublishBatch(f.Context(), 10, func(ctx context.Context, messages []event.Message) []error {
		deadline, ok := ctx.Deadline()
		if left := time.Until(deadline); !ok || left > 5*time.Second {
			f.Errorf("got %s to publish, want at most 5s", left)
		}
		return make([]error, len(messages))
	})
	f.Must(err, "publish_batch")
}

func oldest(f *fixture) {
	p := f.Product(0)
	f.send(p.ID, catalog.Outgoing{Message: storetest.Message(p.ID), Delay: -time.Hour})
	f.send(p.ID, catalog.Outgoing{Message: storetest.Message(p.ID)})
	d := f.depth()
	if d.Due != 2 || d.Oldest < time.Hour || d.Oldest > 2*time.Hour {
		f.Errorf("got %+v, want two due, the oldest for an hour", d)
	}
}

// concurrentBatches drains two batches while a first one is inside publish.
func concurrentBatches(f *fixture) {
	p := f.Product(0)
	for range 4 {
		f.send(p.ID, catalog.Outgoing{Message: storetest.Message(p.ID)})
	}
	seen := map[string]int{}
	_, err := f.outbox.PublishBatch(f.Context(), 2, func(_ context.Context, first []event.Message) []error {
		second, _ := f.drain(10, nil)
		third, drained := f.drain(10, nil)
		if len(first) != 2 || len(second) != 2 || len(third) != 0 || drained.Claimed != 0 {
			f.Errorf("got %d, %d and %d messages, want 2, 2 and none", len(first), len(second), len(third))
		}
		for _, m := range append(first, second...) {
			seen[m.ID]++
		}
		return make([]error, len(first))
	})
	f.Must(err, "publish_batch")
	if len(seen) != 4 {
		f.Errorf("got %d different messages, want 4", len(seen))
	}
	if d := f.depth(); d.Due != 0 {
		f.Errorf("got %d messages left, want none", d.Due)
	}
}
