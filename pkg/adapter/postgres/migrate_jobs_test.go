package postgres_test

import (
	"testing"

	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/test/servers"
)

// beforeJobs is a product of the eighth migration, with an idle, a queued and a processing image.
const beforeJobs = `
INSERT INTO users (name, email, email_key) VALUES ('Ada', 'ada@example.com', 'ada@example.com');
INSERT INTO products (user_id, product_name, product_description, product_price) VALUES (1, 'Chair', '', 1);
INSERT INTO images (product_id, position, source_url, status, job_state, job_id, fencing_token, unreported_attempts,
    attempts, prefix, poison_sha256, pipeline_hash, requested_at, due_at)
VALUES (1, 0, 'https://example.com/a.jpg', 'ready', 'idle', NULL, 4, 0, 1, 'p/', '', 'old', '2026-01-01', NULL),
    (1, 1, 'HTTPS://u:p@CDN.Example.com:8443/b.jpg', 'pending', 'queued', gen_random_uuid(), 0, 0, 2, '', '', 'h',
        '2026-01-02', '2026-01-03'),
    (1, 2, 'http://[2001:db8::1]/c.jpg', 'ready', 'processing', gen_random_uuid(), 7, 3, 0, 'q/', '00ff', 'h',
        '2026-01-04', '2026-01-05');
CREATE TABLE expected AS SELECT * FROM images`

// Images in work keep their jobs when the table of jobs is created, and when it is removed again.
func TestMigrateJobs(t *testing.T) {
	t.Parallel()
	cfg := postgres.Config{DSN: servers.Postgres(t)}
	conn := connect(t, cfg.DSN)
	up := func() {
		t.Helper()
		if err := postgres.Migrate(t.Context(), cfg, zap.NewNop()); err != nil {
			t.Fatal(err)
		}
	}
	down := func() {
		t.Helper()
		for scalar[bool](t, conn, `SELECT to_regclass('image_jobs') IS NOT NULL`) {
			if err := postgres.MigrateDown(t.Context(), cfg, zap.NewNop()); err != nil {
				t.Fatal(err)
			}
		}
	}
	up()
	down()
	run(t, conn, beforeJobs)
	up()
	if got := scalar[int64](t, conn, `
		SELECT count(*) FROM image_jobs j JOIN expected e ON e.id = j.image_id
		WHERE (j.product_id, j.user_id, j.class, j.job_state, j.job_id, j.fencing_token, j.unreported_attempts, j.attempts)
				= (1, 1, 'live', e.job_state, e.job_id, e.fencing_token, e.unreported_attempts, e.attempts)
			AND (j.prefix, j.poison_sha256, j.pipeline_hash, j.requested_at, j.due_at, j.not_before)
				= (e.prefix, e.poison_sha256, e.pipeline_hash, e.requested_at, e.due_at, e.due_at)
			AND j.released_at IS NOT NULL AND j.host = CASE e.position WHEN 1 THEN 'cdn.example.com' ELSE '2001:db8::1' END`,
	); got != 2 {
		t.Errorf("got %d jobs, want those of two images", got)
	}
	run(t, conn, `UPDATE image_jobs SET fencing_token = fencing_token + 1`)
	down()
	if got := scalar[int64](t, conn, `
		SELECT count(*) FROM images i JOIN expected e ON e.id = i.id AND e.job_state = i.job_state
			AND e.job_id IS NOT DISTINCT FROM i.job_id AND e.due_at IS NOT DISTINCT FROM i.due_at
		WHERE (i.unreported_attempts, i.poison_sha256, i.attempts, i.prefix, i.pipeline_hash, i.requested_at)
				= (e.unreported_attempts, e.poison_sha256, e.attempts, e.prefix, e.pipeline_hash, e.requested_at)
			AND i.fencing_token = e.fencing_token + (e.job_state <> 'idle')::int`,
	); got != 3 {
		t.Errorf("got %d images as before, want 3", got)
	}
}
