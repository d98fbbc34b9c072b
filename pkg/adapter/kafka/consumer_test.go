package kafka_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/slots"
	"vitrine.io/pkg/platform/devstack"
	"vitrine.io/pkg/test/port"
)

// send publishes messages, which must all be acknowledged.
func send(t *testing.T, config kafka.Config, batch []event.Message) {
	t.Helper()
	p, _ := newPublisher(t, config)
	if results := p.Publish(t.Context(), batch); !accepted(results) {
		t.Fatalf("publish: %v", results)
	}
}

// committedOffset returns a group's committed offset in the only partition of images.requested, or 0.
func committedOffset(c *kfake.Cluster, group string) int64 {
	info := c.GroupInfo(group)
	if info == nil {
		return 0
	}
	return info.Commits[event.TopicRequested][0].Offset
}

// fakeDeadLetters is a publisher of dead letters; answer returns the result of each attempt.
type fakeDeadLetters struct {
	mu     sync.Mutex
	answer func(attempt int) error
	got    []event.Message
}

func (d *fakeDeadLetters) Publish(_ context.Context, messages []event.Message) []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got = append(d.got, messages...)
	return []error{d.answer(len(d.got))}
}

func (d *fakeDeadLetters) attempts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.got)
}

// sendUndecodable sends one record that cannot be decoded.
func sendUndecodable(t *testing.T, config kafka.Config) {
	t.Helper()
	settings := sarama.NewConfig()
	settings.Producer.Return.Successes = true
	producer, err := sarama.NewSyncProducer(config.Brokers, settings)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = producer.Close() }()
	if _, _, err := producer.SendMessage(&sarama.ProducerMessage{
		Topic: config.Name(event.TopicRequested), Value: sarama.StringEncoder("?"),
	}); err != nil {
		t.Fatal(err)
	}
}

func TestConsumer(t *testing.T) {
	t.Parallel()
	t.Run("undecodable_record_is_marked_after_dead_letter", testConsumerUndecodableRecordIsMarkedAfterDeadLetter)
	t.Run("panic_while_decoding_is_undecodable", testConsumerPanicWhileDecodingIsUndecodable)
	t.Run("missing_topic_is_retried_with_backoff", testConsumerMissingTopicIsRetriedWithBackoff)
	t.Run("refused_join_is_retried_with_backoff", testConsumerRefusedJoinIsRetriedWithBackoff)
	t.Run("broker_restart_is_survived", testConsumerBrokerRestartIsSurvived)
	t.Run("failing_message_blocks_partition_after_window", testConsumerFailingMessageBlocksPartitionAfterWindow)
	t.Run("message_waiting_for_its_key_holds_no_slot", testConsumerMessageWaitingForItsKeyHoldsNoSlot)
	t.Run("slots_are_shared_with_a_preferred_consumer", testConsumerSlotsAreShared)
	t.Run("handler_is_cancelled_after_grace_period", testConsumerHandlerIsCancelledAfterGracePeriod)
	t.Run("stop_with_hanging_broker_is_limited", testConsumerStopWithHangingBrokerIsLimited)
	t.Run("failed_commit_is_retried", testConsumerFailedCommitIsRetried)
	t.Run("commits_once_a_second", testConsumerCommitsOnceASecond)
	t.Run("paused_consumer_retries_nothing", testConsumerPausedConsumerRetriesNothing)
	t.Run("two_groups_share_a_registry", testConsumerTwoGroupsShareARegistry)
}

func testConsumerUndecodableRecordIsMarkedAfterDeadLetter(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	sendUndecodable(t, config)
	send(t, config, messages(1))
	var up atomic.Bool
	dead := &fakeDeadLetters{answer: func(int) error {
		if !up.Load() {
			return fault.New(fault.Unavailable, "kafka_unavailable", "down")
		}
		return nil
	}}
	seen := newTally()
	r := run(t, config, requested("g"), seen.handle, dead)
	eventually(t, "the dead letter is retried, and the next message is done meanwhile", func() bool {
		return dead.attempts() >= 3 && seen.size() == 1
	})
	r.stop()
	if got := committedOffset(c, "g"); got != 0 {
		t.Fatalf("committed offset: got %d, want 0: the record is not stored anywhere else", got)
	}
	up.Store(true)
	r = run(t, config, requested("g"), seen.handle, dead)
	eventually(t, "all is committed once the dead letter is acknowledged", func() bool { return committedOffset(c, "g") == 2 })
	for _, m := range dead.got {
		if m.ID != dead.got[0].ID {
			t.Errorf("event ids of the dead letters of one record: got %s and %s, want the same", m.ID, dead.got[0].ID)
		}
	}
	if got := testutil.CollectAndCount(r.reg, "vitrine_kafka_undecodable_total"); got != 1 {
		t.Errorf("undecodable counters: got %d, want 1", got)
	}
}

// Check and OrderingKey receive any content of the topic, so a panic in them means that the record is undecodable.
func testConsumerPanicWhileDecodingIsUndecodable(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*kafka.ConsumerConfig){
		"check":        func(o *kafka.ConsumerConfig) { o.Check = func(event.Message) error { panic("a defect") } },
		"ordering_key": func(o *kafka.ConsumerConfig) { o.OrderingKey = func(event.Message) string { panic("a defect") } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, config := seeded(t)
			send(t, config, messages(2))
			options := requested("g")
			change(&options)
			dead := &fakeDeadLetters{answer: func(int) error { return nil }}
			run(t, config, options, newTally().handle, dead)
			eventually(t, "both are dead letters", func() bool { return committedOffset(c, "g") == 2 })
			if got := dead.attempts(); got != 2 {
				t.Errorf("dead letters: got %d, want 2", got)
			}
		})
	}
}

func testConsumerMissingTopicIsRetriedWithBackoff(t *testing.T) {
	t.Parallel()
	_, config := cluster(t)
	seen := newTally()
	r := run(t, config, requested("g"), seen.handle, nil)
	eventually(t, "the error is logged", func() bool { return r.logs.FilterMessage("consuming failed").Len() >= 2 })
	if r.Ready() == nil {
		t.Error("a consumer without a topic is ready")
	}
	if got := r.logs.Len(); got > 20 {
		t.Errorf("log lines: got %d within a few seconds, want at most 20", got)
	}
	admin, err := kafka.NewAdmin(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	send(t, config, messages(1))
	eventually(t, "the message arrives once the topic exists", func() bool { return seen.size() == 1 })
}

func testConsumerRefusedJoinIsRetriedWithBackoff(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	send(t, config, messages(1))
	refusing := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.GroupAuthorizationFailed, Count: -1})
	seen := newTally()
	r := run(t, config, requested("g"), seen.handle, nil)
	<-time.After(2 * time.Second)
	if got := refusing.Hits(); got < 2 || got > 8 {
		t.Errorf("attempts within two seconds: got %d, want 2 to 8 with a growing backoff", got)
	}
	if r.Ready() == nil {
		t.Error("a consumer outside its group is ready")
	}
	refusing.Remove()
	eventually(t, "the message arrives once the group accepts the consumer", func() bool { return seen.size() == 1 })
}

func testConsumerBrokerRestartIsSurvived(t *testing.T) {
	t.Parallel()
	addr, dir := port.Addr(t), t.TempDir()
	config := local([]string{addr}, "")
	start := func() *devstack.Kafka {
		broker, err := devstack.StartKafka(devstack.KafkaConfig{Addr: addr, DataDir: dir}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		return broker
	}
	seen := newTally()
	r := run(t, config, requested("g"), seen.handle, nil) // started before Kafka
	eventually(t, "the error is logged", func() bool { return r.logs.FilterMessage("consuming failed").Len() >= 1 })
	broker := start()
	admin, err := kafka.NewAdmin(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	send(t, config, messages(3))
	eventually(t, "the first messages arrive", func() bool { return seen.size() == 3 })
	broker.Close()
	broker = start()
	t.Cleanup(broker.Close)
	send(t, config, messages(3))
	eventually(t, "the others arrive after the restart", func() bool { return seen.size() == 6 })
	if got := r.logs.FilterMessage("error while consuming").Len(); got > 10 {
		t.Errorf("log lines about it: got %d, want at most 10", got)
	}
}

// Without the limit, the finished messages behind a failing one would grow without bound.
func testConsumerFailingMessageBlocksPartitionAfterWindow(t *testing.T) {
	t.Parallel()
	_, config := seeded(t)
	batch := messages(400)
	send(t, config, batch)
	seen := newTally()
	var succeed atomic.Bool
	run(t, config, requested("g"), func(_ context.Context, m event.Message) error {
		if m.ID == batch[0].ID && !succeed.Load() {
			return errors.New("not now")
		}
		seen.add(m)
		return nil
	}, nil)
	eventually(t, "the messages within the window are done", func() bool { return seen.size() == 255 })
	<-time.After(300 * time.Millisecond) // several fetches
	if got := seen.size(); got != 255 {
		t.Errorf("done beside the failing message: got %d, want 255", got)
	}
	succeed.Store(true)
	eventually(t, "the rest is done", func() bool { return seen.size() == len(batch) })
}

// Otherwise a few messages of one image would block all others.
func testConsumerMessageWaitingForItsKeyHoldsNoSlot(t *testing.T) {
	t.Parallel()
	_, config := seeded(t)
	batch := messages(10)
	send(t, config, batch)
	options := requested("g")
	options.InFlight = 2
	options.OrderingKey = func(m event.Message) string {
		if m.ID == batch[9].ID {
			return "other"
		}
		return "same"
	}
	release, done := make(chan struct{}), make(chan struct{})
	seen := newTally()
	run(t, config, options, func(ctx context.Context, m event.Message) error {
		if m.ID == batch[9].ID {
			close(done)
			return nil
		}
		select {
		case <-release:
		case <-ctx.Done():
			return ctx.Err()
		}
		seen.add(m)
		return nil
	}, nil)
	select {
	case <-done:
	case <-time.After(waitLimit):
		t.Fatal("the message with another key was blocked")
	}
	close(release)
	eventually(t, "the others are done one after the other", func() bool { return seen.size() == 9 })
}

// Two consumers share the slots: the one that is not preferred handles nothing while the other one uses them.
func testConsumerSlotsAreShared(t *testing.T) {
	t.Parallel()
	_, config := seeded(t)
	shared := slots.NewShared(2, 1)
	first, second := requested("first"), requested("second")
	first.Slots, second.Slots = shared.Preferred(), shared.Others()
	send(t, config, messages(4))
	started, release := make(chan struct{}, 4), make(chan struct{})
	run(t, config, first, func(context.Context, event.Message) error {
		started <- struct{}{}
		<-release
		return nil
	}, nil)
	for range 2 {
		<-started
	}
	seen := newTally()
	r := run(t, config, second, seen.handle, nil)
	eventually(t, "the second consumer has joined", func() bool { return r.Ready() == nil })
	release <- struct{}{}
	<-started // the free slot went to the preferred consumer
	if got := seen.size(); got != 0 {
		t.Errorf("the second consumer has handled %d messages without a free slot", got)
	}
	close(release)
	eventually(t, "the second consumer gets its messages", func() bool { return seen.size() == 4 })
}

func testConsumerHandlerIsCancelledAfterGracePeriod(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	send(t, config, messages(1))
	options := requested("g")
	options.RebalanceTimeout = 2 * time.Second
	running := make(chan struct{})
	r := run(t, config, options, func(ctx context.Context, _ event.Message) error {
		close(running)
		<-ctx.Done()
		return nil // succeeds although its context has ended
	}, nil)
	<-running
	started := time.Now()
	r.stop()
	if elapsed := time.Since(started); elapsed < time.Second || elapsed > 5*time.Second {
		t.Errorf("elapsed until stopped: got %s, want a little more than the grace period of 1 s", elapsed)
	}
	if got := r.logs.FilterMessage("handlers did not finish within the grace period").Len(); got != 1 {
		t.Errorf("log lines about it: got %d, want 1", got)
	}
	if got := committedOffset(c, "g"); got != 1 {
		t.Errorf("committed offset: got %d, want 1: the handler's result counts", got)
	}
}

func testConsumerStopWithHangingBrokerIsLimited(t *testing.T) {
	t.Parallel()
	config := silenced(t, kmsg.LeaveGroup)
	options := requested("g")
	options.RebalanceTimeout = 2 * time.Second
	r := run(t, config, options, newTally().handle, nil)
	eventually(t, "the consumer has joined", func() bool { return r.Ready() == nil })
	started := time.Now()
	r.stop()
	if elapsed := time.Since(started); elapsed > 10*time.Second {
		t.Errorf("elapsed until stopped: got %s, want the grace period of 1 s and 5 s to leave", elapsed)
	}
	if got := r.logs.FilterMessage("leaving the consumer group failed").Len(); got != 1 {
		t.Errorf("log lines about it: got %d, want 1", got)
	}
}

// sarama retries a failed commit.
func testConsumerFailedCommitIsRetried(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	send(t, config, messages(3))
	failing := c.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Err: kerr.CoordinatorNotAvailable, Count: 2,
	})
	seen := newTally()
	run(t, config, requested("g"), seen.handle, nil)
	eventually(t, "all is committed", func() bool { return committedOffset(c, "g") == 3 })
	if failing.Hits() != 2 {
		t.Errorf("failed commits: got %d, want 2", failing.Hits())
	}
}

// Each commit waits behind the long-poll fetch. With a commit per message, a consumer handled only 12 messages a second.
func testConsumerCommitsOnceASecond(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	send(t, config, messages(1000))
	commits := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Observe: true, Count: -1})
	seen := newTally()
	started := time.Now()
	r := run(t, config, requested("g"), seen.handle, nil)
	eventually(t, "every message is done", func() bool { return seen.size() == 1000 })
	r.stop()
	if got, limit := commits.Hits(), int(time.Since(started)/time.Second)+3; got > limit {
		t.Errorf("commits: got %d, want at most %d, one a second", got, limit)
	}
}

func testConsumerPausedConsumerRetriesNothing(t *testing.T) {
	t.Parallel()
	_, config := seeded(t)
	send(t, config, messages(1))
	attempted := newTally()
	var calls atomic.Int64
	r := run(t, config, requested("g"), func(_ context.Context, m event.Message) error {
		calls.Add(1)
		if attempted.add(m) < 6 {
			return errors.New("the database is down")
		}
		return nil
	}, nil)
	eventually(t, "the first attempt failed", func() bool { return calls.Load() >= 1 })
	r.Pause()
	before := calls.Load()
	<-time.After(time.Second)
	if got := calls.Load(); got > before+1 { // one may have been running
		t.Errorf("attempts during the pause: got %d more", got-before)
	}
	r.Resume()
	eventually(t, "the message is done after the pause", func() bool { return calls.Load() == 6 })
	for _, name := range []string{"vitrine_kafka_paused", "vitrine_kafka_in_flight"} {
		eventually(t, name+" is 0", func() bool { return gauge(t, r.reg, name) == 0 }) // the handler may not have returned yet
	}
}

// gauge returns the value of a gauge.
func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func testConsumerTwoGroupsShareARegistry(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	for _, group := range []string{"a", "b"} {
		if _, err := kafka.NewConsumer(valid(), requested(group), newTally().handle, nil, reg, zap.NewNop()); err != nil {
			t.Errorf("group %s: %v", group, err)
		}
	}
}
