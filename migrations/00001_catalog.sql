-- +goose Up

CREATE TABLE users (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    email      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE TABLE products (
    id                        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id                   bigint NOT NULL CONSTRAINT products_user_id_fkey REFERENCES users,
    product_name              text NOT NULL,
    product_description       text NOT NULL,
    product_images            text[] NOT NULL DEFAULT '{}',
    compressed_product_images text[] NOT NULL DEFAULT '{}',
    product_price             numeric(12, 2) NOT NULL CHECK (product_price >= 0),
    version                   bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at                timestamptz NOT NULL DEFAULT now(),
    updated_at                timestamptz NOT NULL DEFAULT now(),
    deleted_at                timestamptz
);

CREATE TABLE images (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id    bigint NOT NULL REFERENCES products ON DELETE CASCADE,
    position      integer NOT NULL CHECK (position >= 0),
    source_url    text NOT NULL,
    status        text NOT NULL CHECK (status IN ('pending', 'ready', 'failed')),
    work          text NOT NULL CHECK (work IN ('idle', 'queued', 'processing')),
    ticket        uuid,
    fence         bigint NOT NULL DEFAULT 0,
    begins        integer NOT NULL DEFAULT 0 CHECK (begins >= 0),
    attempts      integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    prefix        text NOT NULL DEFAULT '',
    error_code    text NOT NULL DEFAULT '',
    error_detail  text NOT NULL DEFAULT '',
    remake_error  text NOT NULL DEFAULT '',
    source_sha256 text NOT NULL DEFAULT '',
    source_bytes  bigint NOT NULL DEFAULT 0,
    width         integer NOT NULL DEFAULT 0,
    height        integer NOT NULL DEFAULT 0,
    pipeline_hash text NOT NULL DEFAULT '',
    renditions    jsonb NOT NULL DEFAULT '[]',
    placeholder   text NOT NULL DEFAULT '',
    requested_at  timestamptz,
    due_at        timestamptz,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (product_id, position)
);

-- The lists: one user's newest, one user's by price, everybody's by price.
CREATE INDEX products_user ON products (user_id, id) WHERE deleted_at IS NULL;
CREATE INDEX products_user_price ON products (user_id, product_price, id) WHERE deleted_at IS NULL;
CREATE INDEX products_price ON products (product_price, id) WHERE deleted_at IS NULL;

-- What the purge looks for.
CREATE INDEX products_deleted ON products (deleted_at) WHERE deleted_at IS NOT NULL;

-- What the sweeper looks for: the few pictures in work, longest due first.
CREATE INDEX images_in_work ON images (due_at) WHERE work <> 'idle';

-- Two migrations in two schemas of one database would race for the extension: IF NOT EXISTS looks before it locks.
-- +goose StatementBegin
SELECT pg_advisory_xact_lock(hashtextextended('vitrine pg_trgm', 0));
-- +goose StatementEnd
CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;

-- The operator class is named by its schema, wherever an administrator has put the extension and whatever the search_path.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format(
        'CREATE INDEX products_name ON products USING gin (product_name %I.gin_trgm_ops) WHERE deleted_at IS NULL',
        (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_trgm'));
END
$$;
-- +goose StatementEnd

-- +goose Down

-- The extension stays: others may use it.
DROP TABLE images;
DROP TABLE products;
DROP TABLE users;
