package relay

import (
	"context"
	"time"

	"vitrine.io/pkg/foundation/event"
)

// Outbox holds committed messages that Kafka has not acknowledged yet.
type Outbox interface {
	// PublishBatch claims up to limit due rows that no other process has claimed, oldest first. It passes their messages
	// to publish, which returns one error for each message, and deletes the rows whose error is nil. All of this is one
	// transaction of at most five seconds. PublishBatch does not return before publish has returned.
	//
	// A row whose error is not fault.Unavailable was refused by Kafka. It is due again after a backoff, and is parked
	// after a configured number of tries. fault.Unavailable counts no try, because otherwise an outage of Kafka would
	// park the whole outbox. If every row of the batch is unavailable, the rows do not change. If Kafka accepted at least
	// one row, only some partitions are unavailable; the unavailable rows are due again about five seconds later, so that
	// they do not block the others.
	PublishBatch(ctx context.Context, limit int, publish func(context.Context, []event.Message) []error) (BatchResult, error)

	// Depth counts the rows of the outbox, each kind up to a bound that the implementation sets.
	Depth(ctx context.Context) (Depth, error)
}

// BatchResult is the result of one batch.
type BatchResult struct {
	Claimed   int
	Published int
	Refused   int // rows with any other error than fault.Unavailable; each counts one try
	Parked    int // rows of Refused that reached the maximum of tries; an operator decides about them
}

// Depth counts the rows of the outbox. Each count may be a lower bound.
type Depth struct {
	Due     int64         // rows that could be published now
	Delayed int64         // rows that are not due yet
	Parked  int64         // rows that Kafka refused too often
	Oldest  time.Duration // how long the oldest due row has been due; 0 when there is none
}

// Publisher sends messages to Kafka.
type Publisher interface {
	// Publish sends all messages and waits until each is acknowledged by all in-sync replicas, or has failed. It returns one
	// error for each message: nil if it is acknowledged, fault.Invalid if Kafka can never accept it (too large), and
	// fault.Unavailable if Kafka could not be reached or did not answer in time; the message may then have arrived. Publish
	// may be repeated with the same messages, and called concurrently.
	Publish(ctx context.Context, messages []event.Message) []error
}
