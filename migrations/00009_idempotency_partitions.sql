-- +goose Up

-- Idempotency keys are kept for 24 hours. At a thousand a second these are 86 million rows, which a DELETE cannot follow. So the
-- table has a partition for each day, in UTC, and old partitions are dropped. The programs create and drop partitions; they
-- are named idempotency_keys_YYYYMMDD. There is no default partition, which would have to be scanned for each new one.
--
-- The primary key contains the day, so it does not make a key unique over two days: programs lock the key and look it up in
-- all partitions of the last 24 hours before they insert it.
SET LOCAL lock_timeout = '2s';

ALTER TABLE idempotency_keys RENAME TO old_idempotency_keys;
ALTER TABLE old_idempotency_keys RENAME CONSTRAINT idempotency_keys_pkey TO old_idempotency_keys_pkey;

CREATE TABLE idempotency_keys (
    principal text NOT NULL,
    key text NOT NULL,
    day date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
    fingerprint text NOT NULL,
    response bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (principal, key, day)
) PARTITION BY RANGE (day);

-- +goose StatementBegin
DO $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    FOR n IN -1..7 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF idempotency_keys FOR VALUES FROM (%L) TO (%L)',
            'idempotency_keys_' || to_char(today + n, 'YYYYMMDD'), today + n, today + n + 1);
    END LOOP;
END $$;
-- +goose StatementEnd

INSERT INTO idempotency_keys (principal, key, day, fingerprint, response, created_at)
SELECT principal, key, (created_at AT TIME ZONE 'UTC')::date, fingerprint, response, created_at
FROM old_idempotency_keys WHERE created_at > now() - interval '24 hours';

DROP TABLE old_idempotency_keys;

-- Parked messages are counted without a scan of the outbox.
CREATE INDEX outbox_parked ON outbox (parked_at) WHERE parked_at IS NOT NULL;

-- +goose Down

DROP INDEX outbox_parked;

ALTER TABLE idempotency_keys RENAME TO partitioned_idempotency_keys;
ALTER TABLE partitioned_idempotency_keys RENAME CONSTRAINT idempotency_keys_pkey TO partitioned_idempotency_keys_pkey;

CREATE TABLE idempotency_keys (
    principal text NOT NULL,
    key text NOT NULL,
    fingerprint text NOT NULL,
    response bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

INSERT INTO idempotency_keys (principal, key, fingerprint, response, created_at)
SELECT DISTINCT ON (principal, key) principal, key, fingerprint, response, created_at
FROM partitioned_idempotency_keys ORDER BY principal, key, created_at DESC;

DROP TABLE partitioned_idempotency_keys;
