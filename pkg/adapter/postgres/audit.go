package postgres

import (
	"context"
	"slices"
	"strings"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/media"
)

var (
	_ maintenance.Checkpoints = (*Store)(nil)
	_ maintenance.References  = (*Store)(nil)
)

// acquireScan reads the cursor and sets the next time in one statement: of two concurrent calls, the second waits for the
// first, and then the scan is not due any more.
const acquireScan = `
INSERT INTO checkpoints (name, due_at) VALUES ($1, now() + $2 * interval '1 microsecond')
ON CONFLICT (name) DO UPDATE SET due_at = excluded.due_at WHERE checkpoints.due_at <= now()
RETURNING cursor`

// Acquire implements maintenance.Checkpoints.
func (s *Store) Acquire(ctx context.Context, name string, interval time.Duration) (cursor string, acquired bool, err error) {
	cursors, err := query[string](ctx, s.db, "acquire_checkpoint", acquireScan, name, interval.Microseconds())
	if err != nil || len(cursors) == 0 {
		return "", false, err
	}
	return cursors[0], true, nil
}

const saveCursor = `
INSERT INTO checkpoints (name, cursor, due_at) VALUES ($1, $2, now() + $3 * interval '1 microsecond')
ON CONFLICT (name) DO UPDATE SET cursor = excluded.cursor, due_at = excluded.due_at`

// SaveCursor implements maintenance.Checkpoints.
func (s *Store) SaveCursor(ctx context.Context, name, cursor string, wait time.Duration) error {
	_, err := s.db.exec(ctx, "save_cursor", saveCursor, name, cursor, wait.Microseconds())
	return err
}

// unreferenced is used within one statement, so it reads one snapshot. An attempt that finishes at the same time is
// therefore in the snapshot either with its scheduled deletion or as published.
const unreferenced = `
FROM json_to_recordset($1) AS n (prefix text, image_id bigint, delay bigint)
WHERE NOT EXISTS (SELECT FROM scheduled_deletions x WHERE x.prefix = n.prefix)
    AND NOT EXISTS (
        SELECT FROM images i JOIN products p ON p.id = i.product_id
        WHERE i.id = n.image_id AND p.deleted_at IS NULL
            AND (EXISTS (SELECT FROM image_jobs j WHERE j.image_id = i.id AND j.prefix = n.prefix)
                OR EXISTS (SELECT FROM jsonb_array_elements(i.renditions) r WHERE starts_with(r ->> 'key', n.prefix))))`

const selectUnreferenced = `SELECT n.prefix, n.image_id, n.delay * 1000 AS delay ` + unreferenced + ` ORDER BY n.prefix`

// Unreferenced implements maintenance.References.
func (s *Store) Unreferenced(ctx context.Context, prefixes []catalog.ScheduledDeletion,
) ([]catalog.ScheduledDeletion, error) {
	return query[catalog.ScheduledDeletion](ctx, s.db, "unreferenced", selectUnreferenced, toDeletionRows(prefixes))
}

const scheduleOrphans = `
INSERT INTO scheduled_deletions (prefix, image_id, due_at)
SELECT n.prefix, n.image_id, now() + n.delay * interval '1 microsecond' ` + unreferenced + `
ON CONFLICT (prefix) DO NOTHING`

// ScheduleOrphans implements maintenance.References.
func (s *Store) ScheduleOrphans(ctx context.Context, prefixes []catalog.ScheduledDeletion) (int, error) {
	written, err := s.db.exec(ctx, "schedule_orphans", scheduleOrphans, toDeletionRows(prefixes))
	return int(written), err
}

const selectPublished = `
SELECT i.product_id, i.id AS image_id, i.fencing_token, i.reprocess_error, i.renditions
FROM images i JOIN products p ON p.id = i.product_id
WHERE i.id > $1 AND i.status = 'ready' AND p.deleted_at IS NULL
    AND NOT EXISTS (SELECT FROM image_jobs j WHERE j.image_id = i.id)
ORDER BY i.id LIMIT $2`

// Published implements maintenance.References.
func (s *Store) Published(ctx context.Context, after catalog.ImageID, limit int) ([]maintenance.Published, error) {
	type row struct {
		ProductID      catalog.ProductID
		ImageID        catalog.ImageID
		FencingToken   int64
		ReprocessError media.Code
		Renditions     asJSON[[]renditionRow]
	}
	rows, err := query[row](ctx, s.db, "published", selectPublished, int64(after), limit)
	if err != nil {
		return nil, err
	}
	found := make([]maintenance.Published, len(rows))
	for i, r := range rows {
		found[i] = maintenance.Published{
			ImageRef:     maintenance.ImageRef{ProductID: r.ProductID, ImageID: r.ImageID},
			FencingToken: r.FencingToken, ReprocessError: r.ReprocessError, Objects: objectsOf(r.Renditions.V),
		}
	}
	return found, nil
}

// objectsOf returns the objects of renditions, sorted by key. Equal renditions share one object.
func objectsOf(renditions []renditionRow) []maintenance.Object {
	objects := make([]maintenance.Object, len(renditions))
	for i, r := range renditions {
		objects[i] = maintenance.Object{Key: r.Key, Size: r.Bytes}
	}
	slices.SortFunc(objects, func(a, b maintenance.Object) int { return strings.Compare(a.Key, b.Key) })
	return slices.Compact(objects)
}
