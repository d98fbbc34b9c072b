-- +goose Up

-- The auditor divides each pass over a scan into shards, so that several processes share it. The rows of the earlier form
-- had one position for each scan. They are dropped, and each scan begins again.
SET LOCAL lock_timeout = '2s';
DROP TABLE checkpoints;

-- One row is a shard of the last pass over a scan: cursors above after_cursor, up to until_cursor; '' is the end. due_at is
-- when its next step may begin: a step that begins moves it to the end of its lease. Only the holder of the lease saves.
CREATE TABLE checkpoints (
    scan text NOT NULL,
    shard integer NOT NULL,
    after_cursor text NOT NULL,
    until_cursor text NOT NULL,
    cursor text NOT NULL,
    progress double precision NOT NULL DEFAULT 0,
    stopped text NOT NULL DEFAULT '',
    lease uuid,
    started_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (scan, shard)
);

-- +goose Down

SET LOCAL lock_timeout = '2s';
DROP TABLE checkpoints;
CREATE TABLE checkpoints (
    name text PRIMARY KEY,
    cursor text NOT NULL DEFAULT '',
    due_at timestamptz NOT NULL DEFAULT now()
);
