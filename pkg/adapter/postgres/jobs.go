package postgres

import (
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/scheduler"
)

// errJobReleased means that the scheduler has released a job since the edit read it. The edit starts again.
var errJobReleased = errors.New("a job was released during the edit")

// maxEdits is how often an edit starts again. The scheduler releases a job once, so the second edit is usually the last.
const maxEdits = 5

const deleteJobs = `DELETE FROM image_jobs WHERE image_id = ANY($1)`

// updateJobs writes changed jobs, if each is as the edit has read it: the scheduler releases jobs without the lock on their
// product.
const updateJobs = `
UPDATE image_jobs j SET (` + jobColumns + `) = (SELECT` + jobColumns + `FROM (SELECT n.*) changed)
FROM json_populate_recordset(NULL::image_jobs, $1) n
JOIN json_populate_recordset(NULL::image_jobs, $2) was ON was.image_id = n.image_id
WHERE j.image_id = n.image_id AND j.job_id = was.job_id AND j.released_at IS NOT DISTINCT FROM was.released_at`

// insertJobs releases live jobs that are due, as long as the released jobs of their host are fewer than $2, and all released
// jobs fewer than $3. Each count stops at its limit. Transactions do not see each other's jobs, so together they may exceed
// both.
const insertJobs = `
WITH n AS MATERIALIZED (
    SELECT j.*, row_number() OVER (PARTITION BY j.host ORDER BY j.image_id) AS of_host,
        row_number() OVER (ORDER BY j.image_id) AS of_all
    FROM json_populate_recordset(NULL::image_jobs, $1) j
), hosts AS MATERIALIZED (
    SELECT h.host, (SELECT count(*) FROM (
        SELECT FROM image_jobs b
        WHERE b.host = h.host AND b.released_at IS NOT NULL AND b.class <> 'backfill' LIMIT $2) capped) AS in_flight
    FROM (SELECT DISTINCT host FROM n) h
), everything AS MATERIALIZED (
    SELECT count(*) AS in_flight FROM (
        SELECT FROM image_jobs b WHERE b.released_at IS NOT NULL AND b.class <> 'backfill' LIMIT $3) capped
)
INSERT INTO image_jobs (image_id, product_id, user_id,` + jobColumns + `)
SELECT n.image_id, n.product_id, n.user_id, n.host, n.class, n.job_state, n.job_id, n.traceparent, n.fencing_token,
    n.unreported_attempts, n.attempts, n.prefix, n.poison_sha256, n.pipeline_hash, n.requested_at, n.not_before,
    CASE WHEN n.class = 'live' AND n.job_state = 'queued' AND n.not_before <= clock_timestamp()
        AND h.in_flight + n.of_host <= $2 AND e.in_flight + n.of_all <= $3 THEN clock_timestamp() END,
    n.due_at, n.deferred_since, n.backfill_id, n.skip_missing
FROM n JOIN hosts h ON h.host = n.host CROSS JOIN everything e
RETURNING image_id, released_at`

// jobDifference is how an edit changes the jobs of a product.
type jobDifference struct {
	ended        []catalog.ImageID // rows to delete
	changed, was []jobRow          // rows to write, and as they were read
	added        []int             // indexes of the images in the edited product whose jobs are new
}

func (d jobDifference) none() bool { return len(d.ended)+len(d.changed)+len(d.added) == 0 }

// compare adds the difference between two jobs of the image at index i.
func (d *jobDifference) compare(i int, image catalog.ImageID, before, after *jobRow) {
	switch {
	case before == nil && after == nil:
	case before == nil:
		d.added = append(d.added, i)
	case after == nil:
		d.ended = append(d.ended, image)
	case *before != *after:
		d.changed, d.was = append(d.changed, *after), append(d.was, *before)
	}
}

// writeJobs writes the difference, and returns the messages of the jobs that it has released. It sets their times in p.
func (s *Store) writeJobs(tx *gorm.DB, p *catalog.Product, d jobDifference) ([]catalog.Outgoing, error) {
	if err := execRows(tx, "delete jobs", len(d.ended), nil, deleteJobs, d.ended); err != nil {
		return nil, err
	}
	if err := execRows(tx, "update jobs", len(d.changed), errJobReleased,
		updateJobs, asJSON[[]jobRow]{d.changed}, asJSON[[]jobRow]{d.was}); err != nil {
		return nil, err
	}
	return s.insertJobs(tx, p, d.added)
}

// insertJobs adds the jobs of the images at those indexes of p.
func (s *Store) insertJobs(tx *gorm.DB, p *catalog.Product, added []int) ([]catalog.Outgoing, error) {
	if len(added) == 0 {
		return nil, nil
	}
	rows := make([]jobRow, len(added))
	for i, at := range added {
		rows[i] = *toJobRow(*p, p.Images[at])
	}
	var inserted []struct {
		ImageID    catalog.ImageID
		ReleasedAt *time.Time
	}
	half := scheduler.Windows{Host: s.windows.Host / 2, Total: s.windows.Total / 2}
	if err := tx.Raw(insertJobs, asJSON[[]jobRow]{rows}, half.Host, half.Total).Find(&inserted).Error; err != nil {
		return nil, fmt.Errorf("insert jobs: %w", err)
	}
	released := make(map[catalog.ImageID]time.Time, len(inserted))
	for _, row := range inserted {
		if row.ReleasedAt != nil {
			released[row.ImageID] = row.ReleasedAt.UTC()
		}
	}
	var out []catalog.Outgoing
	for _, at := range added {
		if img := &p.Images[at]; !released[img.ID].IsZero() {
			img.ReleasedAt = released[img.ID]
			out = append(out, catalog.Outgoing{Message: img.JobMessage()})
		}
	}
	return out, nil
}
