package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/failpoint"
)

// A round is one transaction of at most drainBound. Publishing has to be back before that, so that what Kafka
// acknowledged can still be deleted: what cannot is published again.
const (
	drainBound   = 5 * time.Second
	publishBound = 4 * time.Second
)

// outboxConns is the size of the outbox's pool: one connection for a round and one for what is measured.
const outboxConns = 2

// Claims begin where the last one ended for restartAfter, or for restartShare times as long as the last claim from the start
// took, if that is more: walking over what died there must not become all that is done. What committed late, with an earlier
// place in the queue, waits that long at most while everything is busy.
const (
	restartAfter = time.Second
	restartShare = 20
)

// Outbox implements relay.Outbox.
type Outbox struct {
	db       *DB
	log      *zap.Logger
	maxTries int
	activity *activity

	mu      sync.Mutex
	stuck   bool        // the last round was full and nothing of it could be sent: the next begins elsewhere
	next    queueCursor // behind the last row of the last claim; zero: the start
	restart time.Time   // when a claim has to begin at the start again
}

// queueCursor is a row's in the queue.
type queueCursor struct {
	at time.Time
	id int64
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
	return &Outbox{db: own, log: db.log, maxTries: cfg.OutboxMaxTries, activity: newActivity(own, db.reg)}, nil
}

// Close closes the outbox's pool.
func (o *Outbox) Close() error { return o.db.Close() }

// claimColumns are claimedRow's. Of the headers only those are read that make a message; taking them out here costs less
// than reading JSON there.
const claimColumns = `
SELECT ctid, id, available_at, tries, topic, key, payload, coalesce(headers->>'event-id', ''),
    coalesce(headers->>'event-type', ''), coalesce(headers->>'event-version', ''), coalesce(headers->>'traceparent', '')
FROM outbox
WHERE available_at <= now() AND parked_at IS NULL `

// claimDue begins behind a place, so that it does not go over what the last rounds have deleted. Until they are vacuumed,
// and while any transaction anywhere is older than them they cannot be, dead rows cost as much to pass as living ones.
const claimDue = claimColumns + `AND (available_at, id) > ($2, $3)
ORDER BY available_at, id LIMIT $1 FOR UPDATE SKIP LOCKED`

// claimElsewhere begins at a chance moment between the oldest due row and now. Rows of a partition without a leader may
// fill the head of the queue by more than a round; behind them others wait that could go.
const claimElsewhere = claimColumns + `AND available_at >= (
    SELECT min(available_at) + random() * greatest(now() - min(available_at), interval '0')
    FROM outbox WHERE parked_at IS NULL)
ORDER BY available_at, id LIMIT $1 FOR UPDATE SKIP LOCKED`

// Drain implements relay.Outbox.
func (o *Outbox) Drain(
	ctx context.Context, limit int, publish func(context.Context, []event.Message) []error,
) (relay.Drained, error) {
	var r round
	text, args, elsewhere := o.nextClaim(limit)
	err := o.db.transactPgx(ctx, "drain", func(ctx context.Context, tx pgx.Tx) error {
		rows, took, err := o.claim(ctx, tx, text, args)
		if err != nil {
			return err
		}
		o.claimed(rows, limit, elsewhere, took)
		if len(rows) == 0 {
			return errNothing
		}
		failpoint.Hit(failpoint.DrainClaimed)
		r = publishRows(ctx, rows, publish)
		err = r.apply(ctx, tx, o.maxTries)
		failpoint.Hit(failpoint.DrainDeleted)
		return err
	})
	if err != nil || len(r.unsent)+len(r.refused) > 0 {
		o.resetCursor(err == nil && !elsewhere && len(r.unsent) == limit)
	}
	if err != nil { // whatever was published comes again
		return relay.Drained{Claimed: r.claimed}, err
	}
	o.logParked(r)
	return r.drained(o.maxTries), nil
}

// nextClaim decides where the next claim begins.
func (o *Outbox) nextClaim(limit int) (text string, args []any, elsewhere bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stuck {
		o.stuck = false
		return claimElsewhere, []any{limit}, true
	}
	if time.Now().After(o.restart) {
		o.next = queueCursor{}
	}
	return claimDue, []any{limit, o.next.at, o.next.id}, false
}

// claimed notes what a claim found: behind a full one there is more, before it nobody needs to look for a while.
func (o *Outbox) claimed(rows []claimedRow, limit int, elsewhere bool, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if elsewhere || len(rows) < limit {
		o.restart = time.Time{}
		return
	}
	if o.next == (queueCursor{}) {
		o.restart = time.Now().Add(max(restartAfter, restartShare*took))
	}
	last := rows[len(rows)-1]
	o.next = queueCursor{last.AvailableAt, last.ID}
}

// resetCursor lets the next claim begin at the start, where something is left, or elsewhere, if all of a full round is. What
// another round has found out meanwhile stays.
func (o *Outbox) resetCursor(stuck bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.restart, o.stuck = time.Time{}, o.stuck || stuck
}

// claim locks and reads rows, and says how long that took.
func (o *Outbox) claim(ctx context.Context, tx pgx.Tx, text string, args []any) ([]claimedRow, time.Duration, error) {
	began := time.Now()
	rows, err := tx.Query(ctx, text, args...)
	if err != nil {
		return nil, 0, fmt.Errorf("claim messages: %w", err)
	}
	defer rows.Close()
	var claimed []claimedRow
	for rows.Next() {
		claimed = append(claimed, claimedRow{})
		r := &claimed[len(claimed)-1]
		if err := rows.Scan(&r.At, &r.ID, &r.AvailableAt, &r.Tries, &r.Topic, &r.Key, &r.Payload, &r.EventID, &r.Type, &r.Version,
			&r.Traceparent); err != nil {
			return nil, 0, fmt.Errorf("read message: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("claim messages: %w", err)
	}
	took := time.Since(began)
	o.db.slow.report(took, text, int64(len(claimed)))
	return claimed, took, nil
}

const selectDepth = `
SELECT count(*) FILTER (WHERE parked_at IS NULL AND available_at <= now()) AS due,
    count(*) FILTER (WHERE parked_at IS NULL AND available_at > now()) AS delayed,
    count(*) FILTER (WHERE parked_at IS NOT NULL) AS parked,
    coalesce(extract(epoch FROM now() - min(available_at) FILTER (WHERE parked_at IS NULL AND available_at <= now()))
        * 1000000000, 0)::bigint AS oldest
FROM outbox`

// Depth implements relay.Outbox. It also measures what lets the outbox grow, which nobody else would look at as often. It
// is not for several goroutines at a time.
func (o *Outbox) Depth(ctx context.Context) (relay.Depth, error) {
	if err := o.activity.measure(ctx); err != nil {
		return relay.Depth{}, fmt.Errorf("measure open transactions: %w", err)
	}
	depth, err := find[relay.Depth](ctx, o.db, "depth", nil, selectDepth)
	return depth, err
}
