package postgres

import (
	"context"
	"time"

	"vitrine.io/pkg/foundation/pipeline"
)

// upsertHeartbeat also removes rows that nobody has looked at for an hour: those of instances that were killed. Rows that another
// instance is just writing or removing are left to it.
const upsertHeartbeat = `
WITH gone AS MATERIALIZED (
    SELECT role, instance FROM heartbeats
    WHERE seen_at < now() - interval '1 hour' AND (role, instance) <> ($1, $2) FOR UPDATE SKIP LOCKED),
buried AS (DELETE FROM heartbeats h USING gone WHERE (h.role, h.instance) = (gone.role, gone.instance))
INSERT INTO heartbeats (role, instance, revision, error, loaded_at, seen_at)
VALUES ($1, $2, $3, $4, now() - $5 * interval '1 microsecond', now())
ON CONFLICT (role, instance) DO UPDATE SET
    revision = excluded.revision, error = excluded.error, loaded_at = excluded.loaded_at, seen_at = excluded.seen_at`

// RecordHeartbeat writes what an instance says of its pipeline over what it said before. r.Silent is not read.
func (s *Store) RecordHeartbeat(ctx context.Context, r pipeline.Report) error {
	_, err := s.db.exec(ctx, "record_heartbeat", upsertHeartbeat, r.Role, r.Instance, r.Revision, r.Error, r.InForce.Microseconds())
	return err
}

const deleteHeartbeat = `DELETE FROM heartbeats WHERE role = $1 AND instance = $2`

// RemoveHeartbeat removes what an instance has said. None there is no error.
func (s *Store) RemoveHeartbeat(ctx context.Context, role, instance string) error {
	_, err := s.db.exec(ctx, "remove_heartbeat", deleteHeartbeat, role, instance)
	return err
}

const selectHeartbeats = `
SELECT role, instance, revision, error,
    (extract(epoch FROM now() - loaded_at) * 1000000)::bigint AS in_force,
    (extract(epoch FROM now() - seen_at) * 1000000)::bigint AS silent
FROM heartbeats WHERE seen_at > now() - $1 * interval '1 microsecond' ORDER BY role, instance`

// Heartbeats returns what every instance says that was heard of since then, by role and name.
func (s *Store) Heartbeats(ctx context.Context, since time.Duration) ([]pipeline.Report, error) {
	type row struct {
		Role, Instance, Revision, Error string
		InForce, Silent                 int64 // microseconds
	}
	rows, err := query[row](ctx, s.db, "reports", selectHeartbeats, since.Microseconds())
	if err != nil {
		return nil, err
	}
	reports := make([]pipeline.Report, len(rows))
	for i, r := range rows {
		reports[i] = pipeline.Report{
			Role: r.Role, Instance: r.Instance, Revision: r.Revision, Error: r.Error,
			InForce: time.Duration(r.InForce) * time.Microsecond, Silent: time.Duration(r.Silent) * time.Microsecond,
		}
	}
	return reports, nil
}
