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

	// What is kept of an undecodable record besides its payload, so that the dead record fits into a message.
	maxReason  = 1 << 10
	maxHeaders = 16 << 10
	maxDeadKey = 64 // longer than any product id

	resultOK    = "ok"
	resultError = "error"
	resultPanic = "panic"
)

// step is what has to succeed before a record is done: the handler's work, or the burial of what cannot be read.
type step struct {
	message event.Message // what is logged of it
	lane    string        // only one step at a time is in a lane
	once    func(context.Context) error
}

// work takes a record, for which the caller holds a slot, through its step until that succeeds. It is false when the
// partition has to be let go before; the slot is free again either way.
func (c *Consumer) work(taking, working context.Context, record *sarama.ConsumerMessage) (done bool) {
	holding := true
	leave := func() { c.leaveSlot(); holding = false }
	enter := func() bool { holding = c.enterSlot(taking.Done()); return holding }
	defer func() {
		if holding {
			c.leaveSlot()
		}
	}()
	s := c.toStep(record)
	leaveLane := c.lanes.lock(s.lane, taking.Done(), leave) // whoever waits for its lane holds no slot
	if leaveLane == nil {
		return false
	}
	defer leaveLane()
	for failures := 0; ; failures++ {
		if !holding && !enter() || !c.gate.wait(taking.Done()) {
			return false
		}
		err := c.attempt(working, s, record, failures+1)
		if err == nil {
			return true
		}
		leave() // others go on while this one waits
		if !backoff.Sleep(taking, backoff.Delay(failures, retryBackoff, retryMax)) {
			return false
		}
	}
}

// attempt runs a step once and counts and logs how it went.
func (c *Consumer) attempt(ctx context.Context, s step, record *sarama.ConsumerMessage, attempt int) error {
	started := time.Now()
	c.metrics.inFlight.Inc()
	defer c.metrics.inFlight.Dec()
	err := fault.Guard(func() error { return s.once(ctx) })
	c.metrics.seconds.Observe(time.Since(started).Seconds())
	switch {
	case err == nil:
		c.metrics.handled.WithLabelValues(resultOK).Inc()
		return nil
	case errors.Is(err, fault.ErrPanic):
		c.metrics.handled.WithLabelValues(resultPanic).Inc()
	default:
		c.metrics.handled.WithLabelValues(resultError).Inc()
	}
	log := c.log.Warn
	if errors.Is(err, fault.ErrPanic) {
		log = c.log.Error
	}
	log("message is not done and will be repeated", zap.Error(err), zap.Int("attempt", attempt),
		zap.String("event_id", s.message.ID), zap.String("product_id", s.message.Key), zap.String("type", s.message.Type),
		zap.String("trace_id", event.TraceID(s.message.Traceparent)),
		zap.Int32("partition", record.Partition), zap.Int64("offset", record.Offset))
	return err
}

// toStep decodes a record.
func (c *Consumer) toStep(record *sarama.ConsumerMessage) step {
	headers := headersOf(record)
	var m event.Message
	err := fault.Guard(func() (err error) {
		if m, err = event.FromRecord(c.options.Topic, record.Key, record.Value, headers); err != nil {
			return err
		}
		return c.options.Check(m)
	})
	if err != nil {
		return c.deadLetter(record, headers, err)
	}
	var lane string
	if err := fault.Guard(func() error { lane = c.options.Exclusive(m); return nil }); err != nil {
		return c.deadLetter(record, headers, err)
	}
	return step{message: m, lane: lane, once: func(ctx context.Context) error { return c.handle(ctx, m) }}
}

// deadLetter returns the step that sends an unreadable record to the dead topic. Its event id follows from the coordinates, so a
// repeated burial is recognised as the same.
func (c *Consumer) deadLetter(record *sarama.ConsumerMessage, headers map[string]string, reason error) step {
	place := fmt.Sprintf("%s/%d/%d", record.Topic, record.Partition, record.Offset)
	id := uuid.NewSHA1(uuid.NameSpaceURL, []byte("kafka:"+place)).String()
	body := event.Undecodable{
		Reason: truncate(reason.Error(), maxReason), Topic: record.Topic, Partition: record.Partition, Offset: record.Offset,
		Headers: limitHeaders(headers), Payload: record.Value,
	}
	if len(body.Payload) > event.MaxPayload {
		body.Payload, body.Truncated = body.Payload[:event.MaxPayload], true
	}
	m := event.New(id, truncate(string(record.Key), maxDeadKey), body)
	return step{message: m, lane: "dead " + place, once: func(ctx context.Context) error {
		if err := errors.Join(c.dead.Publish(ctx, []event.Message{m})...); err != nil {
			return fmt.Errorf("bury undecodable record: %w", err)
		}
		c.metrics.undecodable.Inc()
		c.log.Error("record cannot be read and went to the dead topic", zap.String("event_id", id),
			zap.NamedError("reason", reason), zap.Int32("partition", record.Partition), zap.Int64("offset", record.Offset))
		return nil
	}}
}

// limitHeaders returns as many headers as fit.
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

// truncate cuts s to at most n bytes, at a character.
func truncate(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
