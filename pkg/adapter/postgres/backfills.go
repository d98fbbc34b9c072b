package postgres

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

var (
	_ backfill.Backfills = (*Store)(nil)
	_ backfill.Walks     = (*Store)(nil)
	_ catalog.Backfills  = (*Store)(nil)
)

const insertBackfillEvents = `
INSERT INTO backfill_events (backfill_id, image_id, kind, code)
SELECT backfill_id, image_id, kind, code
FROM json_to_recordset($1) AS e (backfill_id bigint, image_id bigint, kind text, code text)`

// backfillColumns are the columns that change.
const backfillColumns = ` state, reason, suspended, open, approved_hash, max_in_flight, rate, windows, time_zone,
    failure_threshold, pass, cursor, found, resting, credit, requested, done, skipped, failed, failures, judged_done,
    judged_failed, plan, canary, approved_at, started_at, pass_started_at, stepped_at, progressed_at, ended_at `

const updateBackfill = `
UPDATE backfills b SET (` + backfillColumns + `) = (SELECT` + backfillColumns + `FROM (SELECT n.*) changed)
FROM json_populate_record(NULL::backfills, $1) n WHERE b.id = n.id`

// lockProposals lets one transaction at a time give a backfill of a pipeline its number.
const lockProposals = `SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' backfills ' || $1, 2))`

const supersedeProposal = `
UPDATE backfills SET state = 'superseded', reason = 'a later backfill was proposed', ended_at = now(),
    lease = NULL, due_at = now()
WHERE pipeline = $1 AND state = 'proposed'`

const insertBackfill = `
INSERT INTO backfills (pipeline, number, managed_by, resource_uid, generation, target_hash, target_output, selection,
    on_missing,` +
	backfillColumns + `)
SELECT pipeline, (SELECT coalesce(max(number), 0) + 1 FROM backfills o WHERE o.pipeline = n.pipeline), managed_by,
    resource_uid, generation, target_hash, target_output, selection, on_missing,` + backfillColumns + `
FROM json_populate_record(NULL::backfills, $1) n
RETURNING row_to_json(backfills)`

// pruneBackfills keeps those whose jobs or events are left. The newest row of a pipeline has its highest number, and stays.
const pruneBackfills = `
DELETE FROM backfills b USING (
    SELECT id FROM backfills WHERE state IN ('complete', 'failed', 'superseded', 'cancelled') ORDER BY id DESC OFFSET $1) old
WHERE b.id = old.id AND b.number < (SELECT max(number) FROM backfills n WHERE n.pipeline = b.pipeline)
    AND NOT EXISTS (SELECT FROM image_jobs j WHERE j.class = 'backfill' AND j.backfill_id = b.id)
    AND NOT EXISTS (SELECT FROM backfill_events e WHERE e.backfill_id = b.id)`

// ProposeBackfill implements backfill.Backfills.
func (s *Store) ProposeBackfill(ctx context.Context, b backfill.Backfill, keep int) (backfill.Backfill, error) {
	var row asJSON[backfillRow]
	err := s.db.transact(ctx, "propose_backfill", func(tx *gorm.DB) error {
		if err := tx.Exec(lockProposals, b.Pipeline).Error; err != nil {
			return err
		}
		if err := tx.Exec(supersedeProposal, b.Pipeline).Error; err != nil {
			return err
		}
		err := tx.Raw(insertBackfill, asJSON[backfillRow]{toBackfillRow(b)}).Row().Scan(&row)
		if violates(err, uniqueViolation, "backfills_resource") {
			return fault.Wrap(err, fault.Conflict, "generation_exists", "this generation of the resource has a backfill")
		}
		if err != nil {
			return fmt.Errorf("insert backfill: %w", err)
		}
		return tx.Exec(pruneBackfills, keep).Error
	})
	if err != nil {
		return backfill.Backfill{}, err
	}
	return row.V.fromRow()
}

const selectBackfill = `
SELECT row_to_json(b) AS backfill, clock_timestamp() AS now FROM backfills b
WHERE pipeline = $1 AND number = $2 FOR UPDATE`

const endLease = `UPDATE backfills SET lease = NULL, due_at = now() WHERE id = $1`

// EditBackfill implements backfill.Backfills.
func (s *Store) EditBackfill(ctx context.Context, name string, fn func(b *backfill.Backfill, now time.Time) error,
) (b backfill.Backfill, err error) {
	err = s.db.transact(ctx, "edit_backfill", func(tx *gorm.DB) error {
		b, err = editBackfill(tx, name, fn)
		return err
	})
	if err != nil {
		return backfill.Backfill{}, err
	}
	return b, nil
}

// editBackfill is EditBackfill in a transaction.
func editBackfill(tx *gorm.DB, name string, fn func(b *backfill.Backfill, now time.Time) error) (backfill.Backfill, error) {
	missing := fault.New(fault.NotFound, "backfill_not_found", "there is no backfill with the name "+name)
	pipeline, number, ok := backfill.ParseName(name)
	if !ok {
		return backfill.Backfill{}, missing
	}
	var row struct {
		Backfill asJSON[backfillRow]
		Now      time.Time
	}
	found := tx.Raw(selectBackfill, pipeline, number).Find(&row)
	if found.Error != nil {
		return backfill.Backfill{}, found.Error
	}
	if found.RowsAffected == 0 {
		return backfill.Backfill{}, missing
	}
	b, err := row.Backfill.V.fromRow()
	if err != nil {
		return b, err
	}
	if err := fn(&b, row.Now.UTC()); err != nil {
		return b, callerError{err}
	}
	if err := tx.Exec(updateBackfill, asJSON[backfillRow]{toBackfillRow(b)}).Error; err != nil {
		return b, err
	}
	return b, tx.Exec(endLease, b.ID).Error
}

const selectBackfills = `SELECT row_to_json(b) AS backfill FROM backfills b ORDER BY id DESC`

// ListBackfills implements backfill.Backfills.
func (s *Store) ListBackfills(ctx context.Context) ([]backfill.Backfill, error) {
	type row struct{ Backfill asJSON[backfillRow] }
	rows, err := query[row](ctx, s.db, "list_backfills", selectBackfills)
	if err != nil {
		return nil, err
	}
	list := make([]backfill.Backfill, len(rows))
	for i, r := range rows {
		if list[i], err = r.Backfill.V.fromRow(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

const selectOpen = `SELECT count(*) FROM backfills WHERE id = $1 AND state = 'running' AND open`

// BackfillOpen implements catalog.Backfills.
func (s *Store) BackfillOpen(ctx context.Context, id int64) (bool, error) {
	open, err := find[int64](ctx, s.db, "backfill_open", nil, selectOpen, id)
	return open > 0, err
}

// acquireWalk prefers the backfill whose step has been due longest.
const acquireWalk = `
UPDATE backfills b SET lease = gen_random_uuid(), due_at = now() + $1 * interval '1 microsecond'
WHERE b.id = (
    SELECT d.id FROM backfills d
    WHERE d.due_at <= now() AND (d.state IN ('approved', 'running')
        OR EXISTS (SELECT FROM image_jobs j WHERE j.class = 'backfill' AND j.backfill_id = d.id)
        OR EXISTS (SELECT FROM backfill_events e WHERE e.backfill_id = d.id)
        OR EXISTS (SELECT FROM backfill_samples s WHERE s.backfill_id = d.id))
    ORDER BY d.due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING row_to_json(b) AS backfill, b.lease::text AS lease, clock_timestamp() AS now,
    EXISTS (SELECT FROM backfills o WHERE o.state = 'running' AND o.id <> b.id) AS other_running,
    EXISTS (SELECT FROM backfill_samples s WHERE s.backfill_id = b.id) AS sampled`

// foldEvents counts the outstanding jobs in the snapshot in which it deletes the events.
const foldEvents = `
WITH folded AS (DELETE FROM backfill_events WHERE backfill_id = $1 RETURNING kind, code)
SELECT coalesce((SELECT json_agg(f) FROM (
        SELECT kind, code, count(*) AS images FROM folded GROUP BY kind, code) f), '[]') AS events,
    (SELECT count(*)::int FROM image_jobs WHERE class = 'backfill' AND backfill_id = $1) AS outstanding`

// eventCount is a number of equal events.
type eventCount struct {
	backfillEventRow
	Images int64 `json:"images"`
}

// AcquireWalk implements backfill.Walks.
func (s *Store) AcquireWalk(ctx context.Context, lease time.Duration) (w backfill.Walk, acquired bool, err error) {
	err = s.db.transact(ctx, "acquire_walk", func(tx *gorm.DB) error {
		var row struct {
			Backfill     asJSON[backfillRow]
			Lease        string
			Now          time.Time
			OtherRunning bool
			Sampled      bool
		}
		found := tx.Raw(acquireWalk, lease.Microseconds()).Find(&row)
		if found.Error != nil {
			return found.Error
		}
		if found.RowsAffected == 0 {
			return errNothing
		}
		b, err := row.Backfill.V.fromRow()
		if err != nil {
			return err
		}
		var folded struct {
			Events      asJSON[[]eventCount]
			Outstanding int
		}
		if err := tx.Raw(foldEvents, b.ID).Find(&folded).Error; err != nil {
			return fmt.Errorf("add events: %w", err)
		}
		before := b
		for _, e := range folded.Events.V {
			b.Add(e.Kind, e.Code, e.Images)
		}
		b.Settle(before, folded.Outstanding, row.Now.UTC())
		w = backfill.Walk{
			Backfill: b, Lease: row.Lease, Outstanding: folded.Outstanding, Sampled: row.Sampled, OtherRunning: row.OtherRunning,
			Now: row.Now.UTC(),
		}
		acquired = true
		return tx.Exec(updateBackfill, asJSON[backfillRow]{toBackfillRow(b)}).Error
	})
	return w, acquired && err == nil, err
}

const lockLease = `SELECT count(*) FROM (SELECT FROM backfills WHERE id = $1 AND lease = $2::uuid FOR UPDATE) locked`

const setDue = `UPDATE backfills SET due_at = now() + $2 * interval '1 microsecond' WHERE id = $1`

// SaveWalk implements backfill.Walks.
func (s *Store) SaveWalk(ctx context.Context, w backfill.Walk, wait time.Duration) (saved bool, err error) {
	err = s.db.transact(ctx, "save_walk", func(tx *gorm.DB) error {
		var held int64
		if err := tx.Raw(lockLease, w.ID, w.Lease).Find(&held).Error; err != nil {
			return err
		}
		if held == 0 {
			return errNothing
		}
		err := tx.Exec(updateBackfill, asJSON[backfillRow]{toBackfillRow(w.Backfill)}).Error
		if violates(err, uniqueViolation, "backfills_one_running") {
			return errNothing
		}
		if err != nil {
			return err
		}
		saved = true
		return tx.Exec(setDue, w.ID, wait.Microseconds()).Error
	})
	return saved && err == nil, err
}

const selectInForce = `SELECT DISTINCT hash FROM heartbeats WHERE role = 'api' AND seen_at > now() - interval '1 minute'`

// InForce implements backfill.Walks.
func (s *Store) InForce(ctx context.Context) ([]string, error) {
	return query[string](ctx, s.db, "in_force", selectInForce)
}
