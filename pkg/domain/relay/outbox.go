package relay

import (
	"context"
	"time"

	"vitrine.io/pkg/foundation/event"
)

// Outbox holds committed messages that Kafka has not acknowledged yet.
type Outbox interface {
	// Drain claims up to limit due rows, oldest first, that no other process has claimed. It passes them to publish, which
	// returns one error for each message, and deletes the rows whose error is nil, all in one transaction of at most five
	// seconds. Drain returns after publish.
	//
	// A row with an error is due again after a backoff; after maxTries tries it is parked. An error of kind fault.Unavailable
	// counts no try, because it is about Kafka and not about the row: else an outage would park the whole outbox. If the batch
	// published no message, such a row does not change. If it published one, only the partition of the row is unavailable, and
	// the row is due again about five seconds later, so that rows that cannot be sent do not block others.
	PublishBatch(ctx context.Context, limit int, publish func(context.Context, []event.Message) []error) (BatchResult, error)

	// Depth counts the rows of the outbox, each kind up to a bound that the implementation sets.
	Depth(ctx context.Context) (Depth, error)
}

// BatchResult is the result of one batch.
type BatchResult struct {
	Claimed   int
	Published int
	Refused   int // each counts one try; rows not sent because Kafka is unavailable are not included
	Parked    int // of Refused: rows that are not tried again until an operator decides
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
