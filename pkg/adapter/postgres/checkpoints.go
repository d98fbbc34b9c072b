package postgres

import (
	"context"
	"time"

	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
)

var _ maintenance.Checkpoints = (*Store)(nil)

const selectState = `
SELECT count(*) AS shards, count(*) FILTER (WHERE finished_at IS NULL) AS unfinished,
    coalesce(avg(progress), 0)::double precision AS progress,
    coalesce((extract(epoch FROM now() - min(started_at)) * 1000000000)::bigint, 0) AS age,
    coalesce(json_agg(DISTINCT stopped) FILTER (WHERE stopped <> ''), '[]') AS stopped
FROM checkpoints WHERE scan = $1`

// Pass implements maintenance.Checkpoints.
func (s *Store) Pass(ctx context.Context, scan string) (maintenance.Pass, error) {
	type row struct {
		Shards, Unfinished int
		Progress           float64
		Age                time.Duration
		Stopped            asJSON[[]string]
	}
	r, err := find[row](ctx, s.db, "audit_pass", nil, selectState, scan)
	return maintenance.Pass{
		Shards: r.Shards, Unfinished: r.Unfinished, Progress: r.Progress, Age: r.Age, Stopped: r.Stopped.V,
	}, err
}

// lockScan lets one transaction at a time start a pass over a scan.
const lockScan = `SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' checkpoints ' || $1, 2))`

const isCurrent = `
SELECT EXISTS (SELECT FROM checkpoints
    WHERE scan = $1 AND (finished_at IS NULL OR started_at > now() - $2 * interval '1 microsecond'))`

const deleteShards = `DELETE FROM checkpoints WHERE scan = $1`

const insertShards = `
INSERT INTO checkpoints (scan, shard, after_cursor, until_cursor, cursor)
SELECT $1, n.shard, n.after, n.until, n.after FROM json_to_recordset($2) AS n (shard integer, after text, until text)`

// shardRow is a shard of a new pass.
type shardRow struct {
	Shard int    `json:"shard"`
	After string `json:"after"`
	Until string `json:"until"`
}

// StartPass implements maintenance.Checkpoints. The statement after the lock sees what the previous holder committed.
func (s *Store) StartPass(ctx context.Context, scan string, ranges []maintenance.Range, every time.Duration,
) (started bool, err error) {
	rows := make([]shardRow, len(ranges))
	for i, r := range ranges {
		rows[i] = shardRow{i, r.After, r.Until}
	}
	err = s.db.transact(ctx, "start_audit_pass", func(tx *gorm.DB) error {
		if err := tx.Exec(lockScan, scan).Error; err != nil {
			return err
		}
		var current bool
		if err := tx.Raw(isCurrent, scan, every.Microseconds()).Find(&current).Error; err != nil {
			return err
		}
		if current {
			return errNothing
		}
		if err := tx.Exec(deleteShards, scan).Error; err != nil {
			return err
		}
		started = true
		return tx.Exec(insertShards, scan, asJSON[[]shardRow]{rows}).Error
	})
	return started && err == nil, err
}

// acquireShard gives each claim a lease of its own, so that a process whose lease has ended cannot save.
const acquireShard = `
WITH due AS MATERIALIZED (
    SELECT shard FROM checkpoints WHERE scan = $1 AND finished_at IS NULL AND due_at <= now()
    ORDER BY due_at, shard LIMIT 1 FOR UPDATE SKIP LOCKED)
UPDATE checkpoints c SET lease = gen_random_uuid(), due_at = now() + $2 * interval '1 microsecond'
FROM due WHERE c.scan = $1 AND c.shard = due.shard
RETURNING c.scan, c.shard AS number, (SELECT count(*) FROM checkpoints n WHERE n.scan = $1) AS shards,
    c.after_cursor AS after, c.until_cursor AS until, c.cursor, c.progress, c.lease::text AS lease,
    (extract(epoch FROM now() - c.started_at) * 1000000000)::bigint AS pass_age`

// Acquire implements maintenance.Checkpoints.
func (s *Store) Acquire(ctx context.Context, scan string, lease time.Duration,
) (shard maintenance.Shard, acquired bool, err error) {
	type row struct {
		Scan, After, Until, Cursor, Lease string
		Number, Shards                    int
		Progress                          float64
		PassAge                           time.Duration
	}
	rows, err := query[row](ctx, s.db, "acquire_shard", acquireShard, scan, lease.Microseconds())
	if err != nil || len(rows) == 0 {
		return maintenance.Shard{}, false, err
	}
	r := rows[0]
	return maintenance.Shard{
		Range: maintenance.Range{After: r.After, Until: r.Until}, Scan: r.Scan, Number: r.Number, Shards: r.Shards,
		Cursor: r.Cursor, Progress: r.Progress, Lease: r.Lease, PassAge: r.PassAge,
	}, true, nil
}

const saveShard = `
UPDATE checkpoints SET cursor = $4, progress = $5, stopped = $6, due_at = now() + $7 * interval '1 microsecond',
    finished_at = CASE WHEN $8 THEN now() END
WHERE scan = $1 AND shard = $2 AND lease = $3::uuid AND finished_at IS NULL`

// Save implements maintenance.Checkpoints.
func (s *Store) Save(ctx context.Context, shard maintenance.Shard, at maintenance.Position, wait time.Duration) error {
	_, err := s.db.exec(ctx, "save_shard", saveShard, shard.Scan, shard.Number, shard.Lease, at.Cursor, at.Progress, at.Stopped,
		wait.Microseconds(), at.Done)
	return err
}

const selectExtent = `
SELECT coalesce((SELECT max(id) FROM products), 0) AS products, coalesce((SELECT max(id) FROM images), 0) AS images`

// Extent implements maintenance.References.
func (s *Store) Extent(ctx context.Context) (products catalog.ProductID, images catalog.ImageID, err error) {
	type row struct {
		Products catalog.ProductID
		Images   catalog.ImageID
	}
	r, err := find[row](ctx, s.db, "audit_extent", nil, selectExtent)
	return r.Products, r.Images, err
}
