package postgres

import (
	"context"
	"time"

	"vitrine.io/pkg/foundation/pipeline"
)

// upsertHeartbeat also removes heartbeats that are older than an hour, because their instances were killed. It skips rows
// that another instance writes or removes at the same time.
const upsertHeartbeat = `
WITH old AS MATERIALIZED (
    SELECT role, instance FROM heartbeats
    WHERE seen_at < now() - interval '1 hour' AND (role, instance) <> ($1, $2) FOR UPDATE SKIP LOCKED),
purged AS (DELETE FROM heartbeats h USING old WHERE (h.role, h.instance) = (old.role, old.instance))
INSERT INTO heartbeats (role, instance, revision, hash, error, loaded_at, seen_at)
VALUES ($1, $2, $3, $6, $4, now() - $5 * interval '1 microsecond', now())
ON CONFLICT (role, instance) DO UPDATE SET
    revision = excluded.revision, hash = excluded.hash, error = excluded.error,
    loaded_at = excluded.loaded_at, seen_at = excluded.seen_at`

// RecordHeartbeat replaces the heartbeat of an instance. It does not use r.Age.
func (s *Store) RecordHeartbeat(ctx context.Context, r pipeline.Report) error {
	_, err := s.db.exec(ctx, "record_heartbeat", upsertHeartbeat,
		r.Role, r.Instance, r.Revision, r.Error, r.InForce.Microseconds(), r.Hash)
	return err
}

const deleteHeartbeat = `DELETE FROM heartbeats WHERE role = $1 AND instance = $2`

// RemoveHeartbeat removes the heartbeat of an instance. It is no error if there is none.
func (s *Store) RemoveHeartbeat(ctx context.Context, role, instance string) error {
	_, err := s.db.exec(ctx, "remove_heartbeat", deleteHeartbeat, role, instance)
	return err
}

const selectHeartbeats = `
SELECT role, instance, revision, hash, error,
    (extract(epoch FROM now() - loaded_at) * 1000000000)::bigint AS in_force,
    (extract(epoch FROM now() - seen_at) * 1000000000)::bigint AS age
FROM heartbeats WHERE seen_at > now() - $1 * interval '1 microsecond' ORDER BY role, instance`

// Heartbeats returns the heartbeats that are younger than maxAge, ordered by role and instance.
func (s *Store) Heartbeats(ctx context.Context, maxAge time.Duration) ([]pipeline.Report, error) {
	return query[pipeline.Report](ctx, s.db, "heartbeats", selectHeartbeats, maxAge.Microseconds())
}
