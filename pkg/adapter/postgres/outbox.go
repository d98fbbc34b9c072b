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

// A batch is one transaction that lasts at most batchTimeout. Publishing ends earlier, so that the messages that Kafka has
// acknowledged can still be deleted; those that remain are published a second time.
const (
	batchTimeout   = 5 * time.Second
	publishTimeout = 4 * time.Second
)

// outboxConns is the size of the outbox's pool: one connection for a batch and one for Depth.
const outboxConns = 2

// After a claim from the start of the queue, the next claims start at the resume point. This lasts for restartAfter, or
// for restartShare times the duration of that first claim if that is longer, because a claim from the start reads all
// dead tuples and must not take a large part of the relay's time. A message that is committed late has a place before the
// resume point. While every batch is full, it waits until the next claim from the start.
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
	blocked bool        // the last batch was full and Kafka accepted none of it; the next claim starts at a random place
	resume  queueCursor // the last row of the last claim; zero: the start of the queue
	restart time.Time   // when a claim has to start at the start of the queue
}

// queueCursor is the position of a row in the queue.
type queueCursor struct {
	at time.Time
	id int64
}

var _ relay.Outbox = (*Outbox)(nil)

// NewOutbox returns the outbox, on a pool of its own to the database of db.
func NewOutbox(db *DB) (*Outbox, error) {
	cfg := db.cfg
	cfg.MaxOpenConns = outboxConns
	cfg.Timeout = batchTimeout
	cfg.StatementTimeout = min(cfg.StatementTimeout, batchTimeout)
	cfg.ApplicationName += "-outbox"
	own, err := open("outbox", cfg, db.log, db.reg)
	if err != nil {
		return nil, err
	}
	return &Outbox{db: own, log: db.log, maxTries: cfg.OutboxMaxTries, activity: newActivity(own, db.reg)}, nil
}

// Close closes the outbox's pool.
func (o *Outbox) Close() error { return o.db.Close() }

// claimColumns are the fields of claimedRow. The server extracts the headers of a message, which is faster than to parse
// JSON in this process.
const claimColumns = `
SELECT ctid, id, available_at, tries, topic, key, payload, coalesce(headers->>'event-id', ''),
    coalesce(headers->>'event-type', ''), coalesce(headers->>'event-version', ''), coalesce(headers->>'traceparent', '')
FROM outbox
WHERE available_at <= now() AND parked_at IS NULL `

// claimDue starts behind the resume point, so that it does not read the rows that the last batches deleted. A dead tuple
// takes as much time to read as a live one until VACUUM removes it, which is not possible while an older transaction is
// open.
const claimDue = claimColumns + `AND (available_at, id) > ($2, $3)
ORDER BY available_at, id LIMIT $1 FOR UPDATE SKIP LOCKED`

// claimRandom starts at a random time between the oldest due row and now. Messages for a partition without a leader may
// fill more than one batch at the start of the queue, while messages behind them could be sent.
const claimRandom = claimColumns + `AND available_at >= (
    SELECT min(available_at) + random() * greatest(now() - min(available_at), interval '0')
    FROM outbox WHERE parked_at IS NULL)
ORDER BY available_at, id LIMIT $1 FOR UPDATE SKIP LOCKED`

// PublishBatch implements relay.Outbox.
func (o *Outbox) PublishBatch(
	ctx context.Context, limit int, publish func(context.Context, []event.Message) []error,
) (relay.BatchResult, error) {
	var r batch
	text, args, random := o.nextClaim(limit)
	err := o.db.transactPgx(ctx, "publish_batch", func(ctx context.Context, tx pgx.Tx) error {
		rows, elapsed, err := o.claim(ctx, tx, text, args)
		if err != nil {
			return err
		}
		o.claimed(rows, limit, random, elapsed)
		if len(rows) == 0 {
			return errNothing
		}
		failpoint.Hit(failpoint.BatchClaimed)
		r = publishRows(ctx, rows, publish)
		err = r.apply(ctx, tx, o.maxTries)
		failpoint.Hit(failpoint.BatchDeleted)
		return err
	})
	if err != nil || len(r.unsent)+len(r.refused) > 0 {
		o.resetCursor(err == nil && !random && len(r.unsent) == limit)
	}
	if err != nil { // messages that were published are published a second time
		return relay.BatchResult{Claimed: r.claimed}, err
	}
	o.logParked(r)
	return r.result(o.maxTries), nil
}

// nextClaim returns the statement of the next claim, and whether it starts at a random place.
func (o *Outbox) nextClaim(limit int) (text string, args []any, random bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.blocked {
		o.blocked = false
		return claimRandom, []any{limit}, true
	}
	if time.Now().After(o.restart) {
		o.resume = queueCursor{}
	}
	return claimDue, []any{limit, o.resume.at, o.resume.id}, false
}

// claimed records a claim. A full one sets the resume point. After a random claim or one that was not full, the next claim
// starts at the start of the queue.
func (o *Outbox) claimed(rows []claimedRow, limit int, random bool, elapsed time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if random || len(rows) < limit {
		o.restart = time.Time{}
		return
	}
	if o.resume == (queueCursor{}) {
		o.restart = time.Now().Add(max(restartAfter, restartShare*elapsed))
	}
	last := rows[len(rows)-1]
	o.resume = queueCursor{last.AvailableAt, last.ID}
}

// resetCursor makes the next claim start at the start of the queue or, if stuck, at a random place. If a concurrent
// PublishBatch of this outbox has set o.blocked, it stays set.
func (o *Outbox) resetCursor(stuck bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.restart, o.blocked = time.Time{}, o.blocked || stuck
}

// claim locks and reads rows. It also returns its duration.
func (o *Outbox) claim(ctx context.Context, tx pgx.Tx, text string, args []any) ([]claimedRow, time.Duration, error) {
	start := time.Now()
	rows, _ := tx.Query(ctx, text, args...) // CollectRows returns its error
	claimed, err := pgx.CollectRows(rows, pgx.RowToStructByPos[claimedRow])
	if err != nil {
		return nil, 0, fmt.Errorf("claim messages: %w", err)
	}
	elapsed := time.Since(start)
	o.db.slow.report(elapsed, text, int64(len(claimed)))
	return claimed, elapsed, nil
}

// maxCountedRows bounds each count of Depth, so that it does not scan an outbox of millions of rows.
const maxCountedRows = 10_000

// selectDepth orders the rows as the indexes do, so that the planner reads them up to the bound and does not scan the table.
const selectDepth = `
SELECT
    (SELECT count(*) FROM (SELECT FROM outbox WHERE parked_at IS NULL AND available_at <= now()
        ORDER BY available_at, id LIMIT $1) d) AS due,
    (SELECT count(*) FROM (SELECT FROM outbox WHERE parked_at IS NULL AND available_at > now()
        ORDER BY available_at, id LIMIT $1) d) AS delayed,
    (SELECT count(*) FROM (SELECT FROM outbox WHERE parked_at IS NOT NULL ORDER BY parked_at LIMIT $1) d) AS parked,
    coalesce((SELECT extract(epoch FROM now() - available_at) * 1000000000 FROM outbox
        WHERE parked_at IS NULL AND available_at <= now() ORDER BY available_at, id LIMIT 1), 0)::bigint AS oldest`

// Depth implements relay.Outbox. It also measures the age of the oldest open transaction, because the relay calls it
// regularly. It is not safe for concurrent use.
func (o *Outbox) Depth(ctx context.Context) (relay.Depth, error) {
	if err := o.activity.measure(ctx); err != nil {
		return relay.Depth{}, fmt.Errorf("measure open transactions: %w", err)
	}
	depth, err := find[relay.Depth](ctx, o.db, "depth", nil, selectDepth, maxCountedRows)
	return depth, err
}
