package relay

import (
	"context"
	"time"

	"vitrine.io/pkg/foundation/event"
)

// Outbox holds committed messages that Kafka has not acknowledged yet.
type Outbox interface {
	// Drain claims up to limit due rows that nobody else has claimed, oldest first, hands them to publish and deletes those
	// whose error is nil, all in one transaction of at most five seconds. A row with an error gets one more try and is due
	// again after a backoff; after maxTries it is parked. An error of kind fault.Unavailable says that Kafka cannot be reached
	// and nothing about the row: it spends no try, or an outage would park the whole outbox. If nothing of the round was
	// published such a row stays as it is; if something was, only its partition is in trouble, and it is due again about five
	// seconds later, so that others go first. Rows that cannot be sent never keep the others waiting for good. publish
	// returns one error for each message. A publish that was handed something always returns before Drain does.
	Drain(ctx context.Context, limit int, publish func(context.Context, []event.Message) []error) (Drained, error)

	// Depth says what is waiting.
	Depth(ctx context.Context) (Depth, error)
}

// Drained is what one round did.
type Drained struct {
	Claimed   int
	Published int
	Refused   int // one more try each; rows not sent because Kafka is unavailable are not counted
	Parked    int // of Refused: those that will not be tried again by themselves
}

// Depth says what is waiting in the outbox.
type Depth struct {
	Due     int64         // rows that could be published now
	Delayed int64         // rows whose time has not come
	Parked  int64         // rows that Kafka refused too often
	Oldest  time.Duration // how long the oldest due row has been due; 0 when there is none
}

// Publisher sends messages to Kafka.
type Publisher interface {
	// Publish sends all messages and waits until each is acknowledged by all in-sync replicas, or has failed. It returns
	// one error for each message, nil for acknowledged: of kind fault.Invalid when this message will never be taken (too
	// large), of kind fault.Unavailable when Kafka could not be reached or did not answer in time, in which case the message
	// may have arrived all the same. It may be called again with the same messages, and by several at a time.
	Publish(ctx context.Context, messages []event.Message) []error
}
