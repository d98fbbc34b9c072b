package postgres

import (
	"context"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
)

// startDue selects rows in a materialized CTE. A subselect of the UPDATE could be evaluated once for each row and exceed the
// limit. Two garbage collectors never start the same deletion, because the second skips the locked row or finds it started.
const startDue = `
WITH due AS MATERIALIZED (
    SELECT prefix FROM scheduled_deletions WHERE started_at IS NULL AND due_at <= now()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
UPDATE scheduled_deletions d SET started_at = now(), due_at = now() + $2 * interval '1 microsecond'
FROM due WHERE d.prefix = due.prefix
RETURNING d.prefix`

// StartDue implements maintenance.Deletions.
func (s *Store) StartDue(ctx context.Context, limit int, secondPass time.Duration) ([]string, error) {
	return query[string](ctx, s.db, "start_due_deletions", startDue, limit, secondPass.Microseconds())
}

const claimStarted = `
WITH due AS MATERIALIZED (
    SELECT prefix FROM scheduled_deletions WHERE started_at IS NOT NULL AND due_at <= now()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
UPDATE scheduled_deletions d SET due_at = now() + $2 * interval '1 microsecond'
FROM due WHERE d.prefix = due.prefix
RETURNING d.prefix`

// ClaimSecondPass implements maintenance.Deletions.
func (s *Store) ClaimSecondPass(ctx context.Context, limit int, lease time.Duration) ([]string, error) {
	return query[string](ctx, s.db, "claim_second_pass", claimStarted, limit, lease.Microseconds())
}

// deleteStarted does not wait for locks, so that it cannot deadlock with an edit that schedules the same deletions. A row
// that it skips is claimed again after its lease.
const deleteStarted = `
WITH done AS MATERIALIZED (
    SELECT prefix FROM scheduled_deletions WHERE prefix = ANY($1) AND started_at IS NOT NULL FOR UPDATE SKIP LOCKED)
DELETE FROM scheduled_deletions d USING done WHERE d.prefix = done.prefix`

// Remove implements maintenance.Deletions.
func (s *Store) Remove(ctx context.Context, prefixes []string) error {
	_, err := s.db.exec(ctx, "remove_deletions", deleteStarted, prefixes)
	return err
}

// selectOverdue reads the clock in a CTE, so that it is one time for all rows. The jobs in flight are few. Those of
// backfills are left out: their walk removes them.
const selectOverdue = `
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
SELECT clock.now, j.product_id, j.image_id, j.released_at
FROM clock LEFT JOIN (
    SELECT product_id, image_id, released_at FROM image_jobs, clock
    WHERE released_at < clock.now - $4 * interval '1 microsecond' AND due_at < clock.now - $4 * interval '1 microsecond'
        AND class <> 'backfill' AND (released_at, image_id) > ($1, $2)
        AND NOT EXISTS (SELECT FROM outbox o WHERE o.event_id = job_id AND o.parked_at IS NULL)
    ORDER BY released_at, image_id LIMIT $3) j ON true
ORDER BY j.released_at, j.image_id`

// OverdueJobs implements maintenance.OverdueJobs.
func (s *Store) OverdueJobs(ctx context.Context, after maintenance.ReleasedJob, limit int, overdue time.Duration,
) (jobs []maintenance.ReleasedJob, now time.Time, err error) {
	type row struct {
		Now        time.Time
		ProductID  *catalog.ProductID
		ImageID    *catalog.ImageID
		ReleasedAt *time.Time
	}
	rows, err := query[row](ctx, s.db, "overdue_jobs", selectOverdue, after.ReleasedAt, int64(after.ImageID), limit,
		overdue.Microseconds())
	if err != nil {
		return nil, time.Time{}, err
	}
	for _, r := range rows {
		if r.ImageID != nil {
			jobs = append(jobs, maintenance.ReleasedJob{
				ImageRef:   maintenance.ImageRef{ProductID: *r.ProductID, ImageID: *r.ImageID},
				ReleasedAt: r.ReleasedAt.UTC(),
			})
		}
	}
	return jobs, rows[0].Now.UTC(), nil
}

// purgeDeleted deletes the images, too, by ON DELETE CASCADE.
const purgeDeleted = `
WITH old AS MATERIALIZED (
    SELECT id FROM products WHERE deleted_at < now() - $2 * interval '1 microsecond'
    ORDER BY deleted_at LIMIT $1 FOR UPDATE SKIP LOCKED)
DELETE FROM products p USING old WHERE p.id = old.id`

// PurgeDeleted implements maintenance.Purger.
func (s *Store) PurgeDeleted(ctx context.Context, limit int, after time.Duration) (int, error) {
	return s.purge(ctx, "purge_deleted", purgeDeleted, limit, after)
}

func (s *Store) purge(ctx context.Context, method, statement string, limit int, after time.Duration) (int, error) {
	purged, err := s.db.exec(ctx, method, statement, limit, after.Microseconds())
	return int(purged), err
}

// maxScannedRows bounds the rows that one selection reads, so that it ends in time even if few of them match.
const maxScannedRows = 20_000

// selectMatching walks the primary key, because selections are rare and may match any number of images. If no image matches,
// it returns one row without an image, for rows and last.
const selectMatching = `
WITH scanned AS MATERIALIZED (
    SELECT id, product_id, status, error_code, reprocess_error, requested_at, pipeline_hash FROM images
    WHERE id > $1 ORDER BY id LIMIT $7)
SELECT s.rows, s.last, coalesce(f.product_id, 0) AS product_id, coalesce(f.id, 0) AS image_id
FROM (SELECT count(*) AS rows, coalesce(max(id), 0) AS last FROM scanned) s LEFT JOIN (
    SELECT i.product_id, i.id FROM scanned i JOIN products p ON p.id = i.product_id
    WHERE p.deleted_at IS NULL AND NOT EXISTS (SELECT FROM image_jobs j WHERE j.image_id = i.id)
        AND ($3::text = '' OR i.status = $3) AND ($4::text = '' OR i.error_code = $4 OR i.reprocess_error = $4)
        AND ($5::bigint = 0 OR i.requested_at < now() - $5 * interval '1 microsecond')
        AND ($6::text = '' OR i.pipeline_hash = $6)
    ORDER BY i.id LIMIT $2) f ON true
ORDER BY f.id`

// SelectImages implements maintenance.ImageFinder.
func (s *Store) SelectImages(ctx context.Context, filter catalog.Filter, after catalog.ImageID, limit int,
) (found []maintenance.ImageRef, next catalog.ImageID, err error) {
	type row struct {
		Rows, Last int64
		ProductID  catalog.ProductID
		ImageID    catalog.ImageID
	}
	rows, err := query[row](ctx, s.db, "select_images", selectMatching, int64(after), limit, string(filter.Status),
		string(filter.Code), filter.OlderThan.Microseconds(), filter.PipelineHash, maxScannedRows)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range rows {
		if r.ImageID != 0 {
			found = append(found, maintenance.ImageRef{ProductID: r.ProductID, ImageID: r.ImageID})
		}
	}
	switch {
	case len(found) == limit && limit > 0:
		next = found[limit-1].ImageID
	case rows[0].Rows == maxScannedRows:
		next = catalog.ImageID(rows[0].Last)
	}
	return found, next, nil
}
