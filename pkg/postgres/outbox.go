package postgres

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"gorm.io/gorm"

	"vitrine.io/pkg/event"
	"vitrine.io/pkg/fault"
	"vitrine.io/pkg/relay"
)

// A round is one transaction of at most drainBound. Publishing has to be back before that, so that what Kafka
// acknowledged can still be deleted: what cannot is published again.
const (
	drainBound   = 5 * time.Second
	publishBound = 4 * time.Second
)

// outboxConns is the size of the outbox's pool: one connection for the round, one for Depth beside it.
const outboxConns = 2

// Outbox implements relay.Outbox.
type Outbox struct {
	db       *DB
	log      *zap.Logger
	maxTries int
	stuck    atomic.Bool // the last round was full and nothing of it could be sent: the next begins elsewhere
}

var _ relay.Outbox = (*Outbox)(nil)

// NewOutbox returns the outbox, on a pool of its own to the database of db.
func NewOutbox(db *DB) (*Outbox, error) {
	cfg := db.cfg
	cfg.MaxOpenConns = outboxConns
	cfg.Timeout = drainBound
	cfg.StatementTimeout = min(cfg.StatementTimeout, drainBound)
	cfg.ApplicationName += "-outbox"
	own, err := open("outbox", cfg, db.log, db.reg)
	if err != nil {
		return nil, err
	}
	return &Outbox{db: own, log: db.log, maxTries: cfg.OutboxMaxTries}, nil
}

// Close closes the outbox's pool.
func (o *Outbox) Close() error { return o.db.Close() }

const claimDue = `
SELECT id, topic, key, payload::text AS payload, headers, tries FROM outbox
WHERE available_at <= now() AND parked_at IS NULL
ORDER BY available_at, id LIMIT $1 FOR UPDATE SKIP LOCKED`

// claimElsewhere begins at a chance moment between the oldest due row and now. Rows of a partition without a leader may
// fill the head of the queue by more than a round; behind them others wait that could go.
const claimElsewhere = `
SELECT id, topic, key, payload::text AS payload, headers, tries FROM outbox
WHERE available_at <= now() AND parked_at IS NULL AND available_at >= (
    SELECT min(available_at) + random() * greatest(now() - min(available_at), interval '0')
    FROM outbox WHERE parked_at IS NULL)
ORDER BY available_at, id LIMIT $1 FOR UPDATE SKIP LOCKED`

const deletePublished = `DELETE FROM outbox WHERE id = ANY($1)`

// putOff doubles the pause from a second to five minutes, half of it by chance, so that rows refused together do not come
// back together. The exponent is bounded before the power is taken.
const putOff = `
UPDATE outbox SET tries = tries + 1,
    available_at = clock_timestamp()
        + least(300, 2 ^ least(tries, 9)) * (0.5 + random() / 2) * interval '1 second',
    parked_at = CASE WHEN tries + 1 >= $2 THEN clock_timestamp() END
WHERE id = ANY($1)`

// stepAside lets others go first for about five seconds, and says nothing against the row: no try is spent.
const stepAside = `
UPDATE outbox SET available_at = clock_timestamp() + (4 + 2 * random()) * interval '1 second' WHERE id = ANY($1)`

// Drain implements relay.Outbox.
func (o *Outbox) Drain(
	ctx context.Context, limit int, publish func(context.Context, []event.Message) []error,
) (relay.Drained, error) {
	var r round
	claim := claimDue
	if o.stuck.Swap(false) {
		claim = claimElsewhere
	}
	err := o.db.transact(ctx, "drain", func(tx *gorm.DB) error {
		var rows []claimedRow
		if err := tx.Raw(claim, limit).Find(&rows).Error; err != nil {
			return fmt.Errorf("claim messages: %w", err)
		}
		if len(rows) == 0 {
			return errNothing
		}
		r = publishRows(tx.Statement.Context, rows, publish)
		return r.settle(tx, o.maxTries)
	})
	if err != nil { // whatever was published comes again
		return relay.Drained{Claimed: r.claimed}, err
	}
	o.logParked(r)
	o.stuck.Store(claim == claimDue && len(r.unsent) == limit)
	return r.drained(o.maxTries), nil
}

// refusedRow is a message that Kafka did not take, and why.
type refusedRow struct {
	claimedRow
	why error
}

// round is what became of the claimed messages.
type round struct {
	claimed   int
	published []int64 // ids
	refused   []refusedRow
	unsent    []int64 // ids; Kafka was not there for them
}

// publishRows hands the messages to publish and sorts its answers. A row that does not read as a message is refused. One
// that an unreachable Kafka did not take is neither published nor refused.
func publishRows(
	ctx context.Context, rows []claimedRow, publish func(context.Context, []event.Message) []error,
) round {
	r := round{claimed: len(rows)}
	var messages []event.Message
	var sent []claimedRow
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
			r.published = append(r.published, sent[i].ID)
		case fault.Is(err, fault.Unavailable):
			r.unsent = append(r.unsent, sent[i].ID)
		default:
			r.refused = append(r.refused, refusedRow{sent[i], err})
		}
	}
	return r
}

// settle writes what became of the messages. Where nothing was sent Kafka is down, and rows keep their place and their age.
// Where something was, the rest belongs to a partition or topic that is in trouble: it must not stay at the head.
func (r round) settle(tx *gorm.DB, maxTries int) error {
	if len(r.published)+len(r.refused) == 0 {
		return errNothing
	}
	if len(r.published) > 0 {
		if err := tx.Exec(deletePublished, r.published).Error; err != nil {
			return fmt.Errorf("delete published: %w", err)
		}
		if err := r.stepAside(tx); err != nil {
			return err
		}
	}
	if len(r.refused) > 0 {
		ids := make([]int64, len(r.refused))
		for i, row := range r.refused {
			ids[i] = row.ID
		}
		if err := tx.Exec(putOff, ids, maxTries).Error; err != nil {
			return fmt.Errorf("put off refused: %w", err)
		}
	}
	return nil
}

func (r round) stepAside(tx *gorm.DB) error {
	if len(r.unsent) == 0 {
		return nil
	}
	if err := tx.Exec(stepAside, r.unsent).Error; err != nil {
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
			o.log.Error("message parked", zap.String("event_id", row.Headers.V[event.HeaderID]),
				zap.String("topic", row.Topic), zap.String("key", row.Key), zap.Int("attempt", row.Tries+1),
				zap.Error(row.why))
		}
	}
}

const selectDepth = `
SELECT count(*) FILTER (WHERE parked_at IS NULL AND available_at <= now()) AS due,
    count(*) FILTER (WHERE parked_at IS NULL AND available_at > now()) AS delayed,
    count(*) FILTER (WHERE parked_at IS NOT NULL) AS parked,
    coalesce(extract(epoch FROM now() - min(available_at) FILTER (WHERE parked_at IS NULL AND available_at <= now()))
        * 1000000, 0)::bigint AS oldest
FROM outbox`

// Depth implements relay.Outbox.
func (o *Outbox) Depth(ctx context.Context) (relay.Depth, error) {
	var row struct{ Due, Delayed, Parked, Oldest int64 }
	err := o.db.call(ctx, "depth", func(conn *gorm.DB) error { return conn.Raw(selectDepth).Find(&row).Error })
	if err != nil {
		return relay.Depth{}, err
	}
	return relay.Depth{
		Due: row.Due, Delayed: row.Delayed, Parked: row.Parked, Oldest: time.Duration(row.Oldest) * time.Microsecond,
	}, nil
}
