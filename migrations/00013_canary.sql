-- +goose Up

SET LOCAL lock_timeout = '2s';

-- The trial of a backfill before it is approved, and its report. A program of the release before leaves the column as it is.
ALTER TABLE backfills ADD COLUMN canary jsonb NOT NULL DEFAULT '{}';

-- The samples of a canary, while it runs. id is the job id and the id of its event. Until a sample has ended it may be sent
-- to the workers, or sent again, from due_at on. prefix is that of the last attempt, which alone may write the outcome.
CREATE TABLE backfill_samples (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    backfill_id bigint NOT NULL REFERENCES backfills ON DELETE CASCADE,
    image_id    bigint NOT NULL,
    product_id  bigint NOT NULL,
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'done', 'changed', 'failed')),
    due_at      timestamptz NOT NULL DEFAULT now(),
    attempts    integer NOT NULL DEFAULT 0,
    prefix      text NOT NULL DEFAULT '',
    code        text NOT NULL DEFAULT '',
    result      jsonb NOT NULL DEFAULT '{}',
    UNIQUE (backfill_id, image_id)
);

-- +goose Down

SET LOCAL lock_timeout = '2s';

DROP TABLE backfill_samples;
ALTER TABLE backfills DROP COLUMN canary;
