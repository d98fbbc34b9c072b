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

// deletePublished goes to the rows where they lie, without an index: they are locked, so nobody has moved them.
const deletePublished = `DELETE FROM outbox WHERE ctid = ANY($1::tid[])`

// backOffRefused doubles the pause from a second to five minutes, half of it by chance, so that rows refused together do not come
// back together. The exponent is bounded before the power is taken.
const backOffRefused = `
UPDATE outbox SET tries = tries + 1,
    available_at = clock_timestamp()
        + least(300, 2 ^ least(tries, 9)) * (0.5 + random() / 2) * interval '1 second',
    parked_at = CASE WHEN tries + 1 >= $2 THEN clock_timestamp() END
WHERE id = ANY($1::bigint[])`

// delayUnsent lets others go first for about five seconds, and says nothing against the row: no try is spent.
const delayUnsent = `
UPDATE outbox SET available_at = clock_timestamp() + (4 + 2 * random()) * interval '1 second' WHERE id = ANY($1::bigint[])`

// claimedRow is a message on its way out of the outbox. The headers are empty where the column lacks them.
type claimedRow struct {
	At                                  pgtype.TID // where it lies
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

// refusedRow is a message that Kafka did not take, and why.
type refusedRow struct {
	claimedRow
	why error
}

// round is what became of the claimed messages.
type round struct {
	claimed   int
	published []pgtype.TID
	refused   []refusedRow
	unsent    []int64 // ids; Kafka was not there for them
}

// publishRows hands the messages to publish and sorts its answers. A row that does not read as a message is refused. One
// that an unreachable Kafka did not take is neither published nor refused.
func publishRows(
	ctx context.Context, rows []claimedRow, publish func(context.Context, []event.Message) []error,
) round {
	r := round{claimed: len(rows)}
	messages, sent := make([]event.Message, 0, len(rows)), make([]claimedRow, 0, len(rows))
	for _, row := range rows {
		m, err := row.fromRow()
		if err != nil {
			why := fault.Wrap(err, fault.Invalid, "unreadable_message", "the row is not a message")
			r.refused = append(r.refused, refusedRow{row, why})
			continue
		}
		messages, sent = append(messages, m), append(sent, row)
	}
	if len(messages) == 0 {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, publishBound)
	defer cancel()
	for i, err := range publish(ctx, messages) {
		switch {
		case err == nil:
			r.published = append(r.published, sent[i].At)
		case fault.Is(err, fault.Unavailable):
			r.unsent = append(r.unsent, sent[i].ID)
		default:
			r.refused = append(r.refused, refusedRow{sent[i], err})
		}
	}
	return r
}

// apply writes what became of the messages. Where nothing was sent Kafka is down, and rows keep their place and their age.
// Where something was, the rest belongs to a partition or topic that is in trouble: it must not stay at the head.
func (r round) apply(ctx context.Context, tx pgx.Tx, maxTries int) error {
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
			return fmt.Errorf("put off refused: %w", err)
		}
	}
	return nil
}

func (r round) delayUnsent(ctx context.Context, tx pgx.Tx) error {
	if len(r.unsent) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, delayUnsent, r.unsent); err != nil {
		return fmt.Errorf("let others go before the unsent: %w", err)
	}
	return nil
}

func (r round) drained(maxTries int) relay.Drained {
	d := relay.Drained{
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

// logParked tells what the counters of the relay cannot: which message it was.
func (o *Outbox) logParked(r round) {
	for _, row := range r.refused {
		if row.parked(o.maxTries) {
			o.log.Error("message parked", zap.String("event_id", row.EventID),
				zap.String("topic", row.Topic), zap.String("key", row.Key), zap.Int("attempt", row.Tries+1),
				zap.Error(row.why))
		}
	}
}
