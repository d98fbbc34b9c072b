-- +goose Up

-- Tables and columns get the names that docs/glossary.md defines. Programs of earlier releases do not know these names: stop
-- them before this migration. The statements do not rewrite a table, but each takes an exclusive lock on one. The migration
-- fails after it has waited two seconds for a lock, so that other statements do not queue behind a long transaction.
SET LOCAL lock_timeout = '2s';

-- A saved response is one value, whose form only the HTTP adapter knows. Responses in the earlier form cannot be read, so a
-- request that is repeated across the upgrade is carried out again.
TRUNCATE idempotency_keys;
ALTER TABLE idempotency_keys DROP COLUMN status;
ALTER TABLE idempotency_keys DROP COLUMN headers;
ALTER TABLE idempotency_keys RENAME COLUMN body TO response;
ALTER TABLE idempotency_keys ALTER COLUMN response SET NOT NULL;

-- Tables are locked in the order of the programs' transactions: images before scheduled deletions.
ALTER TABLE images RENAME COLUMN work TO job_state;
ALTER TABLE images RENAME COLUMN ticket TO job_id;
ALTER TABLE images RENAME COLUMN fence TO fencing_token;
ALTER TABLE images RENAME COLUMN begins TO unreported_attempts;
ALTER TABLE images RENAME COLUMN remake_error TO reprocess_error;
ALTER TABLE images RENAME COLUMN killer_sha256 TO poison_sha256;
ALTER TABLE images RENAME CONSTRAINT images_work_check TO images_job_state_check;
ALTER TABLE images RENAME CONSTRAINT images_begins_check TO images_unreported_attempts_check;
ALTER INDEX images_in_work RENAME TO images_active;

-- Objects below a prefix are deleted once due_at has passed. started_at is when the first of two passes began.
ALTER TABLE intents RENAME TO scheduled_deletions;
ALTER TABLE scheduled_deletions RENAME COLUMN doomed_at TO started_at;
ALTER TABLE scheduled_deletions RENAME CONSTRAINT intents_pkey TO scheduled_deletions_pkey;
ALTER TABLE scheduled_deletions RENAME CONSTRAINT intents_prefix_check TO scheduled_deletions_prefix_check;
ALTER INDEX intents_due RENAME TO scheduled_deletions_due;
ALTER INDEX intents_doomed RENAME TO scheduled_deletions_second_pass;

-- How far each repeated scan has come.
ALTER TABLE audits RENAME TO checkpoints;
ALTER TABLE checkpoints RENAME CONSTRAINT audits_pkey TO checkpoints_pkey;

-- Postgres 18 and later name NOT NULL constraints after their columns, and keep the name when a column is renamed.
-- +goose StatementBegin
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT t.oid::regclass AS relation, n.conname, t.relname || '_' || a.attname || '_not_null' AS expected
        FROM pg_constraint n
        JOIN pg_class t ON t.oid = n.conrelid
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = n.conkey[1]
        WHERE n.contype = 'n' AND t.relnamespace = current_schema()::regnamespace
            AND t.relname IN ('images', 'scheduled_deletions', 'checkpoints', 'idempotency_keys')
    LOOP
        IF c.conname <> c.expected THEN
            EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', c.relation, c.conname, c.expected);
        END IF;
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose Down

SET LOCAL lock_timeout = '2s';

TRUNCATE idempotency_keys;
ALTER TABLE idempotency_keys ALTER COLUMN response DROP NOT NULL;
ALTER TABLE idempotency_keys RENAME COLUMN response TO body;
ALTER TABLE idempotency_keys ADD COLUMN status integer;
ALTER TABLE idempotency_keys ADD COLUMN headers jsonb;

ALTER INDEX images_active RENAME TO images_in_work;
ALTER TABLE images RENAME CONSTRAINT images_unreported_attempts_check TO images_begins_check;
ALTER TABLE images RENAME CONSTRAINT images_job_state_check TO images_work_check;
ALTER TABLE images RENAME COLUMN poison_sha256 TO killer_sha256;
ALTER TABLE images RENAME COLUMN reprocess_error TO remake_error;
ALTER TABLE images RENAME COLUMN unreported_attempts TO begins;
ALTER TABLE images RENAME COLUMN fencing_token TO fence;
ALTER TABLE images RENAME COLUMN job_id TO ticket;
ALTER TABLE images RENAME COLUMN job_state TO work;

ALTER INDEX scheduled_deletions_second_pass RENAME TO intents_doomed;
ALTER INDEX scheduled_deletions_due RENAME TO intents_due;
ALTER TABLE scheduled_deletions RENAME CONSTRAINT scheduled_deletions_prefix_check TO intents_prefix_check;
ALTER TABLE scheduled_deletions RENAME CONSTRAINT scheduled_deletions_pkey TO intents_pkey;
ALTER TABLE scheduled_deletions RENAME COLUMN started_at TO doomed_at;
ALTER TABLE scheduled_deletions RENAME TO intents;

ALTER TABLE checkpoints RENAME CONSTRAINT checkpoints_pkey TO audits_pkey;
ALTER TABLE checkpoints RENAME TO audits;

-- Postgres 18 and later name NOT NULL constraints after their columns, and keep the name when a column is renamed.
-- +goose StatementBegin
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT t.oid::regclass AS relation, n.conname, t.relname || '_' || a.attname || '_not_null' AS expected
        FROM pg_constraint n
        JOIN pg_class t ON t.oid = n.conrelid
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = n.conkey[1]
        WHERE n.contype = 'n' AND t.relnamespace = current_schema()::regnamespace
            AND t.relname IN ('images', 'intents', 'audits', 'idempotency_keys')
    LOOP
        IF c.conname <> c.expected THEN
            EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', c.relation, c.conname, c.expected);
        END IF;
    END LOOP;
END
$$;
-- +goose StatementEnd
