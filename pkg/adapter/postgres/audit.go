package postgres

import (
	"context"
	"slices"
	"strings"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/media"
)

var _ maintenance.References = (*Store)(nil)

// unreferenced is used within one statement, so it reads one snapshot. An attempt that finishes at the same time is
// therefore in the snapshot either with its scheduled deletion or as published.
const unreferenced = `
FROM json_to_recordset($1) AS n (prefix text, image_id bigint, delay bigint)
WHERE NOT EXISTS (SELECT FROM scheduled_deletions x WHERE x.prefix = n.prefix)
    AND NOT EXISTS (
        SELECT FROM images i JOIN products p ON p.id = i.product_id
        WHERE i.id = n.image_id AND p.deleted_at IS NULL
            AND (starts_with(i.original_key, n.prefix)
                OR EXISTS (SELECT FROM image_jobs j WHERE j.image_id = i.id AND j.prefix = n.prefix)
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

// selectPublished reads a limited number of rows, published or not, so that it ends in time within long runs of rows that
// are not published.
const selectPublished = `
WITH scanned AS MATERIALIZED (
    SELECT id, product_id, status, fencing_token, reprocess_error, renditions, original_key, source_bytes FROM images
    WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3)
SELECT i.product_id, i.id AS image_id, i.fencing_token, i.reprocess_error, i.original_key, i.source_bytes,
    CASE WHEN i.status = 'ready' AND p.deleted_at IS NULL
        AND NOT EXISTS (SELECT FROM image_jobs j WHERE j.image_id = i.id) THEN i.renditions END AS renditions
FROM scanned i JOIN products p ON p.id = i.product_id
ORDER BY i.id`

// Published implements maintenance.References.
func (s *Store) Published(ctx context.Context, after, until catalog.ImageID, limit int,
) (found []maintenance.Published, next catalog.ImageID, err error) {
	type row struct {
		ProductID      catalog.ProductID
		ImageID        catalog.ImageID
		FencingToken   int64
		ReprocessError media.Code
		OriginalKey    string
		SourceBytes    int64
		Renditions     asJSON[*[]renditionRow] // nil: the image is not published
	}
	rows, err := query[row](ctx, s.db, "published", selectPublished, int64(after), int64(until), limit)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range rows {
		if r.Renditions.V == nil {
			continue
		}
		p := maintenance.Published{
			ImageRef:     maintenance.ImageRef{ProductID: r.ProductID, ImageID: r.ImageID},
			FencingToken: r.FencingToken, ReprocessError: r.ReprocessError, Objects: objectsOf(*r.Renditions.V),
		}
		if r.OriginalKey != "" {
			p.Original = maintenance.Object{Key: r.OriginalKey, Size: r.SourceBytes}
		}
		found = append(found, p)
	}
	if len(rows) == limit && limit > 0 {
		next = rows[limit-1].ImageID
	}
	return found, next, nil
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
