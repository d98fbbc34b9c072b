package postgres

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/media"
)

var (
	_ backfill.Canaries = (*Store)(nil)
	_ worker.Samples    = (*Store)(nil)
)

const pickSamples = `
SELECT i.product_id, i.id AS image_id FROM images i JOIN products p ON p.id = i.product_id
WHERE i.id = ANY($2::bigint[]) AND p.deleted_at IS NULL AND (` + imageSelected + `)
    AND NOT (i.original_key = '' AND ($1::jsonb -> 'skip_missing')::boolean)
ORDER BY random() LIMIT $3`

// PickSamples implements backfill.Canaries.
func (s *Store) PickSamples(ctx context.Context, b backfill.Backfill, outputs map[string]string, ids []int64, limit int,
) ([]backfill.ImageRef, error) {
	return query[backfill.ImageRef](ctx, s.db, "pick_samples", pickSamples, toCriteria(b, outputs), ids, limit)
}

const deleteSamples = `DELETE FROM backfill_samples WHERE backfill_id = $1`

const insertSamples = `
INSERT INTO backfill_samples (backfill_id, image_id, product_id)
SELECT $1, image_id, product_id FROM json_to_recordset($2) AS n (image_id bigint, product_id bigint)`

// StartCanary implements backfill.Canaries.
func (s *Store) StartCanary(ctx context.Context, name string, images []backfill.ImageRef,
	fn func(b *backfill.Backfill, now time.Time) error,
) (b backfill.Backfill, err error) {
	type row struct {
		ProductID catalog.ProductID `json:"product_id"`
		ImageID   catalog.ImageID   `json:"image_id"`
	}
	rows := make([]row, len(images))
	for i, img := range images {
		rows[i] = row(img)
	}
	err = s.db.transact(ctx, "start_canary", func(tx *gorm.DB) error {
		if b, err = editBackfill(tx, name, fn); err != nil {
			return err
		}
		if err := tx.Exec(deleteSamples, b.ID).Error; err != nil {
			return fmt.Errorf("delete samples: %w", err)
		}
		return execRows(tx, "insert samples", len(rows), nil, insertSamples, b.ID, asJSON[[]row]{rows})
	})
	if err != nil {
		return backfill.Backfill{}, err
	}
	return b, nil
}

// sendSamples sends a sample again from due_at on: it was lost, or its attempt has crashed.
const sendSamples = `
WITH picked AS MATERIALIZED (
    SELECT id, image_id FROM backfill_samples
    WHERE backfill_id = $1 AND state IN ('waiting', 'sent') AND due_at <= now()
    ORDER BY due_at, id
    LIMIT (SELECT greatest($2 - count(*), 0) FROM backfill_samples
        WHERE backfill_id = $1 AND state = 'sent' AND due_at > now())
    FOR UPDATE SKIP LOCKED)
UPDATE backfill_samples s SET state = 'sent', due_at = now() + $3 * interval '1 microsecond'
FROM picked LEFT JOIN images i ON i.id = picked.image_id, backfills b WHERE s.id = picked.id AND b.id = s.backfill_id
RETURNING s.id::text AS id, s.product_id, s.image_id, b.target_hash, coalesce(i.source_url, '') AS source_url,
    coalesce(i.original_key, '') <> '' AS kept`

// SendSamples implements backfill.Canaries.
func (s *Store) SendSamples(ctx context.Context, id int64, inFlight int, lost time.Duration) (sent int, err error) {
	err = s.db.transact(ctx, "send_samples", func(tx *gorm.DB) error {
		var rows []struct {
			ID                    string
			ProductID, ImageID    int64
			TargetHash, SourceURL string
			Kept                  bool // its original
		}
		if err := tx.Raw(sendSamples, id, inFlight, lost.Microseconds()).Find(&rows).Error; err != nil {
			return err
		}
		if len(rows) == 0 {
			return errNothing
		}
		out := make([]catalog.Outgoing, len(rows))
		for i, r := range rows {
			body := event.ImageCanary{
				ProductID: r.ProductID, ImageID: r.ImageID, SourceURL: r.SourceURL, PipelineHash: r.TargetHash, BackfillID: id,
			}
			if r.Kept {
				body.Source = event.SourceOriginal
			}
			out[i].Message = event.New(r.ID, event.Key(r.ProductID), body)
		}
		sent = len(out)
		return send(tx, out)
	})
	if err != nil {
		return 0, err
	}
	return sent, nil
}

const selectSamples = `
SELECT image_id, state, code, result FROM backfill_samples WHERE backfill_id = $1 ORDER BY image_id LIMIT 1000`

// Samples implements backfill.Canaries.
func (s *Store) Samples(ctx context.Context, id int64) ([]backfill.CanarySample, error) {
	type row struct {
		ImageID catalog.ImageID
		State   backfill.SampleState
		Code    media.Code
		Result  asJSON[sampleResultRow]
	}
	rows, err := query[row](ctx, s.db, "samples", selectSamples, id)
	if err != nil {
		return nil, err
	}
	samples := make([]backfill.CanarySample, len(rows))
	for i, r := range rows {
		samples[i] = backfill.CanarySample{ImageID: r.ImageID, State: r.State, SampleOutcome: r.Result.V.fromRow(r.Code)}
	}
	return samples, nil
}

// dropSamples leaves the samples of a canary that was started meanwhile.
const dropSamples = `
DELETE FROM backfill_samples s USING backfills b
WHERE s.backfill_id = $1 AND b.id = $1 AND b.canary ->> 'state' IS DISTINCT FROM 'running'`

// DropSamples implements backfill.Canaries.
func (s *Store) DropSamples(ctx context.Context, id int64) error {
	_, err := s.db.exec(ctx, "drop_samples", dropSamples, id)
	return err
}

// beginSample gives the attempt a prefix that cannot be guessed. It begins no sample of a backfill that is suspended: that
// waits until the walk sends it again.
const beginSample = `
UPDATE backfill_samples s SET attempts = s.attempts + 1, state = 'sent',
    due_at = greatest(s.due_at, now() + $2 * interval '1 microsecond'),
    prefix = format('canary/%s/%s-%s/', s.backfill_id, s.image_id, replace(gen_random_uuid()::text, '-', ''))
FROM backfills b
WHERE s.id = $1::uuid AND s.state IN ('waiting', 'sent') AND b.id = s.backfill_id AND b.suspended = ''
    AND b.state IN ('proposed', 'approved') AND b.canary ->> 'state' = 'running'
RETURNING s.id::text AS id, s.backfill_id, s.image_id, s.product_id, s.attempts AS number, s.prefix`

const restSample = `
UPDATE backfill_samples SET state = 'waiting', due_at = now() WHERE id = $1::uuid AND state = 'sent' AND EXISTS (
    SELECT FROM backfills b WHERE b.id = backfill_id AND b.suspended <> '')`

const selectSampleImage = `
SELECT p.user_id, i.source_url, i.source_sha256, i.source_bytes, i.original_key, i.renditions,
    CASE WHEN i.reprocess_error = '' THEN i.pipeline_hash ELSE '' END AS made_by -- the hash is of the last request
FROM images i JOIN products p ON p.id = i.product_id
WHERE i.id = $1 AND i.product_id = $2 AND p.deleted_at IS NULL`

// sampleImageRow is the image of a sample.
type sampleImageRow struct {
	UserID                          catalog.UserID
	SourceURL, SourceSHA256, MadeBy string
	SourceBytes                     int64
	OriginalKey                     string
	Renditions                      asJSON[[]renditionRow]
}

// begunSampleRow is what beginSample returns.
type begunSampleRow struct {
	ID         string
	BackfillID int64
	ImageID    catalog.ImageID
	ProductID  catalog.ProductID
	Number     int
	Prefix     string
}

func (r begunSampleRow) fromRow() backfill.SampleAttempt {
	return backfill.SampleAttempt{
		ID: r.ID, BackfillID: r.BackfillID, ImageID: r.ImageID, ProductID: r.ProductID, Number: r.Number, Prefix: r.Prefix,
	}
}

// BeginSample implements worker.Samples.
func (s *Store) BeginSample(ctx context.Context, id string, budget, keep time.Duration) (backfill.SampleAttempt, error) {
	var a backfill.SampleAttempt
	err := s.db.transact(ctx, "begin_sample", func(tx *gorm.DB) error {
		var begun begunSampleRow
		found := tx.Raw(beginSample, id, budget.Microseconds()).Find(&begun)
		if found.Error != nil {
			return found.Error
		}
		if found.RowsAffected == 0 {
			return tx.Exec(restSample, id).Error
		}
		a = begun.fromRow()
		var img sampleImageRow
		read := tx.Raw(selectSampleImage, int64(a.ImageID), int64(a.ProductID)).Find(&img)
		if read.Error != nil {
			return fmt.Errorf("read image: %w", read.Error)
		}
		gone := read.RowsAffected == 0
		if gone || a.Number > backfill.MaxSampleAttempts {
			code := media.WorkerCrashed
			if gone {
				code = backfill.SampleGone
			}
			a.ID = ""
			return tx.Exec(endSample, id, a.Prefix, backfill.SampleFailed, code, asJSON[sampleResultRow]{}).Error
		}
		a.UserID, a.SourceURL, a.SourceSHA256, a.MadeBy = img.UserID, img.SourceURL, img.SourceSHA256, img.MadeBy
		if img.OriginalKey != "" {
			a.Original = catalog.Original{Key: img.OriginalKey, SHA256: img.SourceSHA256, Bytes: img.SourceBytes}
		}
		for _, r := range img.Renditions.V {
			a.Renditions = append(a.Renditions, catalog.Rendition(r.renditionFields))
		}
		return execRows(tx, "schedule deletion", 1, nil, insertScheduledDeletions,
			toDeletionRows([]catalog.ScheduledDeletion{{Prefix: a.Prefix, ImageID: a.ImageID, Delay: keep}}))
	})
	if err != nil {
		return backfill.SampleAttempt{}, err
	}
	if a.ID == "" {
		return backfill.SampleAttempt{}, catalog.ErrDone
	}
	return a, nil
}

const endSample = `
UPDATE backfill_samples SET state = $3, code = $4, result = $5
WHERE id = $1::uuid AND prefix = $2 AND state IN ('waiting', 'sent')`

// EndSample implements worker.Samples.
func (s *Store) EndSample(ctx context.Context, a backfill.SampleAttempt, state backfill.SampleState,
	o backfill.SampleOutcome,
) error {
	written, err := s.db.exec(ctx, "end_sample", endSample, a.ID, a.Prefix, state, o.Code,
		asJSON[sampleResultRow]{toSampleResultRow(o)})
	if err == nil && written == 0 {
		return catalog.ErrSuperseded
	}
	return err
}

// postponeSample is safe to repeat, except that it may take back two attempts.
const postponeSample = `
UPDATE backfill_samples SET state = 'waiting', due_at = now() + $3 * interval '1 microsecond',
    attempts = CASE WHEN $4::boolean OR $2::text = '' THEN attempts ELSE greatest(attempts - 1, 0) END
WHERE id = $1::uuid AND ($2::text = '' OR prefix = $2::text) AND state = 'sent'`

// PostponeSample implements worker.Samples.
func (s *Store) PostponeSample(ctx context.Context, a backfill.SampleAttempt, delay time.Duration, counts bool) error {
	_, err := s.db.exec(ctx, "postpone_sample", postponeSample, a.ID, a.Prefix, delay.Microseconds(), counts)
	return err
}
