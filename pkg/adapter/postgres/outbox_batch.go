package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

// deletePublished finds the rows by their physical location, without an index. The location is still valid, because the
// rows are locked.
const deletePublished = `DELETE FROM outbox WHERE ctid = ANY($1::tid[])`

// backOffRefused doubles the pause after each try, from one second to five minutes. Half of the pause is random, so that
// rows refused together are not sent together again. The exponent is limited, because a large power would overflow.
const backOffRefused = `
UPDATE outbox SET tries = tries + 1,
    available_at = clock_timestamp()
        + least(300, 2 ^ least(tries, 9)) * (0.5 + random() / 2) * interval '1 second',
    parked_at = CASE WHEN tries + 1 >= $2 THEN clock_timestamp() END
WHERE id = ANY($1::bigint[])`

// delayUnsent delays messages for about five seconds, so that others are sent first. It counts no try.
const delayUnsent = `
UPDATE outbox SET available_at = clock_timestamp() + (4 + 2 * random()) * interval '1 second' WHERE id = ANY($1::bigint[])`

// claimedRow is a message that a batch has locked. Headers that the row lacks are empty.
type claimedRow struct {
	Location                            pgtype.TID
	ID                                  int64
	AvailableAt                         time.Time
	Tries                               int
	Topic, Key                          string
	Payload                             []byte
	EventID, Type, Version, Traceparent string
}

func (r claimedRow) fromRow() (event.Message, error) {
	headers := make(map[string]string, 4)
	set := func(name, value string) {
		if value != "" {
			headers[name] = value
		}
	}
	set(event.HeaderID, r.EventID)
	set(event.HeaderType, r.Type)
	set(event.HeaderVersion, r.Version)
	set(event.HeaderTraceparent, r.Traceparent)
	return event.FromRecord(r.Topic, []byte(r.Key), r.Payload, headers)
}

// refusedRow is a message that Kafka refused, with the reason.
type refusedRow struct {
	claimedRow
	reason error
}

// batch is the outcome of the claimed messages.
type batch struct {
	claimed   int
	published []pgtype.TID
	refused   []refusedRow
	unsent    []int64 // ids of messages that were not sent, because Kafka could not be reached
}

// publishRows publishes the messages and sorts them by outcome. A row that is not a valid message counts as refused. If
// Kafka could not be reached, a message is unsent: it is neither published nor refused.
func publishRows(
	ctx context.Context, rows []claimedRow, publish func(context.Context, []event.Message) []error,
) batch {
	r := batch{claimed: len(rows)}
	messages, sent := make([]event.Message, 0, len(rows)), make([]claimedRow, 0, len(rows))
	for _, row := range rows {
		m, err := row.fromRow()
		if err != nil {
			reason := fault.Wrap(err, fault.Invalid, "unreadable_message", "the row is not a message")
			r.refused = append(r.refused, refusedRow{row, reason})
			continue
		}
		messages, sent = append(messages, m), append(sent, row)
	}
	if len(messages) == 0 {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	for i, err := range publish(ctx, messages) {
		switch {
		case err == nil:
			r.published = append(r.published, sent[i].Location)
		case fault.Is(err, fault.Unavailable):
			r.unsent = append(r.unsent, sent[i].ID)
		default:
			r.refused = append(r.refused, refusedRow{sent[i], err})
		}
	}
	return r
}

// apply writes the outcome of the messages. If none was sent, Kafka is down, and the rows keep their place in the queue.
// If some were sent, the unsent ones belong to a partition or topic that is unavailable, and must not stay at the start
// of the queue.
func (r batch) apply(ctx context.Context, tx pgx.Tx, maxTries int) error {
	if len(r.published)+len(r.refused) == 0 {
		return errNothing
	}
	if len(r.published) > 0 {
		if _, err := tx.Exec(ctx, deletePublished, r.published); err != nil {
			return fmt.Errorf("delete published: %w", err)
		}
		if err := r.delayUnsent(ctx, tx); err != nil {
			return err
		}
	}
	if len(r.refused) > 0 {
		ids := make([]int64, len(r.refused))
		for i, row := range r.refused {
			ids[i] = row.ID
		}
		if _, err := tx.Exec(ctx, backOffRefused, ids, maxTries); err != nil {
			return fmt.Errorf("back off refused: %w", err)
		}
	}
	return nil
}

func (r batch) delayUnsent(ctx context.Context, tx pgx.Tx) error {
	if len(r.unsent) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, delayUnsent, r.unsent); err != nil {
		return fmt.Errorf("delay unsent: %w", err)
	}
	return nil
}

func (r batch) result(maxTries int) relay.BatchResult {
	d := relay.BatchResult{
		Claimed: r.claimed, Published: len(r.published), Refused: len(r.refused),
	}
	for _, row := range r.refused {
		if row.parked(maxTries) {
			d.Parked++
		}
	}
	return d
}

func (r refusedRow) parked(maxTries int) bool { return r.Tries+1 >= maxTries }

// logParked logs each parked message, because the counters of the relay do not identify it.
func (o *Outbox) logParked(r batch) {
	for _, row := range r.refused {
		if row.parked(o.maxTries) {
			o.log.Error("message parked", zap.String("event_id", row.EventID),
				zap.String("topic", row.Topic), zap.String("key", row.Key), zap.Int("attempt", row.Tries+1),
				zap.Error(row.reason))
		}
	}
}
