package postgres

import (
	"context"
	"time"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
)

var (
	_ backfill.Images  = (*Store)(nil)
	_ backfill.Sampler = (*Store)(nil)
)

// imageSelected is backfill.Selection.selects for an image i of a product p. In the JSON $1, same are the hashes of
// pipelines with the output hash of the target, and made_by those with the output hash of the selector. jsonb_exists is the
// operator ?, which gorm would take for a parameter.
const imageSelected = `
CASE WHEN $1::jsonb ->> 'kind' = 'selector' THEN
    i.status = coalesce($1::jsonb ->> 'status', i.status)
    AND (NOT jsonb_exists($1, 'code') OR $1::jsonb ->> 'code' IN (i.error_code, i.reprocess_error))
    AND p.user_id = coalesce(($1::jsonb -> 'user_id')::bigint, p.user_id)
    AND (NOT jsonb_exists($1, 'output_hash') OR i.status = 'ready' AND CASE
        WHEN i.output_hash <> '' OR i.reprocess_error <> '' THEN i.output_hash = $1::jsonb ->> 'output_hash'
        ELSE jsonb_exists($1::jsonb -> 'made_by', i.pipeline_hash) END)
    AND (NOT jsonb_exists($1, 'requested_before') OR coalesce(i.requested_at, '-infinity')
        < ($1::jsonb ->> 'requested_before')::timestamptz)
ELSE
    $1::jsonb ->> 'kind' = 'renditions' AND i.status = 'ready' AND CASE
        WHEN i.output_hash <> '' OR i.reprocess_error <> '' THEN i.output_hash <> $1::jsonb ->> 'target'
        ELSE NOT jsonb_exists($1::jsonb -> 'same', i.pipeline_hash) END
    OR i.status = 'failed' AND coalesce(jsonb_exists($1::jsonb -> 'codes', i.error_code), false)
END`

// criteria are the JSON of imageSelected.
type criteria struct {
	selectionRow

	Target      string   `json:"target"`
	SkipMissing bool     `json:"skip_missing"`
	TargetHash  string   `json:"target_hash"`
	Same        []string `json:"same"`
	MadeBy      []string `json:"made_by"`
}

func toCriteria(b backfill.Backfill, outputs map[string]string) asJSON[criteria] {
	c := criteria{
		selectionRow: toBackfillRow(b).Selection, Target: b.TargetOutput, TargetHash: b.TargetHash,
		Same: []string{b.TargetHash}, MadeBy: []string{}, SkipMissing: b.OnMissing == backfill.SkipMissing,
	}
	for hash, output := range outputs {
		if output == b.TargetOutput && hash != b.TargetHash {
			c.Same = append(c.Same, hash)
		}
		if output == b.Selection.OutputHash {
			c.MadeBy = append(c.MadeBy, hash)
		}
	}
	return asJSON[criteria]{c}
}

// selectCandidates looks at images in the order of ids. An image in work of others is busy if it is selected, or if its job
// may make renditions that have to be made again, or fail for what the target accepts. If no image is found, it returns one
// row without an image.
const selectCandidates = `
WITH scanned AS MATERIALIZED (
    SELECT id, product_id, status, error_code, reprocess_error, pipeline_hash, output_hash, requested_at, backfill_id
    FROM images WHERE id > $2 ORDER BY id LIMIT $3
), considered AS MATERIALIZED (
    SELECT i.id, i.product_id, j.image_id IS NOT NULL AS busy
    FROM scanned i JOIN products p ON p.id = i.product_id LEFT JOIN image_jobs j ON j.image_id = i.id
    WHERE p.deleted_at IS NULL AND i.backfill_id <> $4 AND coalesce(j.backfill_id, 0) <> $4
        AND ((` + imageSelected + `)
            OR $1::jsonb ->> 'kind' = 'renditions' AND NOT jsonb_exists($1::jsonb -> 'same', j.pipeline_hash)
            OR jsonb_exists($1, 'codes') AND j.pipeline_hash <> $1::jsonb ->> 'target_hash')
), found AS (
    SELECT id, product_id FROM considered WHERE NOT busy ORDER BY id LIMIT $5
)
SELECT s.rows, s.last, coalesce(f.product_id, 0) AS product_id, coalesce(f.id, 0) AS image_id,
    (SELECT count(*) FROM considered WHERE busy) AS busy
FROM (SELECT count(*) AS rows, coalesce(max(id), 0) AS last FROM scanned) s LEFT JOIN found f ON true
ORDER BY f.id`

// Candidates implements backfill.Images.
func (s *Store) Candidates(ctx context.Context, b backfill.Backfill, outputs map[string]string, limit backfill.Limit,
) (backfill.Candidates, error) {
	type row struct {
		Rows, Last int64
		ProductID  catalog.ProductID
		ImageID    catalog.ImageID
		Busy       int
	}
	rows, err := query[row](ctx, s.db, "backfill_candidates", selectCandidates, toCriteria(b, outputs), int64(b.Cursor),
		limit.Rows, b.ID, limit.Images)
	if err != nil {
		return backfill.Candidates{}, err
	}
	c := backfill.Candidates{Busy: rows[0].Busy}
	for _, r := range rows {
		if r.ImageID != 0 {
			c.Images = append(c.Images, backfill.ImageRef{ProductID: r.ProductID, ImageID: r.ImageID})
		}
	}
	switch {
	case len(c.Images) == limit.Images:
		c.Next = c.Images[limit.Images-1].ImageID
	case rows[0].Rows == int64(limit.Rows):
		c.Next = catalog.ImageID(rows[0].Last)
	}
	return c, nil
}

const selectLooseJobs = `
SELECT product_id, image_id FROM image_jobs
WHERE class = 'backfill' AND backfill_id = $1
    AND (job_state = 'queued' OR due_at < now() - $2 * interval '1 microsecond')
    AND ($2::bigint = 0 OR released_at < now() - $2 * interval '1 microsecond'
        AND NOT EXISTS (SELECT FROM outbox o WHERE o.event_id = job_id AND o.parked_at IS NULL))
ORDER BY image_id LIMIT $3`

// LooseJobs implements backfill.Images.
func (s *Store) LooseJobs(ctx context.Context, id int64, lost time.Duration, limit int) ([]backfill.ImageRef, error) {
	return query[backfill.ImageRef](ctx, s.db, "loose_jobs", selectLooseJobs, id, lost.Microseconds(), limit)
}

const selectSpecs = `SELECT hash, spec::text AS document FROM pipelines ORDER BY created_at DESC LIMIT 1000`

// Outputs implements backfill.Images. A document that can no longer be parsed has no output hash.
func (s *Store) Outputs(ctx context.Context) (map[string]string, error) {
	type row struct{ Hash, Document string }
	rows, err := query[row](ctx, s.db, "pipeline_outputs", selectSpecs)
	if err != nil {
		return nil, err
	}
	outputs := make(map[string]string, len(rows))
	for _, r := range rows {
		if p, err := pipeline.ParseStored([]byte(r.Document), r.Hash); err == nil {
			outputs[r.Hash] = p.Spec.OutputHash()
		}
	}
	return outputs, nil
}

const selectPrevious = `SELECT hash FROM pipelines WHERE hash <> $1 ORDER BY created_at DESC LIMIT 1`

// PreviousPipeline returns the hash of the pipeline that was saved last, except for one. fault.NotFound if there is none.
func (s *Store) PreviousPipeline(ctx context.Context, except string) (string, error) {
	missing := fault.New(fault.NotFound, "pipeline_not_found", "there is no other pipeline")
	return find[string](ctx, s.db, "previous_pipeline", missing, selectPrevious, except)
}

// sampleImages: kept says that the image has an original, skipped that it has none and would need one.
const sampleImages = `
WITH matched AS MATERIALIZED (
    SELECT i.original_key <> '' AS kept, i.original_key = '' AND ($1::jsonb -> 'skip_missing')::boolean AS skipped,
        i.source_bytes::float8 AS source, coalesce(
        (SELECT sum((r ->> 'bytes')::bigint) FROM jsonb_array_elements(i.renditions) r), 0)::float8 AS stored
    FROM images i JOIN products p ON p.id = i.product_id
    WHERE i.id = ANY($2::bigint[]) AND p.deleted_at IS NULL AND (` + imageSelected + `))
SELECT count(*) AS matched, count(*) FILTER (WHERE NOT kept) AS no_original,
    coalesce(sum(source) FILTER (WHERE NOT kept AND NOT skipped), 0) AS source,
    coalesce(sum(source * source) FILTER (WHERE NOT kept AND NOT skipped), 0) AS source_squares,
    coalesce(sum(stored) FILTER (WHERE NOT skipped), 0) AS stored,
    coalesce(sum(stored * stored) FILTER (WHERE NOT skipped), 0) AS stored_squares
FROM matched`

// Sample implements backfill.Sampler.
func (s *Store) Sample(ctx context.Context, b backfill.Backfill, outputs map[string]string, ids []int64,
) (backfill.Sample, error) {
	type row struct {
		Matched, NoOriginal                          int64
		Source, SourceSquares, Stored, StoredSquares float64
	}
	r, err := find[row](ctx, s.db, "sample_images", nil, sampleImages, toCriteria(b, outputs), ids)
	return backfill.Sample{
		Matched:     r.Matched,
		NoOriginal:  r.NoOriginal,
		SourceBytes: backfill.Moments{Sum: r.Source, Squares: r.SourceSquares},
		StoredBytes: backfill.Moments{Sum: r.Stored, Squares: r.StoredSquares},
	}, err
}
