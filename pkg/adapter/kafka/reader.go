package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// Record is a message as it stands in a topic, readable or not.
type Record struct {
	Topic     string // as the cluster calls it: with the prefix
	Partition int32
	Offset    int64
	Time      time.Time // when it was written
	Key       []byte
	Value     []byte
	Headers   map[string]string
}

// Reader reads a topic from its beginning to its present end, as nobody's consumer: it joins no group and commits nothing.
type Reader struct {
	config   Config
	base     *sarama.Config
	patience time.Duration
}

// readTimeout is how long a Reader waits for the next record of those that are there.
const readTimeout = 30 * time.Second

// NewReader returns a reader. It reads the TLS files and connects to nothing.
func NewReader(config Config) (*Reader, error) {
	base, err := config.adminConfig()
	if err != nil {
		return nil, err
	}
	base.Consumer.Return.Errors = true
	base.Consumer.MaxWaitTime = longPoll
	if err := base.Validate(); err != nil {
		return nil, fmt.Errorf("check reader settings: %w", err)
	}
	return &Reader{config: config, base: base, patience: readTimeout}, nil
}

// Read calls fn with each record that the topic, named without the prefix, has when Read begins: partition after partition,
// each from its oldest record on. Records that come later are not waited for. An error of fn ends it and is returned as it
// is. fault.Unavailable if Kafka cannot be reached, or delivers nothing for half a minute.
func (r *Reader) Read(ctx context.Context, topic string, fn func(Record) error) error {
	w := newConnTracker(nil, dialTimeout)
	defer w.cut()
	defer context.AfterFunc(ctx, w.cut)()
	client, err := sarama.NewClient(r.config.Brokers, withDialer(r.base, w))
	if err != nil {
		return unavailable(withCause(ctx, fmt.Errorf("connect reader: %w", err)))
	}
	defer func() { _ = client.Close() }()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return unavailable(withCause(ctx, fmt.Errorf("make reader: %w", err)))
	}
	defer func() { _ = consumer.Close() }()
	spans, err := spansOf(client, r.config.Name(topic))
	if err != nil {
		return unavailable(withCause(ctx, err))
	}
	for _, s := range spans {
		if err := r.readSpan(ctx, consumer, s, fn); err != nil {
			return err
		}
	}
	return nil
}

// span is what a partition has: from the first record to the one before end.
type span struct {
	topic      string
	partition  int32
	first, end int64
}

// spansOf looks at all partitions before any is read.
func spansOf(client sarama.Client, topic string) ([]span, error) {
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
	errSilent = errors.New("no record has come for too long")
	errEnded  = errors.New("its records have gone while they were read; try again")
)

// readSpan reads one partition. While fn works its time is not Kafka's.
func (r *Reader) readSpan(ctx context.Context, consumer sarama.Consumer, s span, fn func(Record) error) error {
	part, err := consumer.ConsumePartition(s.topic, s.partition, s.first)
	if err != nil {
		return unavailable(withCause(ctx, fmt.Errorf("read %s/%d: %w", s.topic, s.partition, err)))
	}
	defer func() { _ = part.Close() }()
	silence := time.NewTimer(r.patience)
	defer silence.Stop()
	var last error
	stopped := func(why error) error {
		return unavailable(errors.Join(fmt.Errorf("read %s/%d up to %d: %w", s.topic, s.partition, s.end, why), last))
	}
	for {
		if ctx.Err() != nil { // a select takes any of what is ready: with records there, it could go on for long
			return stopped(context.Cause(ctx))
		}
		select {
		case m, open := <-part.Messages():
			if !open { // what it was to begin with is gone: the topic was made anew, or cut
				return stopped(errEnded)
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
			silence.Reset(r.patience)
		case err, open := <-part.Errors():
			if open { // sarama tries again by itself, or ends the messages
				last = err
			}
		case <-silence.C:
			return stopped(errSilent)
		case <-ctx.Done():
			return stopped(context.Cause(ctx))
		}
	}
}

func toRecord(m *sarama.ConsumerMessage) Record {
	return Record{
		Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Time: m.Timestamp, Key: m.Key, Value: m.Value,
		Headers: headersOf(m),
	}
}

// headersOf returns a record's headers. Of several with one name the last is taken.
func headersOf(m *sarama.ConsumerMessage) map[string]string {
	headers := make(map[string]string, len(m.Headers))
	for _, h := range m.Headers {
		headers[string(h.Key)] = string(h.Value)
	}
	return headers
}

// Resend sends a record to its topic once more, with its own bytes and headers: nothing is read into it. It waits as Publish
// does.
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
