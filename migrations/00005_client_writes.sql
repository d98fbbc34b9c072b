-- +goose Up

-- Nothing here reads a table, but it has to be alone with it for a moment. Rather try again than have everybody wait behind a
-- long transaction.
SET LOCAL lock_timeout = '2s';

-- version grows with every visible change; revision only with those that a client asked for.
ALTER TABLE products ADD COLUMN revision bigint NOT NULL DEFAULT 1;
ALTER TABLE products ADD CONSTRAINT products_revision_check CHECK (revision > 0) NOT VALID;

-- How far each audit of bucket and rows has come, and when its next turn is. Whoever takes a turn moves due_at on first.
CREATE TABLE audits (
    name   text PRIMARY KEY,
    cursor text NOT NULL DEFAULT '',
    due_at timestamptz NOT NULL DEFAULT now()
);

-- +goose Down

DROP TABLE audits;
ALTER TABLE products DROP COLUMN revision;
