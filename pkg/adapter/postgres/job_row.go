package postgres

import (
	"time"

	"vitrine.io/pkg/domain/catalog"
)

// jobRow is a row of image_jobs. It is read and written as JSON, as imageRow is. While it exists, its attempts, fencing
// token, prefix, pipeline hash and time of request replace those of the image's row.
type jobRow struct {
	ImageID            catalog.ImageID   `json:"image_id"`
	ProductID          catalog.ProductID `json:"product_id"`
	UserID             catalog.UserID    `json:"user_id"`
	Host               string            `json:"host"`
	Class              catalog.Class     `json:"class"`
	JobState           catalog.JobState  `json:"job_state"`
	JobID              string            `json:"job_id"`
	Traceparent        string            `json:"traceparent"`
	FencingToken       int64             `json:"fencing_token"`
	UnreportedAttempts int               `json:"unreported_attempts"`
	Attempts           int               `json:"attempts"`
	Prefix             string            `json:"prefix"`
	PoisonSHA256       string            `json:"poison_sha256"`
	PipelineHash       string            `json:"pipeline_hash"`
	RequestedAt        time.Time         `json:"requested_at"`
	NotBefore          time.Time         `json:"not_before"`
	ReleasedAt         time.Time         `json:"released_at,omitzero"` // NULL: the job waits
	DueAt              time.Time         `json:"due_at"`
	DeferredSince      time.Time         `json:"deferred_since,omitzero"`
	BackfillID         int64             `json:"backfill_id"`
	SkipMissing        bool              `json:"skip_missing"`
}

// jobColumns are the columns of a job that an update may change.
const jobColumns = ` host, class, job_state, job_id, traceparent, fencing_token, unreported_attempts, attempts, prefix,
    poison_sha256, pipeline_hash, requested_at, not_before, released_at, due_at, deferred_since, backfill_id,
    skip_missing `

// toJobRow returns the row of the image's job, or nil if it is idle.
func toJobRow(p catalog.Product, img catalog.Image) *jobRow {
	if img.JobState == catalog.Idle {
		return nil
	}
	r := &jobRow{
		ImageID: img.ID, ProductID: p.ID, UserID: p.UserID, Host: img.Host, Class: img.Class, JobState: img.JobState,
		JobID: img.JobID, Traceparent: img.Traceparent, FencingToken: img.FencingToken,
		UnreportedAttempts: img.UnreportedAttempts, Attempts: img.Attempts, Prefix: img.Prefix, PoisonSHA256: img.PoisonSHA256,
		PipelineHash: img.PipelineHash, RequestedAt: toTime(img.RequestedAt), NotBefore: toTime(img.NotBefore),
		ReleasedAt: toTime(img.ReleasedAt), DueAt: toTime(img.DueAt), DeferredSince: toTime(img.DeferredSince),
		BackfillID: img.Backfill.ID,
	}
	if b := img.Backfill; b.ID != 0 {
		r.Attempts, r.PipelineHash, r.RequestedAt = b.Attempts, b.PipelineHash, toTime(b.RequestedAt)
		r.SkipMissing = b.SkipMissing
	}
	return r
}

// addTo sets the fields of img that the job has. The job of a backfill leaves those that an outcome for clients changes.
func (r jobRow) addTo(img *catalog.Image) {
	img.JobState, img.JobID, img.Class, img.Host, img.Traceparent = r.JobState, r.JobID, r.Class, r.Host, r.Traceparent
	img.UnreportedAttempts, img.PoisonSHA256 = r.UnreportedAttempts, r.PoisonSHA256
	img.FencingToken, img.Prefix = r.FencingToken, r.Prefix
	img.NotBefore, img.ReleasedAt = r.NotBefore.UTC(), r.ReleasedAt.UTC()
	img.DueAt, img.DeferredSince = r.DueAt.UTC(), r.DeferredSince.UTC()
	img.Backfill = catalog.BackfillJob{}
	if r.BackfillID != 0 {
		img.Backfill = catalog.BackfillJob{
			ID: r.BackfillID, PipelineHash: r.PipelineHash, Attempts: r.Attempts, RequestedAt: r.RequestedAt.UTC(),
			SkipMissing: r.SkipMissing,
		}
		return
	}
	img.Attempts, img.PipelineHash, img.RequestedAt = r.Attempts, r.PipelineHash, r.RequestedAt.UTC()
}

// withoutJob returns img without the fields that only a job has.
func withoutJob(img catalog.Image) catalog.Image {
	jobRow{
		Attempts: img.Attempts, FencingToken: img.FencingToken, Prefix: img.Prefix, PipelineHash: img.PipelineHash,
		RequestedAt: img.RequestedAt,
	}.addTo(&img)
	return img
}

// keepOutcome gives an image row with a job the values that only an outcome changes, as the row had them before.
func (r *imageRow) keepOutcome(before imageRow) {
	r.Attempts, r.FencingToken, r.Prefix = before.Attempts, before.FencingToken, before.Prefix
	r.PipelineHash, r.RequestedAt = before.PipelineHash, before.RequestedAt
}
