-- +goose Up

-- The state of the work on an image moves from images to a narrow table, with one row for each image in work. Programs of
-- earlier releases do not know it: stop them before this migration.
SET LOCAL lock_timeout = '2s';

-- released_at is NULL while a job waits for the scheduler; else the job is in the outbox, in Kafka or in a worker. fillfactor
-- leaves room for the update of Begin, which changes no indexed column. host is compared byte by byte, in any locale.
CREATE TABLE image_jobs (
    image_id            bigint PRIMARY KEY REFERENCES images ON DELETE CASCADE,
    product_id          bigint NOT NULL,
    user_id             bigint NOT NULL,
    host                text COLLATE "C" NOT NULL,
    class               text NOT NULL CHECK (class IN ('live', 'bulk')),
    job_state           text NOT NULL CHECK (job_state IN ('queued', 'processing')),
    job_id              uuid NOT NULL,
    traceparent         text NOT NULL,
    fencing_token       bigint NOT NULL,
    unreported_attempts integer NOT NULL CHECK (unreported_attempts >= 0),
    attempts            integer NOT NULL CHECK (attempts >= 0),
    prefix              text NOT NULL,
    poison_sha256       text NOT NULL,
    pipeline_hash       text NOT NULL,
    requested_at        timestamptz NOT NULL,
    not_before          timestamptz NOT NULL,
    released_at         timestamptz,
    due_at              timestamptz NOT NULL,
    deferred_since      timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000);

-- Jobs of programs of earlier releases are in the outbox or in Kafka. SQL has no list of public suffixes, so their host is
-- the whole name.
INSERT INTO image_jobs (image_id, product_id, user_id, host, class, job_state, job_id, traceparent, fencing_token,
    unreported_attempts, attempts, prefix, poison_sha256, pipeline_hash, requested_at, not_before, released_at, due_at)
SELECT i.id, i.product_id, p.user_id,
    translate(lower(coalesce(substring(i.source_url FROM '^[A-Za-z]+://(?:[^/?#@]*@)?(\[[^]]*\]|[^/?#:]*)'), '')), '[]', ''),
    'live', i.job_state, i.job_id, '', i.fencing_token, i.unreported_attempts, i.attempts, i.prefix, i.poison_sha256,
    i.pipeline_hash, coalesce(i.requested_at, now()), coalesce(i.due_at, now()), now(), coalesce(i.due_at, now())
FROM images i JOIN products p ON p.id = i.product_id
WHERE i.job_state <> 'idle' AND i.job_id IS NOT NULL;

-- What the scheduler searches: the jobs that wait, by user and host.
CREATE INDEX image_jobs_waiting ON image_jobs (class, user_id, host, not_before, image_id) WHERE released_at IS NULL;
-- What is in flight, by host.
CREATE INDEX image_jobs_released ON image_jobs (host, user_id) WHERE released_at IS NOT NULL;

DROP INDEX images_active;
ALTER TABLE images DROP COLUMN job_state, DROP COLUMN job_id, DROP COLUMN unreported_attempts, DROP COLUMN poison_sha256,
    DROP COLUMN due_at;

-- +goose Down

SET LOCAL lock_timeout = '2s';

ALTER TABLE images
    ADD COLUMN job_state text NOT NULL DEFAULT 'idle' CHECK (job_state IN ('idle', 'queued', 'processing')),
    ADD COLUMN job_id uuid,
    ADD COLUMN unreported_attempts integer NOT NULL DEFAULT 0 CHECK (unreported_attempts >= 0),
    ADD COLUMN due_at timestamptz,
    ADD COLUMN poison_sha256 text NOT NULL DEFAULT '';
ALTER TABLE images ALTER COLUMN job_state DROP DEFAULT;

-- A job that waits has no message. The sweeper of the earlier release sends it once it is overdue.
UPDATE images i SET job_state = j.job_state, job_id = j.job_id, unreported_attempts = j.unreported_attempts,
    due_at = j.due_at, poison_sha256 = j.poison_sha256, fencing_token = j.fencing_token, attempts = j.attempts,
    prefix = j.prefix, pipeline_hash = j.pipeline_hash, requested_at = j.requested_at
FROM image_jobs j WHERE j.image_id = i.id;

CREATE INDEX images_active ON images (due_at) WHERE job_state <> 'idle';
DROP TABLE image_jobs;
