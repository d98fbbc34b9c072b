package postgres

import (
	"context"
	"fmt"

	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/scheduler"
)

var _ scheduler.Jobs = (*Store)(nil)

// lockRound does not wait. Advisory locks belong to the whole database, so the schema is part of the name.
const lockRound = `SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || ' scheduler', 2))`

// selectInFlight leaves out the jobs of backfills: their records may wait in Kafka for as long as other jobs keep the
// workers busy, and must not take the windows of those.
const selectInFlight = `
SELECT user_id, host, count(*)::int AS jobs FROM image_jobs WHERE released_at IS NOT NULL AND class <> 'backfill'
GROUP BY user_id, host`

// selectBackfillInFlight returns nothing unless a backfill may release jobs, but one row at least if it may.
const selectBackfillInFlight = `
SELECT coalesce(j.user_id, 0) AS user_id, coalesce(j.host, '') AS host, count(j.image_id)::int AS jobs
FROM backfills b LEFT JOIN image_jobs j ON j.class = 'backfill' AND j.backfill_id = b.id AND j.released_at IS NOT NULL
WHERE b.state = 'running' AND b.open GROUP BY j.user_id, j.host`

// selectWaiting walks from flow to flow by one look-up in image_jobs_waiting each, however many jobs wait. It counts the due
// jobs of a flow up to $6, and of a host with a full window none. After $4 flows of a user with due jobs it continues at the
// next user.
const selectWaiting = `
WITH RECURSIVE flows AS (
    SELECT $2::bigint AS user_id, $3::text COLLATE "C" AS host, 0 AS due, 0 AS taken
    UNION ALL
    SELECT n.user_id, n.host, d.due, CASE WHEN n.user_id = f.user_id THEN f.taken ELSE 0 END + (d.due > 0)::int
    FROM flows f
    CROSS JOIN LATERAL (
        SELECT j.user_id, j.host FROM image_jobs j
        WHERE j.released_at IS NULL AND j.class = $1
            AND (j.user_id, j.host) > (f.user_id, CASE WHEN f.taken < $4 THEN f.host ELSE U&'\+10FFFF' END)
        ORDER BY j.user_id, j.host LIMIT 1) n
    CROSS JOIN LATERAL (
        SELECT count(*)::int AS due FROM (
            SELECT FROM image_jobs j
            WHERE j.released_at IS NULL AND j.class = $1 AND j.user_id = n.user_id AND j.host = n.host
                AND j.not_before <= statement_timestamp() AND n.host <> ALL ($5::text[])
            LIMIT $6) capped) d
)
SELECT user_id, host, due FROM flows OFFSET 1 LIMIT $7`

// releaseJobs skips jobs that an edit has locked. The edit may end them.
const releaseJobs = `
WITH picked AS MATERIALIZED (
    SELECT p.image_id
    FROM json_to_recordset($2) AS g (user_id bigint, host text, jobs int)
    CROSS JOIN LATERAL (
        SELECT j.image_id FROM image_jobs j
        WHERE j.released_at IS NULL AND j.class = $1 AND j.user_id = g.user_id AND j.host = g.host COLLATE "C"
            AND j.not_before <= statement_timestamp()
        ORDER BY j.not_before, j.image_id LIMIT g.jobs FOR UPDATE SKIP LOCKED) p)
UPDATE image_jobs j SET released_at = clock_timestamp()
FROM picked, images i WHERE j.image_id = picked.image_id AND i.id = j.image_id
RETURNING j.image_id AS id, j.product_id, i.source_url, j.job_id, j.traceparent, j.pipeline_hash, j.backfill_id,
    i.original_key`

// flowRow is a flow with a number of jobs.
type flowRow struct {
	UserID catalog.UserID `json:"user_id"`
	Host   string         `json:"host"`
	Jobs   int            `json:"jobs"`
}

// Release implements scheduler.Jobs. A job and its message are written in one transaction.
func (s *Store) Release(ctx context.Context, search scheduler.Search,
	plan func(catalog.Class, []scheduler.Waiting, map[scheduler.Flow]int) []scheduler.Grant,
) (scheduler.Round, error) {
	round := scheduler.Round{Released: map[catalog.Class]int{}, Next: map[catalog.Class]scheduler.Flow{}}
	err := s.db.transact(ctx, "release", func(tx *gorm.DB) error {
		if err := tx.Raw(lockRound).Find(&round.Acquired).Error; err != nil {
			return fmt.Errorf("lock round: %w", err)
		}
		if !round.Acquired {
			return errNothing
		}
		inFlight, err := countInFlight(tx, selectInFlight)
		if err != nil {
			return err
		}
		for _, n := range inFlight {
			round.InFlight += n
		}
		released := 0
		releaseClass := func(class catalog.Class) error {
			waiting, next, err := findWaiting(tx, class, search, inFlight)
			if err != nil {
				return err
			}
			round.Next[class] = next
			round.Released[class], err = release(tx, class, plan(class, waiting, inFlight))
			released += round.Released[class]
			return err
		}
		for _, class := range []catalog.Class{catalog.Live, catalog.Bulk} {
			if err := releaseClass(class); err != nil {
				return err
			}
		}
		open, err := addBackfillInFlight(tx, inFlight)
		if err == nil && open {
			err = releaseClass(catalog.BackfillClass)
		}
		if err == nil && released == 0 {
			return errNothing
		}
		return err
	})
	if err != nil {
		return scheduler.Round{}, err
	}
	return round, nil
}

func countInFlight(tx *gorm.DB, statement string) (map[scheduler.Flow]int, error) {
	var rows []flowRow
	if err := tx.Raw(statement).Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("count jobs in flight: %w", err)
	}
	inFlight := make(map[scheduler.Flow]int, len(rows))
	for _, r := range rows {
		inFlight[scheduler.Flow{User: r.UserID, Host: r.Host}] = r.Jobs
	}
	return inFlight, nil
}

// addBackfillInFlight adds the jobs of backfills to those in flight. open is false if none may be released.
func addBackfillInFlight(tx *gorm.DB, inFlight map[scheduler.Flow]int) (open bool, err error) {
	backfill, err := countInFlight(tx, selectBackfillInFlight)
	for flow, jobs := range backfill {
		inFlight[flow] += jobs
	}
	return len(backfill) > 0, err
}

// findWaiting returns the flows with due jobs. next is where the next search continues if this one has reached its maximum.
func findWaiting(tx *gorm.DB, class catalog.Class, search scheduler.Search, inFlight map[scheduler.Flow]int,
) (waiting []scheduler.Waiting, next scheduler.Flow, err error) {
	total, hosts := 0, map[string]int{}
	for f, n := range inFlight {
		total += n
		hosts[f.Host] += n
	}
	if total >= search.Windows.Total {
		return nil, search.After[class], nil
	}
	full := []string{}
	for host, n := range hosts {
		if n >= search.Windows.Host {
			full = append(full, host)
		}
	}
	var rows []struct {
		UserID catalog.UserID
		Host   string
		Due    int
	}
	after := search.After[class]
	if err := tx.Raw(selectWaiting, string(class), int64(after.User), after.Host, search.MaxHosts, full, search.MaxDue,
		search.MaxFlows).Find(&rows).Error; err != nil {
		return nil, next, fmt.Errorf("find waiting jobs: %w", err)
	}
	for _, r := range rows {
		f := scheduler.Flow{User: r.UserID, Host: r.Host}
		if r.Due > 0 {
			waiting = append(waiting, scheduler.Waiting{Flow: f, Due: r.Due})
		}
		if len(rows) == search.MaxFlows {
			next = f
		}
	}
	return waiting, next, nil
}

// release releases the jobs that are granted and sends their messages.
func release(tx *gorm.DB, class catalog.Class, grants []scheduler.Grant) (int, error) {
	if len(grants) == 0 {
		return 0, nil
	}
	flows := make([]flowRow, len(grants))
	for i, g := range grants {
		flows[i] = flowRow{UserID: g.User, Host: g.Host, Jobs: g.Jobs}
	}
	var jobs []struct {
		ID, ProductID, BackfillID                   int64
		SourceURL, JobID, Traceparent, PipelineHash string
		OriginalKey                                 string
	}
	if err := tx.Raw(releaseJobs, string(class), asJSON[[]flowRow]{flows}).Find(&jobs).Error; err != nil {
		return 0, fmt.Errorf("release jobs: %w", err)
	}
	out := make([]catalog.Outgoing, len(jobs))
	for i, j := range jobs {
		img := catalog.Image{
			ID: catalog.ImageID(j.ID), ProductID: catalog.ProductID(j.ProductID), SourceURL: j.SourceURL, JobID: j.JobID,
			Traceparent: j.Traceparent, PipelineHash: j.PipelineHash, OriginalKey: j.OriginalKey,
			Backfill: catalog.BackfillJob{ID: j.BackfillID, PipelineHash: j.PipelineHash},
		}
		out[i].Message = img.JobMessage()
	}
	return len(jobs), send(tx, out)
}

const countWaiting = `SELECT class, count(*)::int AS jobs FROM image_jobs WHERE released_at IS NULL GROUP BY class`

// CountWaiting implements scheduler.Jobs.
func (s *Store) CountWaiting(ctx context.Context) (map[catalog.Class]int, error) {
	type row struct {
		Class catalog.Class
		Jobs  int
	}
	rows, err := query[row](ctx, s.db, "count_waiting", countWaiting)
	if err != nil {
		return nil, err
	}
	waiting := make(map[catalog.Class]int, len(rows))
	for _, r := range rows {
		waiting[r.Class] = r.Jobs
	}
	return waiting, nil
}
