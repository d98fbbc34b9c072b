-- +goose Up

-- Committed messages that Kafka has not acknowledged. json and not jsonb: a message is sent byte for byte as it was written.
CREATE TABLE outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id     uuid NOT NULL CONSTRAINT outbox_event_id_key UNIQUE,
    topic        text NOT NULL,
    key          text NOT NULL,
    type         text NOT NULL,
    payload      json NOT NULL,
    headers      jsonb NOT NULL,
    tries        integer NOT NULL DEFAULT 0,
    available_at timestamptz NOT NULL DEFAULT now(),
    parked_at    timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX outbox_due ON outbox (available_at, id) WHERE parked_at IS NULL;

-- Every row is inserted and soon deleted: vacuumed by how much has died, not by a share of what is left.
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- Objects that may exist and may have to go. No foreign key: they outlive their picture.
CREATE TABLE intents (
    prefix    text PRIMARY KEY CHECK (prefix LIKE '%_/'),
    image_id  bigint NOT NULL,
    due_at    timestamptz NOT NULL,
    doomed_at timestamptz
);

CREATE INDEX intents_due ON intents (due_at) WHERE doomed_at IS NULL;
CREATE INDEX intents_doomed ON intents (due_at) WHERE doomed_at IS NOT NULL;

-- Every specification ever asked for.
CREATE TABLE pipelines (
    hash       text PRIMARY KEY,
    spec       json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Answers to requests that carried an Idempotency-Key. status is null while the first one is being worked on.
CREATE TABLE idempotency_keys (
    principal   text NOT NULL,
    key         text NOT NULL,
    fingerprint text NOT NULL,
    status      integer,
    headers     jsonb,
    body        bytea,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (principal, key)
);

CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

-- +goose Down

DROP TABLE idempotency_keys;
DROP TABLE pipelines;
DROP TABLE intents;
DROP TABLE outbox;
