package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/pipeline"
)

// relayRound is the number of messages in a round: ten batches.
const relayRound = 5000

// relayPair are the two sides of publishing messages to Kafka.
type relayPair struct {
	*instance
	outbox    *countingOutbox
	publisher *kafka.Publisher
	producer  sarama.SyncProducer
	conn      *pgx.Conn // fills the outbox
	messages  []event.Message
}

// countingOutbox closes done when a number of messages has been published.
type countingOutbox struct {
	*postgres.Outbox
	left atomic.Int64
	done chan struct{}
}

// Drain implements relay.Outbox.
func (o *countingOutbox) PublishBatch(
	ctx context.Context, limit int, publish func(context.Context, []event.Message) []error,
) (relay.BatchResult, error) {
	drained, err := o.Outbox.PublishBatch(ctx, limit, publish)
	if n := int64(drained.Published); n > 0 && o.left.Add(-n) == 0 {
		close(o.done)
	}
	return drained, err
}

// newRelayPair creates topics with a number of partitions each, and messages.
func newRelayPair(tb testing.TB, partitions, messages int) *relayPair {
	tb.Helper()
	r := &relayPair{instance: newInstance(tb)}
	r.cfg.Relay.Rate = 0 // no limit
	outbox, publisher := r.createTopics(tb, partitions)
	r.outbox, r.publisher = &countingOutbox{Outbox: outbox}, publisher
	r.producer = newBareProducer(tb, r.cfg.Kafka)
	var err error
	r.conn, err = pgx.Connect(tb.Context(), r.cfg.Postgres.DSN)
	must(tb, err)
	tb.Cleanup(func() { must(tb, r.conn.Close(context.Background())) })
	for i := range messages {
		r.messages = append(r.messages, event.New(newID(), event.Key(int64(i)), event.ImageRequested{
			ProductID: int64(i), ImageID: int64(i), SourceURL: fmt.Sprintf("https://origin.example/catalogue/photo-%d.jpg", i),
			PipelineHash: pipeline.Default().Hash(),
		}))
	}
	return r
}

// newBareProducer returns a producer with the settings of kafka.Publisher.
func newBareProducer(tb testing.TB, cfg kafka.Config) sarama.SyncProducer {
	tb.Helper()
	version, err := sarama.ParseKafkaVersion(cfg.Version)
	must(tb, err)
	settings := sarama.NewConfig()
	settings.Version = version
	settings.Metadata.Full = false
	settings.Metadata.AllowAutoTopicCreation = false
	settings.Net.MaxOpenRequests = 1
	settings.Producer.Idempotent = true
	settings.Producer.RequiredAcks = sarama.WaitForAll
	settings.Producer.MaxMessageBytes = 1_000_000
	settings.Producer.Partitioner = sarama.NewMurmur2Partitioner
	settings.Producer.Return.Successes = true
	producer, err := sarama.NewSyncProducer(cfg.Brokers, settings)
	must(tb, err)
	tb.Cleanup(func() { must(tb, producer.Close()) })
	return producer
}

// fill inserts the first n messages into the empty outbox.
func (r *relayPair) fill(n int) error {
	ctx := context.Background()
	rows := pgx.CopyFromSlice(n, func(i int) ([]any, error) {
		m := r.messages[i]
		headers, err := json.Marshal(m.Headers())
		return []any{uuid.MustParse(m.ID), m.Topic, m.Key, m.Type, m.Body, headers}, err
	})
	columns := []string{"event_id", "topic", "key", "type", "payload", "headers"}
	_, err := r.conn.CopyFrom(ctx, pgx.Identifier{"outbox"}, columns, rows)
	if err != nil {
		return err
	}
	// In production autovacuum does this; here it would run at an arbitrary time.
	_, err = r.conn.Exec(ctx, "VACUUM ANALYZE outbox")
	return err
}

// ours runs a relay until it has published n messages.
func (r *relayPair) ours(n int) (sample, error) {
	r.outbox.left.Store(int64(n))
	r.outbox.done = make(chan struct{})
	relay := relay.New(r.outbox, r.publisher, r.cfg.Relay, prometheus.NewRegistry(), r.log.Named("relay"))
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	start := time.Now()
	go func() { stopped <- relay.Run(ctx) }()
	var late error
	select {
	case <-r.outbox.done:
	case <-time.After(time.Minute):
		late = errors.New("the relay does not finish")
	}
	elapsed := time.Since(start)
	stop()
	return sample{elapsed: elapsed}, errors.Join(<-stopped, late)
}

// other publishes the same messages in batches of the same size.
func (r *relayPair) other(n int) (sample, error) {
	start := time.Now()
	for at := 0; at < n; at += r.cfg.Relay.Batch {
		batch := make([]*sarama.ProducerMessage, 0, r.cfg.Relay.Batch)
		for _, m := range r.messages[at:min(at+r.cfg.Relay.Batch, n)] {
			record := &sarama.ProducerMessage{
				Topic: r.cfg.Kafka.Name(m.Topic), Key: sarama.StringEncoder(m.Key), Value: sarama.ByteEncoder(m.Body),
			}
			for name, value := range m.EachHeader() {
				record.Headers = append(record.Headers, sarama.RecordHeader{Key: []byte(name), Value: []byte(value)})
			}
			batch = append(batch, record)
		}
		if err := r.producer.SendMessages(batch); err != nil {
			return sample{}, err
		}
	}
	return sample{elapsed: time.Since(start)}, nil
}

// BenchmarkRelay compares the relay, from a full outbox to Kafka, with a producer that has the messages in memory.
func BenchmarkRelay(b *testing.B) {
	r := newRelayPair(b, 24, relayRound)
	b.Run(fmt.Sprintf("batch=%d", r.cfg.Relay.Batch), func(b *testing.B) {
		compare(b, relayRound, side{prepare: r.fill, run: r.ours}, side{run: r.other})
	})
}

func TestRelay(t *testing.T) {
	t.Parallel()
	const messages = 700 // more than one batch
	r := newRelayPair(t, 3, messages)
	side{prepare: r.fill, run: r.ours}.round(t, messages)
	ours := r.arrived(t)
	side{run: r.other}.round(t, messages)
	both := r.arrived(t)
	if len(ours) != messages || len(both) != messages {
		t.Errorf("our side published %d messages, and both together %d; want %d each", len(ours), len(both), messages)
	}
	for text, n := range both {
		if n != 2 || ours[text] != 1 {
			t.Fatalf("ours sent %d times, both together %d times: %s", ours[text], n, text)
		}
	}
	var left int
	must(t, r.conn.QueryRow(t.Context(), "SELECT count(*) FROM outbox").Scan(&left))
	if left != 0 {
		t.Errorf("%d messages are left in the outbox", left)
	}
}

// arrived returns every message in Kafka, as text, with its number.
func (r *relayPair) arrived(t *testing.T) map[string]int {
	t.Helper()
	client, err := sarama.NewClient(r.cfg.Kafka.Brokers, sarama.NewConfig())
	must(t, err)
	defer client.Close()
	consumer, err := sarama.NewConsumerFromClient(client)
	must(t, err)
	defer consumer.Close()
	found := map[string]int{}
	topic := r.cfg.Kafka.Name(event.TopicRequested)
	partitions, err := client.Partitions(topic)
	must(t, err)
	for _, partition := range partitions {
		end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
		must(t, err)
		records, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
		must(t, err)
		for at := int64(0); at < end; {
			m := <-records.Messages()
			at = m.Offset + 1
			headers := map[string]string{}
			for _, h := range m.Headers {
				headers[string(h.Key)] = string(h.Value)
			}
			found[fmt.Sprintf("%d %s %s %v", partition, m.Key, m.Value, headers)]++
		}
		must(t, records.Close())
	}
	return found
}
