package kafkatest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

// Open returns the configuration of a broker, with an unused topic prefix whose topics do not exist yet. The suite sets
// the number of partitions.
type Open func(t testing.TB) kafka.Config

// Run runs the suite, one parallel subtest per behaviour.
func Run(t *testing.T, open Open) {
	for _, test := range []struct {
		name       string
		partitions int
		run        func(t *testing.T, config kafka.Config)
	}{
		{"publish_keeps_headers_and_key", 3, roundTrip},
		{"publish_sends_large_batch_once", 3, largeBatch},
		{"publish_sends_one_key_to_one_partition", 6, oneKeyOnePartition},
		{"publish_refuses_only_the_oversized_message", 1, tooLarge},
		{"new_group_starts_at_oldest", 3, startsAtOldest},
		{"failed_message_is_redelivered_and_blocks_no_other", 1, failsThenSucceeds},
		{"panic_is_a_failure", 1, panicIsRetried},
		{"unfinished_message_is_redelivered_after_stop", 1, stoppedMidMessage},
		{"unfinished_message_is_redelivered_after_crash", 1, crashedMidMessage},
		{"message_finished_out_of_order_is_not_committed", 1, onlyThePrefix},
		{"finished_message_is_committed", 3, committed},
		{"stop_waits_for_work_in_flight", 1, finishesBeforeStop},
		{"rebalances_lose_nothing", 6, rebalance},
		{"undecodable_record_goes_to_dead_topic", 1, undecodable},
		{"messages_with_one_key_never_overlap", 6, oneKeyAtATime},
		{"in_flight_is_limited", 6, inFlight},
		{"paused_consumer_starts_nothing", 3, pauses},
		{"consumer_is_ready_once_joined", 1, ready},
		{"ensure_topics_is_idempotent", 2, ensureIsIdempotent},
		{"ensure_topics_reports_differences", 2, differencesAreReported},
		{"reader_sees_all_and_consumes_nothing", 3, readsToTheEnd},
		{"reader_stops_at_end_seen_at_start", 1, readStopsAtItsEnd},
		{"resend_keeps_record", 1, resends},
		{"progress_is_the_record_at_the_committed_offset", 3, progressOfWorkers},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := open(t)
			config.Partitions, config.Replication, config.MinISR = test.partitions, 1, 1
			test.run(t, config)
		})
	}
}

// timeout is how long the suite waits for an event that must happen: longer than a session timeout on a busy machine.
const timeout = 60 * time.Second

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(timeout)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("did not happen within %s: %s", timeout, what)
		}
	}
}

// await returns the next value of c, or its zero value once c is closed.
func await[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(timeout):
		t.Fatalf("did not happen within %s: %s", timeout, what)
	}
	return v
}

// ensureTopics creates the topics and returns the admin.
func ensureTopics(t *testing.T, config kafka.Config) *kafka.Admin {
	t.Helper()
	admin, err := kafka.NewAdmin(config)
	if err != nil {
		t.Fatalf("make admin: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := admin.EnsureTopics(ctx); err != nil {
		t.Fatalf("create topics: %v", err)
	}
	return admin
}

// newPublisher returns a publisher that is closed when the test ends.
func newPublisher(t *testing.T, config kafka.Config) *kafka.Publisher {
	t.Helper()
	p, err := kafka.NewPublisher(config, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatalf("make publisher: %v", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// requests returns n messages for n images of n products.
func requests(n int) []event.Message {
	messages := make([]event.Message, n)
	for i := range messages {
		id := int64(i + 1)
		messages[i] = event.New(uuid.NewString(), event.Key(id), event.ImageRequested{
			ProductID: id, ImageID: id, SourceURL: "https://example.com/" + strconv.Itoa(i), PipelineHash: "hash",
		})
	}
	return messages
}

// publish creates the topics and sends messages, which must all be acknowledged.
func publish(t *testing.T, config kafka.Config, messages []event.Message) {
	t.Helper()
	ensureTopics(t, config)
	send(t, newPublisher(t, config), messages)
}

// send publishes messages as the relay does: it retries the unavailable ones. A broker that has just started refuses
// producers for a while.
func send(t *testing.T, publisher *kafka.Publisher, messages []event.Message) {
	t.Helper()
	eventually(t, "the messages are acknowledged", func() bool {
		var left []event.Message
		for i, err := range publisher.Publish(context.Background(), messages) {
			switch {
			case fault.Is(err, fault.Unavailable):
				left = append(left, messages[i])
			case err != nil:
				t.Errorf("publish message %d: %v", i, err)
			}
		}
		messages = left
		return len(left) == 0
	})
}

// member is a running consumer.
type member struct {
	*kafka.Consumer
	cancel context.CancelFunc
	done   chan struct{}
}

// options returns the options of a consumer of requests, with short timeouts.
func options(group string) kafka.ConsumerConfig {
	return kafka.ConsumerConfig{
		Group: group, Topic: event.TopicRequested, InFlight: 8, RebalanceTimeout: 4 * time.Second,
		SessionTimeout: 6 * time.Second, // the minimum that a broker accepts by default
	}
}

// join starts a consumer, which is stopped when the test ends at the latest.
func join(t *testing.T, config kafka.Config, options kafka.ConsumerConfig, handle kafka.Handle) *member {
	t.Helper()
	c, err := kafka.NewConsumer(config, options, handle, newPublisher(t, config), prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatalf("make consumer: %v", err)
	}
	m := &member{Consumer: c, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() {
		defer close(m.done)
		if err := c.Run(ctx); err != nil {
			t.Errorf("run consumer: %v", err)
		}
	}()
	t.Cleanup(func() { m.cancel(); <-m.done })
	return m
}

// stop stops the member and waits until Run has returned.
func (m *member) stop(t *testing.T) {
	t.Helper()
	m.cancel()
	await(t, "the consumer stops", m.done)
}

// recorder counts the messages that a handler has received.
type recorder struct {
	mu   sync.Mutex
	seen map[string]int // by event id
}

func newRecorder() *recorder { return &recorder{seen: make(map[string]int)} }

// add counts a message and returns how often it was received, this time included.
func (r *recorder) add(m event.Message) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[m.ID]++
	return r.seen[m.ID]
}

func (r *recorder) times(m event.Message) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[m.ID]
}

// all reports whether every message was received.
func (r *recorder) all(messages []event.Message) bool {
	for _, m := range messages {
		if r.times(m) == 0 {
			return false
		}
	}
	return true
}

// handle is a kafka.Handle that only counts.
func (r *recorder) handle(_ context.Context, m event.Message) error {
	r.add(m)
	return nil
}

// offsets returns a group's committed offsets by partition of the requests; -1 where there is none.
func offsets(t *testing.T, config kafka.Config, group string) map[int32]int64 {
	t.Helper()
	admin, err := sarama.NewClusterAdmin(config.Brokers, sarama.NewConfig())
	if err != nil {
		t.Fatalf("make admin: %v", err)
	}
	defer func() { _ = admin.Close() }()
	topic := config.Name(event.TopicRequested)
	var partitions []int32
	for p := range config.Partitions {
		partitions = append(partitions, int32(p))
	}
	answer, err := admin.ListConsumerGroupOffsets(config.Name(group), map[string][]int32{topic: partitions})
	if err != nil {
		t.Fatalf("read committed offsets: %v", err)
	}
	committed := make(map[int32]int64)
	for _, p := range partitions {
		committed[p] = answer.GetBlock(topic, p).Offset
	}
	return committed
}

// total returns the sum of the committed offsets.
func total(offsets map[int32]int64) (sum int64) {
	for _, offset := range offsets {
		sum += max(offset, 0)
	}
	return sum
}

// records waits for n records of a topic and returns them.
func records(t *testing.T, config kafka.Config, topic string, n int) []*sarama.ConsumerMessage {
	t.Helper()
	consumer, err := sarama.NewConsumer(config.Brokers, sarama.NewConfig())
	if err != nil {
		t.Fatalf("make raw consumer: %v", err)
	}
	defer func() { _ = consumer.Close() }()
	found := make(chan *sarama.ConsumerMessage, n)
	for p := range config.Partitions {
		claim, err := consumer.ConsumePartition(config.Name(topic), int32(p), sarama.OffsetOldest)
		if err != nil {
			t.Fatalf("consume partition %d: %v", p, err)
		}
		defer func() { _ = claim.Close() }()
		go func() {
			for record := range claim.Messages() {
				found <- record
			}
		}()
	}
	got := make([]*sarama.ConsumerMessage, n)
	for i := range got {
		got[i] = await(t, fmt.Sprintf("record %d of topic %s arrives", i, topic), found)
	}
	return got
}
