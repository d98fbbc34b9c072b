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

// limit is what a Publish may take: its bound and a little for a busy machine, still within the outbox's five seconds.
const limit = 4500 * time.Millisecond

// allUnavailable fails the test unless every message failed because Kafka is away.
func allUnavailable(t *testing.T, results []error) {
	t.Helper()
	for i, err := range results {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("message %d: got %v, want unavailable", i, err)
		}
	}
}

func taken(results []error) bool { return errors.Join(results...) == nil }

func TestAPublisherIsMadeAndWaitsWhileKafkaIsDown(t *testing.T) {
	t.Parallel()
	addr := port.Addr(t)
	config := local([]string{addr}, "")
	p, _ := newPublisher(t, config)
	for range 3 {
		started := time.Now()
		allUnavailable(t, p.Publish(t.Context(), messages(3)))
		if took := time.Since(started); took > limit {
			t.Errorf("took %s, want at most %s", took, limit)
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
	eventually(t, "messages are taken once Kafka is up", func() bool { return taken(p.Publish(t.Context(), messages(3))) })
}

func TestAPublisherSurvivesARestartOfTheBroker(t *testing.T) {
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
	if results := p.Publish(t.Context(), before); !taken(results) {
		t.Fatalf("before: %v", results)
	}
	broker.Close()
	allUnavailable(t, p.Publish(t.Context(), after))
	broker = start()
	t.Cleanup(broker.Close)
	eventually(t, "messages are taken after the restart", func() bool { return taken(p.Publish(t.Context(), after)) })
	seen := newTally()
	run(t, config, requested("g"), seen.take, p)
	eventually(t, "all of them arrive", func() bool { return seen.size() == 10 })
	if got := testutil.CollectAndCount(reg, "vitrine_kafka_publish_duration_seconds"); got != 1 {
		t.Errorf("histograms: got %d, want 1", got)
	}
}

// The broker writes the batch and then says that too few replicas did, so the producer sends it again: with the same
// sequence numbers, or every record would be there twice.
func TestARetryWritesNothingTwice(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	var last kmsg.Request
	requests := 0
	slow := c.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend, Count: 10,
		When: func(r kmsg.Request) bool { // every other one; it is asked more than once about each
			if r != last {
				last = r
				requests++
			}
			return requests%2 == 1
		},
	})
	p, _ := newPublisher(t, config)
	for i := range 20 {
		if results := p.Publish(t.Context(), messages(1)); !taken(results) {
			t.Fatalf("message %d: %v", i, results)
		}
	}
	if slow.Hits() != 10 || count(c) != 20 {
		t.Errorf("faults: got %d, want 10; records: got %d, want 20", slow.Hits(), count(c))
	}
}

func TestADroppedConnectionLosesAndDoublesNothing(t *testing.T) {
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
		if results := p.Publish(t.Context(), messages(2)); !taken(results) {
			t.Fatalf("batch %d: %v", i, results)
		}
	}
	if got := count(c); got != 60 {
		t.Errorf("records: got %d, want 60", got)
	}
}

// A batch that failed for good leaves a hole in the sequence numbers. What comes next must get through all the same.
func TestAfterAFailedBatchTheNextOneIsTaken(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	p, reg := newPublisher(t, config)
	if results := p.Publish(t.Context(), messages(2)); !taken(results) {
		t.Fatalf("first: %v", results)
	}
	down := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	allUnavailable(t, p.Publish(t.Context(), messages(2)))
	down.Remove()
	if results := p.Publish(t.Context(), messages(2)); !taken(results) {
		t.Fatalf("after the failure: %v", results)
	}
	if got := count(c); got != 4 {
		t.Errorf("records: got %d, want 4", got)
	}
	want := `
# HELP vitrine_kafka_publish_clients_total Clients made: one at first use, and one after each failed batch.
# TYPE vitrine_kafka_publish_clients_total counter
vitrine_kafka_publish_clients_total 2
# HELP vitrine_kafka_publish_batches_total Batches sent, by result: ok, partial (some messages failed), failed (all did).
# TYPE vitrine_kafka_publish_batches_total counter
vitrine_kafka_publish_batches_total{result="failed"} 1
vitrine_kafka_publish_batches_total{result="ok"} 2
# HELP vitrine_kafka_publish_messages_total Messages sent, by result: ok, refused (never to be taken), unavailable.
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

// The relay publishes inside a transaction of five seconds, so Publish may not take longer whatever the broker does.
func TestAPublishComesBackInTime(t *testing.T) {
	t.Parallel()
	_, topicless := cluster(t)
	c, leaderless := seeded(t)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
	for name, config := range map[string]kafka.Config{
		"beside a broker that never answers":        local([]string{blackHole(t)}, ""),
		"beside a broker that hangs in produce":     mute(t, kmsg.Produce),
		"beside a broker that hangs in metadata":    mute(t, kmsg.Metadata),
		"beside a broker that gives no producer id": mute(t, kmsg.InitProducerID),
		"when the topic is missing":                 topicless,
		"when the leader is always another":         leaderless,
		"when one of two brokers never answers":     local([]string{blackHole(t), port.Addr(t)}, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, _ := newPublisher(t, config)
			started := time.Now()
			allUnavailable(t, p.Publish(t.Context(), messages(50)))
			if took := time.Since(started); took > limit {
				t.Errorf("took %s, want at most %s", took, limit)
			}
		})
	}
}

func TestAPublishEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p, _ := newPublisher(t, local([]string{blackHole(t)}, ""))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	started := time.Now()
	results := p.Publish(ctx, messages(2))
	allUnavailable(t, results)
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("took %s, want little more than 300 ms", took)
	}
	if !errors.Is(results[0], context.DeadlineExceeded) {
		t.Errorf("reason: got %v, want the context's end", results[0])
	}
}

func TestWaitingForWhoConnectsIsBoundToo(t *testing.T) {
	t.Parallel()
	p, _ := newPublisher(t, local([]string{blackHole(t)}, ""))
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			started := time.Now()
			allUnavailable(t, p.Publish(t.Context(), messages(1)))
			if took := time.Since(started); took > limit {
				t.Errorf("took %s, want at most %s", took, limit)
			}
		})
	}
	both.Wait()
}

// The broker takes less than this client thinks, and refuses a partition's whole batch for one message.
func TestABrokerThatTakesLessRefusesOnlyTheLargeMessage(t *testing.T) {
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
				t.Errorf("round %d, the large message: got %v, want it refused", round, err)
			}
			if i != 2 && err != nil {
				t.Errorf("round %d, message %d: got %v, want it taken", round, i, err)
			}
		}
	}
	if got := count(c); got != 8 {
		t.Errorf("records: got %d, want 8", got)
	}
}

// refusing returns a broker with a rule against the third of messages, in whatever batch it is.
func refusing(t *testing.T) (*kfake.Cluster, kafka.Config) {
	t.Helper()
	c, config := seeded(t)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidRecord, Count: -1, When: func(r kmsg.Request) bool {
		produce, ok := r.(*kmsg.ProduceRequest)
		return ok && bytes.Contains(produce.Topics[0].Partitions[0].Records, []byte("https://example.com/2"))
	}})
	return c, config
}

// A rule of the broker's refuses one message: those beside it are not to blame.
func TestABrokerThatRefusesOneMessageTakesTheOthers(t *testing.T) {
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

// Those who publish at a time share a producer, which makes one batch of what they send.
func TestABrokerThatRefusesOneMessageTakesThoseOfOthers(t *testing.T) {
	t.Parallel()
	_, config := refusing(t)
	p, _ := newPublisher(t, config)
	for range 200 {
		var both sync.WaitGroup
		both.Go(func() { p.Publish(t.Context(), messages(5)) })
		both.Go(func() {
			if err := p.Publish(t.Context(), messages(1))[0]; fault.Is(err, fault.Invalid) {
				t.Errorf("got %v for a message that has nothing against it", err)
			}
		})
		both.Wait()
	}
}

func TestAWrongClockIsNotTheMessagesFault(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidTimestamp, Count: -1})
	p, _ := newPublisher(t, config)
	allUnavailable(t, p.Publish(t.Context(), messages(2)))
}

func TestManyPublishAtOnce(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	p, _ := newPublisher(t, config)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if results := p.Publish(t.Context(), messages(10)); !taken(results) {
				t.Errorf("got %v", results)
			}
		})
	}
	all.Wait()
	if got := count(c); got != 200 {
		t.Errorf("records: got %d, want 200", got)
	}
}

// Whoever gives up cuts the connections that others use, too: they are answered, and what they hear is true.
func TestWhoGivesUpHarmsNobodyForLong(t *testing.T) {
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
						t.Errorf("got %v, want nothing or unavailable", err)
					}
				}
				cancel()
			}
		})
	}
	all.Wait()
	eventually(t, "a publish is taken again", func() bool { return taken(p.Publish(t.Context(), messages(1))) })
	if got, least := count(c), acknowledged.Load()+1; got < least {
		t.Errorf("records: got %d, want at least the %d that were acknowledged", got, least)
	}
}

func TestAClosedPublisherTakesNothing(t *testing.T) {
	t.Parallel()
	_, config := seeded(t)
	p, _ := newPublisher(t, config)
	if results := p.Publish(t.Context(), nil); len(results) != 0 {
		t.Errorf("nothing: got %v", results)
	}
	if results := p.Publish(t.Context(), messages(1)); !taken(results) {
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
