package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/platform/devstack"
	"vitrine.io/pkg/test/port"
)

// limit is the maximum duration of Publish: its timeout and a second for a busy machine, within the outbox's five seconds.
const limit = 4500 * time.Millisecond

// allUnavailable fails the test unless every result is fault.Unavailable.
func allUnavailable(t *testing.T, results []error) {
	t.Helper()
	for i, err := range results {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("message %d: got %v, want unavailable", i, err)
		}
	}
}

// accepted reports whether every message was acknowledged.
func accepted(results []error) bool { return errors.Join(results...) == nil }

func TestPublisher(t *testing.T) {
	t.Parallel()
	t.Run("starts_while_kafka_is_down", testPublisherStartsWhileKafkaIsDown)
	t.Run("broker_restart_is_survived", testPublisherBrokerRestartIsSurvived)
	t.Run("retry_creates_no_duplicate", testPublisherRetryCreatesNoDuplicate)
	t.Run("dropped_connection_creates_no_duplicate", testPublisherDroppedConnectionCreatesNoDuplicate)
	t.Run("batch_after_failed_batch_is_sent", testPublisherBatchAfterFailedBatchIsSent)
	t.Run("publish_returns_in_time", testPublisherPublishReturnsInTime)
	t.Run("publish_ends_with_its_context", testPublisherPublishEndsWithItsContext)
	t.Run("waiting_for_connect_is_limited", testPublisherWaitingForConnectIsLimited)
	t.Run("only_oversized_message_is_refused", testPublisherOnlyOversizedMessageIsRefused)
	t.Run("refused_message_does_not_affect_its_batch", testPublisherRefusedMessageDoesNotAffectItsBatch)
	t.Run("refused_message_does_not_affect_concurrent_batches", testPublisherRefusedMessageDoesNotAffectConcurrentBatches)
	t.Run("wrong_clock_is_unavailable", testPublisherWrongClockIsUnavailable)
	t.Run("concurrent_batches_are_sent", testPublisherConcurrentBatchesAreSent)
	t.Run("cancelled_publish_delays_others_briefly", testPublisherCancelledPublishDelaysOthersBriefly)
	t.Run("closed_publisher_sends_nothing", testPublisherClosedPublisherSendsNothing)
}

func testPublisherStartsWhileKafkaIsDown(t *testing.T) {
	t.Parallel()
	addr := port.Addr(t)
	config := local([]string{addr}, "")
	p, _ := newPublisher(t, config)
	for range 3 {
		started := time.Now()
		allUnavailable(t, p.Publish(t.Context(), messages(3)))
		if elapsed := time.Since(started); elapsed > limit {
			t.Errorf("elapsed: got %s, want at most %s", elapsed, limit)
		}
	}
	broker, err := devstack.StartKafka(devstack.KafkaConfig{Addr: addr}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	admin, err := kafka.NewAdmin(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "messages are acknowledged once Kafka is up", func() bool {
		return accepted(p.Publish(t.Context(), messages(3)))
	})
}

func testPublisherBrokerRestartIsSurvived(t *testing.T) {
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
	broker := start()
	admin, err := kafka.NewAdmin(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, reg := newPublisher(t, config)
	before, after := messages(5), messages(5)
	if results := p.Publish(t.Context(), before); !accepted(results) {
		t.Fatalf("before: %v", results)
	}
	broker.Close()
	allUnavailable(t, p.Publish(t.Context(), after))
	broker = start()
	t.Cleanup(broker.Close)
	eventually(t, "messages are acknowledged after the restart", func() bool { return accepted(p.Publish(t.Context(), after)) })
	seen := newTally()
	run(t, config, requested("g"), seen.handle, p)
	eventually(t, "all of them arrive", func() bool { return seen.size() == 10 })
	if got := testutil.CollectAndCount(reg, "vitrine_kafka_publish_duration_seconds"); got != 1 {
		t.Errorf("histograms: got %d, want 1", got)
	}
}

// The broker writes the batch and then reports too few replicas, so the producer sends it again. With other sequence
// numbers every record would exist twice.
func testPublisherRetryCreatesNoDuplicate(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	var last kmsg.Request
	requests := 0
	slow := c.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend, Count: 10,
		When: func(r kmsg.Request) bool { // every other request; When is called more than once for each
			if r != last {
				last = r
				requests++
			}
			return requests%2 == 1
		},
	})
	p, _ := newPublisher(t, config)
	for i := range 20 {
		if results := p.Publish(t.Context(), messages(1)); !accepted(results) {
			t.Fatalf("message %d: %v", i, results)
		}
	}
	if slow.Hits() != 10 || count(c) != 20 {
		t.Errorf("faults: got %d, want 10; records: got %d, want 20", slow.Hits(), count(c))
	}
}

func testPublisherDroppedConnectionCreatesNoDuplicate(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	var requests atomic.Int64
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if requests.Add(1)%3 == 0 {
			return nil, errors.New("drop the connection"), true
		}
		return nil, nil, false
	})
	p, _ := newPublisher(t, config)
	for i := range 30 {
		if results := p.Publish(t.Context(), messages(2)); !accepted(results) {
			t.Fatalf("batch %d: %v", i, results)
		}
	}
	if got := count(c); got != 60 {
		t.Errorf("records: got %d, want 60", got)
	}
}

// A failed batch leaves a gap in the sequence numbers. The next batch has to be sent without it.
func testPublisherBatchAfterFailedBatchIsSent(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	p, reg := newPublisher(t, config)
	if results := p.Publish(t.Context(), messages(2)); !accepted(results) {
		t.Fatalf("first: %v", results)
	}
	down := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	allUnavailable(t, p.Publish(t.Context(), messages(2)))
	down.Remove()
	if results := p.Publish(t.Context(), messages(2)); !accepted(results) {
		t.Fatalf("after the failure: %v", results)
	}
	if got := count(c); got != 4 {
		t.Errorf("records: got %d, want 4", got)
	}
	want := `
# HELP vitrine_kafka_publish_clients_total Clients created: one on first use, and one after each failed batch.
# TYPE vitrine_kafka_publish_clients_total counter
vitrine_kafka_publish_clients_total 2
# HELP vitrine_kafka_publish_batches_total Batches sent, by result: ok, partial (some messages failed), failed (all did).
# TYPE vitrine_kafka_publish_batches_total counter
vitrine_kafka_publish_batches_total{result="failed"} 1
vitrine_kafka_publish_batches_total{result="ok"} 2
# HELP vitrine_kafka_publish_messages_total Messages sent, by result: ok, refused (a retry cannot help), unavailable.
# TYPE vitrine_kafka_publish_messages_total counter
vitrine_kafka_publish_messages_total{result="ok"} 4
vitrine_kafka_publish_messages_total{result="refused"} 0
vitrine_kafka_publish_messages_total{result="unavailable"} 2
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "vitrine_kafka_publish_clients_total",
		"vitrine_kafka_publish_batches_total", "vitrine_kafka_publish_messages_total"); err != nil {
		t.Error(err)
	}
}

// The relay publishes inside a transaction of five seconds, so Publish has to return earlier, after every kind of error
// of a broker.
func testPublisherPublishReturnsInTime(t *testing.T) {
	t.Parallel()
	_, topicless := cluster(t)
	c, leaderless := seeded(t)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
	for name, config := range map[string]kafka.Config{
		"silent_broker":                    local([]string{blackHole(t)}, ""),
		"broker_hangs_in_produce":          silenced(t, kmsg.Produce),
		"broker_hangs_in_metadata":         silenced(t, kmsg.Metadata),
		"broker_hangs_in_init_producer_id": silenced(t, kmsg.InitProducerID),
		"missing_topic":                    topicless,
		"leader_never_found":               leaderless,
		"one_of_two_brokers_silent":        local([]string{blackHole(t), port.Addr(t)}, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, _ := newPublisher(t, config)
			started := time.Now()
			allUnavailable(t, p.Publish(t.Context(), messages(50)))
			if elapsed := time.Since(started); elapsed > limit {
				t.Errorf("elapsed: got %s, want at most %s", elapsed, limit)
			}
		})
	}
}

func testPublisherPublishEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p, _ := newPublisher(t, local([]string{blackHole(t)}, ""))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	started := time.Now()
	results := p.Publish(ctx, messages(2))
	allUnavailable(t, results)
	if elapsed := time.Since(started); elapsed > 2*time.Second {
		t.Errorf("elapsed: got %s, want little more than 300ms", elapsed)
	}
	if !errors.Is(results[0], context.DeadlineExceeded) {
		t.Errorf("reason: got %v, want the context's error", results[0])
	}
}

func testPublisherWaitingForConnectIsLimited(t *testing.T) {
	t.Parallel()
	p, _ := newPublisher(t, local([]string{blackHole(t)}, ""))
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			started := time.Now()
			allUnavailable(t, p.Publish(t.Context(), messages(1)))
			if elapsed := time.Since(started); elapsed > limit {
				t.Errorf("elapsed: got %s, want at most %s", elapsed, limit)
			}
		})
	}
	both.Wait()
}

// The broker accepts smaller messages than this client, and refuses the whole batch of a partition for one message.
func testPublisherOnlyOversizedMessageIsRefused(t *testing.T) {
	t.Parallel()
	c, config := seeded(t, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "100000"}))
	batch := messages(5)
	batch[2] = event.New("large", "3", event.ImageRequested{
		ProductID: 3, ImageID: 3, SourceURL: strings.Repeat("x", 500_000), PipelineHash: "hash",
	})
	p, _ := newPublisher(t, config)
	for round := range 2 {
		results := p.Publish(t.Context(), batch)
		for i, err := range results {
			if i == 2 && !fault.Is(err, fault.Invalid) {
				t.Errorf("round %d, the large message: got %v, want invalid", round, err)
			}
			if i != 2 && err != nil {
				t.Errorf("round %d, message %d: got %v, want it acknowledged", round, i, err)
			}
		}
	}
	if got := count(c); got != 8 {
		t.Errorf("records: got %d, want 8", got)
	}
}

// refusing returns a broker that refuses every batch with the third of messages.
func refusing(t *testing.T) (*kfake.Cluster, kafka.Config) {
	t.Helper()
	c, config := seeded(t)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidRecord, Count: -1, When: func(r kmsg.Request) bool {
		produce, ok := r.(*kmsg.ProduceRequest)
		return ok && bytes.Contains(produce.Topics[0].Partitions[0].Records, []byte("https://example.com/2"))
	}})
	return c, config
}

func testPublisherRefusedMessageDoesNotAffectItsBatch(t *testing.T) {
	t.Parallel()
	c, config := refusing(t)
	p, _ := newPublisher(t, config)
	for i, err := range p.Publish(t.Context(), messages(5)) {
		if i == 2 && !fault.Is(err, fault.Invalid) || i != 2 && err != nil {
			t.Errorf("message %d: got %v, want only message 2 refused", i, err)
		}
	}
	if got := count(c); got != 4 {
		t.Errorf("records: got %d, want 4", got)
	}
}

// Concurrent calls of Publish share a producer, which may put their messages into one batch.
func testPublisherRefusedMessageDoesNotAffectConcurrentBatches(t *testing.T) {
	t.Parallel()
	_, config := refusing(t)
	p, _ := newPublisher(t, config)
	for range 200 {
		var both sync.WaitGroup
		both.Go(func() { p.Publish(t.Context(), messages(5)) })
		both.Go(func() {
			if err := p.Publish(t.Context(), messages(1))[0]; fault.Is(err, fault.Invalid) {
				t.Errorf("got %v for a message that the broker accepts", err)
			}
		})
		both.Wait()
	}
}

func testPublisherWrongClockIsUnavailable(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidTimestamp, Count: -1})
	p, _ := newPublisher(t, config)
	allUnavailable(t, p.Publish(t.Context(), messages(2)))
}

func testPublisherConcurrentBatchesAreSent(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	p, _ := newPublisher(t, config)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if results := p.Publish(t.Context(), messages(10)); !accepted(results) {
				t.Errorf("got %v", results)
			}
		})
	}
	all.Wait()
	if got := count(c); got != 200 {
		t.Errorf("records: got %d, want 200", got)
	}
}

// A cancelled Publish closes the connections that others use too. Their results still have to be correct.
func testPublisherCancelledPublishDelaysOthersBriefly(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	p, _ := newPublisher(t, config)
	var all sync.WaitGroup
	var acknowledged atomic.Int64
	for range 6 {
		all.Go(func() {
			for round := range 15 {
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if round%3 == 2 {
					ctx, cancel = context.WithTimeout(ctx, time.Millisecond)
				}
				for _, err := range p.Publish(ctx, messages(10)) {
					switch {
					case err == nil:
						acknowledged.Add(1)
					case !fault.Is(err, fault.Unavailable):
						t.Errorf("got %v, want nil or unavailable", err)
					}
				}
				cancel()
			}
		})
	}
	all.Wait()
	eventually(t, "a publish is acknowledged again", func() bool { return accepted(p.Publish(t.Context(), messages(1))) })
	if got, want := count(c), acknowledged.Load()+1; got < want {
		t.Errorf("records: got %d, want at least the %d that were acknowledged", got, want)
	}
}

func testPublisherClosedPublisherSendsNothing(t *testing.T) {
	t.Parallel()
	_, config := seeded(t)
	p, _ := newPublisher(t, config)
	if results := p.Publish(t.Context(), nil); len(results) != 0 {
		t.Errorf("no messages: got %v", results)
	}
	if results := p.Publish(t.Context(), messages(1)); !accepted(results) {
		t.Fatal(results)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	allUnavailable(t, p.Publish(t.Context(), messages(1)))
}

func ExampleConfig_Name() {
	fmt.Println(kafka.Config{TopicPrefix: "staging."}.Name(event.TopicDead))
	// Output: staging.vitrine.images.dead
}
