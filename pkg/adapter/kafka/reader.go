package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// Record is a message as it is stored in a topic. It may be undecodable.
type Record struct {
	Topic     string // with the prefix
	Partition int32
	Offset    int64
	Time      time.Time // when it was written
	Key       []byte
	Value     []byte
	Headers   map[string]string
}

// Reader reads a topic from its beginning to its current end. It joins no group and commits nothing.
type Reader struct {
	config  Config
	base    *sarama.Config
	timeout time.Duration // maximum wait for the next record
}

// readTimeout is how long a Reader waits for the next existing record.
const readTimeout = 30 * time.Second

// NewReader returns a Reader. It reads the TLS files and does not connect. It fails if a setting is not valid.
func NewReader(config Config) (*Reader, error) {
	base, err := config.saramaConfig("reader", func(s *sarama.Config) {
		shortTimeouts(s)
		s.Consumer.Return.Errors = true
		s.Consumer.MaxWaitTime = longPoll
	})
	if err != nil {
		return nil, err
	}
	return &Reader{config: config, base: base, timeout: readTimeout}, nil
}

// Read calls fn with each record that the topic has when Read starts. It reads one partition after the other, each in the
// order of offsets. Later records are not read. topic is the name without the prefix. If fn returns an error, Read ends
// and returns it unchanged. Read returns fault.Unavailable if Kafka cannot be reached, ctx ends, or no record arrives for
// 30 seconds.
func (r *Reader) Read(ctx context.Context, topic string, fn func(Record) error) error {
	return r.connected(ctx, func(client sarama.Client, consumer sarama.Consumer) error {
		spans, err := findSpans(client, r.config.Name(topic))
		if err != nil {
			return unavailable(withCause(ctx, err))
		}
		for _, s := range spans {
			if err := r.readSpan(ctx, consumer, s, fn); err != nil {
				return err
			}
		}
		return nil
	})
}

// connected calls fn with a client, which it closes afterwards.
func (r *Reader) connected(ctx context.Context, fn func(sarama.Client, sarama.Consumer) error) error {
	conns := newConnTracker(nil, dialTimeout)
	defer conns.closeAll()
	defer context.AfterFunc(ctx, conns.closeAll)()
	client, err := sarama.NewClient(r.config.Brokers, withDialer(r.base, conns))
	if err != nil {
		return unavailable(withCause(ctx, fmt.Errorf("connect reader: %w", err)))
	}
	defer func() { _ = client.Close() }()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return unavailable(withCause(ctx, fmt.Errorf("make reader: %w", err)))
	}
	defer func() { _ = consumer.Close() }()
	return fn(client, consumer)
}

// span is the range of a partition's offsets from first, inclusive, to end, exclusive.
type span struct {
	topic      string
	partition  int32
	first, end int64
}

// findSpans returns the spans of all partitions that have records.
func findSpans(client sarama.Client, topic string) ([]span, error) {
	if err := client.RefreshMetadata(topic); err != nil {
		return nil, fmt.Errorf("find topic %s: %w", topic, err)
	}
	partitions, err := client.Partitions(topic)
	if err != nil {
		return nil, fmt.Errorf("find partitions of %s: %w", topic, err)
	}
	var all []span
	for _, p := range partitions {
		first, err := client.GetOffset(topic, p, sarama.OffsetOldest)
		if err != nil {
			return nil, fmt.Errorf("find the beginning of %s/%d: %w", topic, p, err)
		}
		end, err := client.GetOffset(topic, p, sarama.OffsetNewest)
		if err != nil {
			return nil, fmt.Errorf("find the end of %s/%d: %w", topic, p, err)
		}
		if first < end {
			all = append(all, span{topic: topic, partition: p, first: first, end: end})
		}
	}
	return all, nil
}

var (
	errIdle      = errors.New("no record arrived within the timeout")
	errTruncated = errors.New("its records were deleted during the read; try again")
)

// readSpan reads one partition. The timeout does not run while fn does.
func (r *Reader) readSpan(ctx context.Context, consumer sarama.Consumer, s span, fn func(Record) error) error {
	part, err := consumer.ConsumePartition(s.topic, s.partition, s.first)
	if err != nil {
		return unavailable(withCause(ctx, fmt.Errorf("read %s/%d: %w", s.topic, s.partition, err)))
	}
	defer func() { _ = part.Close() }()
	idle := time.NewTimer(r.timeout)
	defer idle.Stop()
	var last error
	failed := func(reason error) error {
		return unavailable(errors.Join(fmt.Errorf("read %s/%d up to %d: %w", s.topic, s.partition, s.end, reason), last))
	}
	for {
		if ctx.Err() != nil { // select picks at random among ready cases, so it may prefer a record to the end of ctx
			return failed(context.Cause(ctx))
		}
		select {
		case m, open := <-part.Messages():
			if !open { // the start offset is gone: the topic was created again, or truncated
				return failed(errTruncated)
			}
			if m.Offset >= s.end {
				return nil
			}
			if err := fn(toRecord(m)); err != nil {
				return err
			}
			if m.Offset == s.end-1 {
				return nil
			}
			idle.Reset(r.timeout)
		case err, open := <-part.Errors():
			if open { // sarama retries, or closes Messages
				last = err
			}
		case <-idle.C:
			return failed(errIdle)
		case <-ctx.Done():
			return failed(context.Cause(ctx))
		}
	}
}

func toRecord(m *sarama.ConsumerMessage) Record {
	return Record{
		Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Time: m.Timestamp, Key: m.Key, Value: m.Value,
		Headers: headersOf(m),
	}
}

// headersOf returns a record's headers. Of several with the same name, the last one counts.
func headersOf(m *sarama.ConsumerMessage) map[string]string {
	headers := make(map[string]string, len(m.Headers))
	for _, h := range m.Headers {
		headers[string(h.Key)] = string(h.Value)
	}
	return headers
}

// Resend sends a record to its topic with the same bytes and headers, without decoding it. It has the same duration and
// errors as Publish.
func (p *Publisher) Resend(ctx context.Context, r Record) error {
	record := &sarama.ProducerMessage{Topic: r.Topic, Value: sarama.ByteEncoder(r.Value), Metadata: 0}
	if len(r.Key) > 0 {
		record.Key = sarama.ByteEncoder(r.Key)
	}
	for name, value := range r.Headers {
		record.Headers = append(record.Headers, sarama.RecordHeader{Key: []byte(name), Value: []byte(value)})
	}
	started, results := time.Now(), make([]error, 1)
	p.send(ctx, []*sarama.ProducerMessage{record}, results)
	p.metrics.batch(results, time.Since(started))
	return results[0]
}
