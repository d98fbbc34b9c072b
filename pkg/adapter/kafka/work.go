package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

const (
	retryBackoff = 100 * time.Millisecond // doubling
	retryMax     = 30 * time.Second

	// Limits, in bytes, for what a dead letter holds besides the payload, so that it fits into a message.
	maxReason  = 1 << 10
	maxHeaders = 16 << 10
	maxDeadKey = 64 // longer than any product id
)

// step is the work that has to succeed before a record is done: a call of the handler, or a send to the dead-letter
// topic.
type step struct {
	message event.Message // for the log
	key     string        // steps with the same key run one at a time
	run     func(context.Context) error
}

// process runs a record's step until it succeeds. The caller has acquired a slot, which process always releases. done is
// false if the partition has to be released before the step has succeeded.
func (c *Consumer) process(accepting, handling context.Context, record *sarama.ConsumerMessage) (done bool) {
	holding := true
	release := func() { c.slots.Release(); holding = false }
	acquire := func() bool { holding = c.slots.Acquire(accepting.Done()); return holding }
	defer func() {
		if holding {
			release()
		}
	}()
	s := c.toStep(record)
	unlock, ok := c.keys.TryAcquire(s.key, 1)
	if !ok {
		release() // no slot is held while waiting for the key
		if unlock, ok = c.keys.Acquire(accepting, s.key, 1); !ok {
			return false
		}
	}
	defer unlock()
	for failures := 0; ; failures++ {
		if !holding && !acquire() || !c.pauser.wait(accepting.Done()) {
			return false
		}
		err := c.attempt(handling, s, record, failures+1)
		if err == nil {
			return true
		}
		release() // other messages use the slot during the backoff
		if !backoff.Sleep(accepting, backoff.Delay(failures, retryBackoff, retryMax)) {
			return false
		}
	}
}

// attempt runs a step once, counts its result and logs its error.
func (c *Consumer) attempt(ctx context.Context, s step, record *sarama.ConsumerMessage, attempt int) error {
	started := time.Now()
	c.metrics.inFlight.Inc()
	defer c.metrics.inFlight.Dec()
	err := fault.Guard(func() error { return s.run(ctx) })
	c.metrics.seconds.Observe(time.Since(started).Seconds())
	if err == nil {
		c.metrics.handled.WithLabelValues("ok").Inc()
		return nil
	}
	result, log := "error", c.log.Warn
	if errors.Is(err, fault.ErrPanic) {
		result, log = "panic", c.log.Error
	}
	c.metrics.handled.WithLabelValues(result).Inc()
	log("message failed and will be retried", zap.Error(err), zap.Int("attempt", attempt),
		zap.String("event_id", s.message.ID), zap.String("product_id", s.message.Key), zap.String("type", s.message.Type),
		zap.String("trace_id", event.TraceID(s.message.Traceparent)),
		zap.Int32("partition", record.Partition), zap.Int64("offset", record.Offset))
	return err
}

// toStep decodes a record.
func (c *Consumer) toStep(record *sarama.ConsumerMessage) step {
	headers := headersOf(record)
	var m event.Message
	var key string
	err := fault.Guard(func() (err error) {
		if m, err = event.FromRecord(c.options.Topic, record.Key, record.Value, headers); err != nil {
			return err
		}
		if err = c.options.Check(m); err == nil {
			key = c.options.OrderingKey(m)
		}
		return err
	})
	if err != nil {
		return c.deadLetter(record, headers, err)
	}
	return step{message: m, key: key, run: func(ctx context.Context) error { return c.handle(ctx, m) }}
}

// deadLetter returns the step that sends an undecodable record to the dead-letter topic. Its event id is derived from the
// record's coordinates, so duplicates of a retried send have the same id.
func (c *Consumer) deadLetter(record *sarama.ConsumerMessage, headers map[string]string, reason error) step {
	coordinates := fmt.Sprintf("%s/%d/%d", record.Topic, record.Partition, record.Offset)
	id := uuid.NewSHA1(uuid.NameSpaceURL, []byte("kafka:"+coordinates)).String()
	body := event.Undecodable{
		Reason: truncate(reason.Error(), maxReason), Topic: record.Topic, Partition: record.Partition, Offset: record.Offset,
		Headers: limitHeaders(headers), Payload: record.Value,
	}
	if len(body.Payload) > event.MaxPayload {
		body.Payload, body.Truncated = body.Payload[:event.MaxPayload], true
	}
	m := event.New(id, truncate(string(record.Key), maxDeadKey), body)
	return step{message: m, key: "dead " + coordinates, run: func(ctx context.Context) error {
		if err := errors.Join(c.dead.Publish(ctx, []event.Message{m})...); err != nil {
			return fmt.Errorf("send undecodable record to dead-letter topic: %w", err)
		}
		c.metrics.undecodable.Inc()
		c.log.Error("undecodable record was sent to the dead-letter topic", zap.String("event_id", id),
			zap.NamedError("reason", reason), zap.Int32("partition", record.Partition), zap.Int64("offset", record.Offset))
		return nil
	}}
}

// limitHeaders returns as many headers as fit into maxHeaders.
func limitHeaders(headers map[string]string) map[string]string {
	kept := make(map[string]string, len(headers))
	left := maxHeaders
	for name, value := range headers {
		if left -= len(name) + len(value); left < 0 {
			break
		}
		kept[name] = value
	}
	return kept
}

// truncate returns at most n bytes of s, without a partial or invalid UTF-8 character.
func truncate(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
