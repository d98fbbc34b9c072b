-- +goose Up

SET LOCAL lock_timeout = '2s';

-- A backfill makes the renditions of existing images again. The target is frozen in pipelines. A name is pipeline-number.
-- suspended says why a backfill rests, '' if it does not. open: the walk allows its jobs to be released and begun. lease and
-- due_at are as in checkpoints. The counts follow backfill_events.
CREATE TABLE backfills (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline          text NOT NULL,
    number            integer NOT NULL,
    managed_by        text NOT NULL CHECK (managed_by IN ('cli', 'resource')),
    resource_uid      text NOT NULL DEFAULT '',
    generation        bigint NOT NULL DEFAULT 0,
    target_hash       text NOT NULL REFERENCES pipelines,
    target_output     text NOT NULL,
    selection         jsonb NOT NULL,
    state             text NOT NULL CHECK (state IN
        ('proposed', 'approved', 'running', 'complete', 'failed', 'superseded', 'cancelled')),
    reason            text NOT NULL DEFAULT '',
    suspended         text NOT NULL DEFAULT '' CHECK (suspended IN ('', 'operator', 'failures')),
    open              boolean NOT NULL DEFAULT false,
    approved_hash     text NOT NULL DEFAULT '',
    max_in_flight     integer NOT NULL CHECK (max_in_flight > 0),
    rate              double precision NOT NULL CHECK (rate > 0),
    windows           jsonb NOT NULL DEFAULT '[]',
    time_zone         text NOT NULL DEFAULT 'UTC',
    failure_threshold double precision NOT NULL,
    pass              integer NOT NULL DEFAULT 0,
    cursor            bigint NOT NULL DEFAULT 0,
    found             bigint NOT NULL DEFAULT 0,
    resting           boolean NOT NULL DEFAULT false,
    credit            double precision NOT NULL DEFAULT 0,
    requested         bigint NOT NULL DEFAULT 0,
    done              bigint NOT NULL DEFAULT 0,
    skipped           bigint NOT NULL DEFAULT 0,
    failed            bigint NOT NULL DEFAULT 0,
    failures          jsonb NOT NULL DEFAULT '{}',
    judged_done       bigint NOT NULL DEFAULT 0,
    judged_failed     bigint NOT NULL DEFAULT 0,
    plan              jsonb NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    approved_at       timestamptz,
    started_at        timestamptz,
    pass_started_at   timestamptz,
    stepped_at        timestamptz,
    progressed_at     timestamptz,
    ended_at          timestamptz,
    lease             uuid,
    due_at            timestamptz NOT NULL DEFAULT now(),
    UNIQUE (pipeline, number)
);

CREATE UNIQUE INDEX backfills_one_running ON backfills ((true)) WHERE state = 'running';
CREATE UNIQUE INDEX backfills_one_proposal ON backfills (pipeline) WHERE state = 'proposed';
CREATE UNIQUE INDEX backfills_resource ON backfills (resource_uid, generation) WHERE resource_uid <> '';

-- What happened to images of a backfill since the walk last added it to the counts. A row is written in the transaction of
-- what it reports, so that no worker waits for the row of the backfill.
CREATE TABLE backfill_events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    backfill_id bigint NOT NULL,
    image_id    bigint NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('requested', 'done', 'failed', 'dropped')),
    code        text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- An empty output_hash is that of the pipeline with the hash pipeline_hash. Neither column has an index, so that updates of
-- images stay HOT.
ALTER TABLE images ADD COLUMN output_hash text NOT NULL DEFAULT '', ADD COLUMN backfill_id bigint NOT NULL DEFAULT 0;

ALTER TABLE image_jobs DROP CONSTRAINT image_jobs_class_check,
    ADD CONSTRAINT image_jobs_class_check CHECK (class IN ('live', 'bulk', 'backfill')),
    ADD COLUMN backfill_id bigint NOT NULL DEFAULT 0;

-- Jobs of backfills take no part in the windows of the others.
DROP INDEX image_jobs_released;
CREATE INDEX image_jobs_released ON image_jobs (host, user_id) WHERE released_at IS NOT NULL AND class <> 'backfill';
CREATE INDEX image_jobs_backfill ON image_jobs (backfill_id, image_id) WHERE class = 'backfill';

ALTER TABLE heartbeats ADD COLUMN hash text NOT NULL DEFAULT '';

-- +goose Down

SET LOCAL lock_timeout = '2s';

ALTER TABLE heartbeats DROP COLUMN hash;
DELETE FROM image_jobs WHERE class = 'backfill';
DROP INDEX image_jobs_backfill;
DROP INDEX image_jobs_released;
CREATE INDEX image_jobs_released ON image_jobs (host, user_id) WHERE released_at IS NOT NULL;
ALTER TABLE image_jobs DROP COLUMN backfill_id, DROP CONSTRAINT image_jobs_class_check,
    ADD CONSTRAINT image_jobs_class_check CHECK (class IN ('live', 'bulk'));
ALTER TABLE images DROP COLUMN output_hash, DROP COLUMN backfill_id;
DROP TABLE backfill_events;
DROP TABLE backfills;
