-- The schema that the migrations create. Written by: go test ./pkg/adapter/postgres -run Schema -update

CREATE TABLE backfill_events (
    id bigint NOT NULL,
    backfill_id bigint NOT NULL,
    image_id bigint NOT NULL,
    kind text NOT NULL,
    code text NOT NULL,
    CONSTRAINT backfill_events_kind_check CHECK ((kind = ANY (ARRAY['requested'::text, 'done'::text, 'failed'::text, 'dropped'::text])))
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000');

ALTER TABLE backfill_events ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME backfill_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE backfill_samples (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    backfill_id bigint NOT NULL,
    image_id bigint NOT NULL,
    product_id bigint NOT NULL,
    state text DEFAULT 'waiting'::text NOT NULL,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    prefix text DEFAULT ''::text NOT NULL,
    code text DEFAULT ''::text NOT NULL,
    result jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT backfill_samples_state_check CHECK ((state = ANY (ARRAY['waiting'::text, 'sent'::text, 'done'::text, 'changed'::text, 'failed'::text])))
);

CREATE TABLE backfills (
    id bigint NOT NULL,
    pipeline text NOT NULL,
    number integer NOT NULL,
    managed_by text NOT NULL,
    resource_uid text DEFAULT ''::text NOT NULL,
    generation bigint DEFAULT 0 NOT NULL,
    target_hash text NOT NULL,
    target_output text NOT NULL,
    selection jsonb NOT NULL,
    state text NOT NULL,
    reason text DEFAULT ''::text NOT NULL,
    suspended text DEFAULT ''::text NOT NULL,
    open boolean DEFAULT false NOT NULL,
    approved_hash text DEFAULT ''::text NOT NULL,
    max_in_flight integer NOT NULL,
    rate double precision NOT NULL,
    windows jsonb DEFAULT '[]'::jsonb NOT NULL,
    time_zone text DEFAULT 'UTC'::text NOT NULL,
    failure_threshold double precision NOT NULL,
    pass integer DEFAULT 0 NOT NULL,
    cursor bigint DEFAULT 0 NOT NULL,
    found bigint DEFAULT 0 NOT NULL,
    resting boolean DEFAULT false NOT NULL,
    credit double precision DEFAULT 0 NOT NULL,
    requested bigint DEFAULT 0 NOT NULL,
    done bigint DEFAULT 0 NOT NULL,
    skipped bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    failures jsonb DEFAULT '{}'::jsonb NOT NULL,
    judged_done bigint DEFAULT 0 NOT NULL,
    judged_failed bigint DEFAULT 0 NOT NULL,
    plan jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    approved_at timestamp with time zone,
    started_at timestamp with time zone,
    pass_started_at timestamp with time zone,
    stepped_at timestamp with time zone,
    progressed_at timestamp with time zone,
    ended_at timestamp with time zone,
    lease uuid,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    canary jsonb DEFAULT '{}'::jsonb NOT NULL,
    on_missing text DEFAULT 'fetch'::text NOT NULL,
    CONSTRAINT backfills_managed_by_check CHECK ((managed_by = ANY (ARRAY['cli'::text, 'resource'::text]))),
    CONSTRAINT backfills_max_in_flight_check CHECK ((max_in_flight > 0)),
    CONSTRAINT backfills_on_missing_check CHECK ((on_missing = ANY (ARRAY['fetch'::text, 'skip'::text]))),
    CONSTRAINT backfills_rate_check CHECK ((rate > (0)::double precision)),
    CONSTRAINT backfills_state_check CHECK ((state = ANY (ARRAY['proposed'::text, 'approved'::text, 'running'::text, 'complete'::text, 'failed'::text, 'superseded'::text, 'cancelled'::text]))),
    CONSTRAINT backfills_suspended_check CHECK ((suspended = ANY (ARRAY[''::text, 'operator'::text, 'failures'::text])))
);

ALTER TABLE backfills ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME backfills_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE checkpoints (
    scan text NOT NULL,
    shard integer NOT NULL,
    after_cursor text NOT NULL,
    until_cursor text NOT NULL,
    cursor text NOT NULL,
    progress double precision DEFAULT 0 NOT NULL,
    stopped text DEFAULT ''::text NOT NULL,
    lease uuid,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone
);

CREATE TABLE heartbeats (
    role text NOT NULL,
    instance text NOT NULL,
    revision text NOT NULL,
    error text NOT NULL,
    loaded_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    hash text DEFAULT ''::text NOT NULL
);

CREATE TABLE idempotency_keys (
    principal text NOT NULL,
    key text NOT NULL,
    day date DEFAULT ((now() AT TIME ZONE 'UTC'::text))::date NOT NULL,
    fingerprint text NOT NULL,
    response bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
)
PARTITION BY RANGE (day);

CREATE TABLE image_jobs (
    image_id bigint NOT NULL,
    product_id bigint NOT NULL,
    user_id bigint NOT NULL,
    host text NOT NULL COLLATE pg_catalog."C",
    class text NOT NULL,
    job_state text NOT NULL,
    job_id uuid NOT NULL,
    traceparent text NOT NULL,
    fencing_token bigint NOT NULL,
    unreported_attempts integer NOT NULL,
    attempts integer NOT NULL,
    prefix text NOT NULL,
    poison_sha256 text NOT NULL,
    pipeline_hash text NOT NULL,
    requested_at timestamp with time zone NOT NULL,
    not_before timestamp with time zone NOT NULL,
    released_at timestamp with time zone,
    due_at timestamp with time zone NOT NULL,
    deferred_since timestamp with time zone,
    backfill_id bigint DEFAULT 0 NOT NULL,
    skip_missing boolean DEFAULT false NOT NULL,
    CONSTRAINT image_jobs_attempts_check CHECK ((attempts >= 0)),
    CONSTRAINT image_jobs_class_check CHECK ((class = ANY (ARRAY['live'::text, 'bulk'::text, 'backfill'::text]))),
    CONSTRAINT image_jobs_job_state_check CHECK ((job_state = ANY (ARRAY['queued'::text, 'processing'::text]))),
    CONSTRAINT image_jobs_unreported_attempts_check CHECK ((unreported_attempts >= 0))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000', autovacuum_analyze_scale_factor='0', autovacuum_analyze_threshold='10000');

CREATE TABLE images (
    id bigint NOT NULL,
    product_id bigint NOT NULL,
    "position" integer NOT NULL,
    source_url text NOT NULL,
    status text NOT NULL,
    fencing_token bigint DEFAULT 0 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    prefix text DEFAULT ''::text NOT NULL,
    error_code text DEFAULT ''::text NOT NULL,
    error_detail text DEFAULT ''::text NOT NULL,
    reprocess_error text DEFAULT ''::text NOT NULL,
    source_sha256 text DEFAULT ''::text NOT NULL,
    source_bytes bigint DEFAULT 0 NOT NULL,
    width integer DEFAULT 0 NOT NULL,
    height integer DEFAULT 0 NOT NULL,
    pipeline_hash text DEFAULT ''::text NOT NULL,
    renditions jsonb DEFAULT '[]'::jsonb NOT NULL,
    placeholder text DEFAULT ''::text NOT NULL,
    requested_at timestamp with time zone,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    output_hash text DEFAULT ''::text NOT NULL,
    backfill_id bigint DEFAULT 0 NOT NULL,
    original_key text DEFAULT ''::text NOT NULL,
    CONSTRAINT images_attempts_check CHECK ((attempts >= 0)),
    CONSTRAINT images_position_check CHECK (("position" >= 0)),
    CONSTRAINT images_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'ready'::text, 'failed'::text])))
);

ALTER TABLE images ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME images_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE installation (
    id uuid NOT NULL,
    epoch bigint NOT NULL
);

CREATE TABLE outbox (
    id bigint NOT NULL,
    event_id uuid NOT NULL,
    topic text NOT NULL,
    key text NOT NULL,
    type text NOT NULL,
    payload json NOT NULL,
    headers jsonb NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    available_at timestamp with time zone DEFAULT now() NOT NULL,
    parked_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000');

ALTER TABLE outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pipelines (
    hash text NOT NULL,
    spec json NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE products (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    product_name text NOT NULL,
    product_description text NOT NULL,
    product_images text[] DEFAULT '{}'::text[] NOT NULL,
    compressed_product_images text[] DEFAULT '{}'::text[] NOT NULL,
    product_price numeric(12,2) NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_at timestamp with time zone,
    revision bigint DEFAULT 1 NOT NULL,
    CONSTRAINT products_product_price_check CHECK ((product_price >= (0)::numeric)),
    CONSTRAINT products_version_check CHECK ((version > 0))
);

ALTER TABLE products ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME products_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE scheduled_deletions (
    prefix text NOT NULL,
    image_id bigint NOT NULL,
    due_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    CONSTRAINT scheduled_deletions_prefix_check CHECK ((prefix ~~ '%_/'::text))
);

CREATE TABLE users (
    id bigint NOT NULL,
    name text NOT NULL,
    email text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    email_key text NOT NULL
);

ALTER TABLE users ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME users_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY backfill_events
    ADD CONSTRAINT backfill_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY backfill_samples
    ADD CONSTRAINT backfill_samples_backfill_id_image_id_key UNIQUE (backfill_id, image_id);

ALTER TABLE ONLY backfill_samples
    ADD CONSTRAINT backfill_samples_pkey PRIMARY KEY (id);

ALTER TABLE ONLY backfills
    ADD CONSTRAINT backfills_pipeline_number_key UNIQUE (pipeline, number);

ALTER TABLE ONLY backfills
    ADD CONSTRAINT backfills_pkey PRIMARY KEY (id);

ALTER TABLE ONLY checkpoints
    ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (scan, shard);

ALTER TABLE ONLY heartbeats
    ADD CONSTRAINT heartbeats_pkey PRIMARY KEY (role, instance);

ALTER TABLE ONLY idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (principal, key, day);

ALTER TABLE ONLY image_jobs
    ADD CONSTRAINT image_jobs_pkey PRIMARY KEY (image_id);

ALTER TABLE ONLY images
    ADD CONSTRAINT images_pkey PRIMARY KEY (id);

ALTER TABLE ONLY images
    ADD CONSTRAINT images_product_id_position_key UNIQUE (product_id, "position");

ALTER TABLE ONLY installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (id);

ALTER TABLE ONLY outbox
    ADD CONSTRAINT outbox_event_id_key UNIQUE (event_id);

ALTER TABLE ONLY outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipelines
    ADD CONSTRAINT pipelines_pkey PRIMARY KEY (hash);

ALTER TABLE ONLY products
    ADD CONSTRAINT products_pkey PRIMARY KEY (id);

ALTER TABLE products
    ADD CONSTRAINT products_revision_check CHECK ((revision > 0)) NOT VALID;

ALTER TABLE ONLY scheduled_deletions
    ADD CONSTRAINT scheduled_deletions_pkey PRIMARY KEY (prefix);

ALTER TABLE ONLY users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

CREATE UNIQUE INDEX backfills_one_proposal ON backfills USING btree (pipeline) WHERE (state = 'proposed'::text);

CREATE UNIQUE INDEX backfills_one_running ON backfills USING btree ((true)) WHERE (state = 'running'::text);

CREATE UNIQUE INDEX backfills_resource ON backfills USING btree (resource_uid, generation) WHERE (resource_uid <> ''::text);

CREATE INDEX image_jobs_backfill ON image_jobs USING btree (backfill_id, image_id) WHERE (class = 'backfill'::text);

CREATE INDEX image_jobs_released ON image_jobs USING btree (host, user_id) WHERE ((released_at IS NOT NULL) AND (class <> 'backfill'::text));

CREATE INDEX image_jobs_waiting ON image_jobs USING btree (class, user_id, host, not_before, image_id) WHERE (released_at IS NULL);

CREATE UNIQUE INDEX installation_one_row ON installation USING btree ((true));

CREATE INDEX outbox_due ON outbox USING btree (available_at, id) WHERE (parked_at IS NULL);

CREATE INDEX outbox_parked ON outbox USING btree (parked_at) WHERE (parked_at IS NOT NULL);

CREATE INDEX products_deleted ON products USING btree (deleted_at) WHERE (deleted_at IS NOT NULL);

CREATE INDEX products_name ON products USING gin (product_name public.gin_trgm_ops) WHERE (deleted_at IS NULL);

CREATE INDEX products_price ON products USING btree (product_price, id) WHERE (deleted_at IS NULL);

CREATE INDEX products_user ON products USING btree (user_id, id) WHERE (deleted_at IS NULL);

CREATE INDEX products_user_price ON products USING btree (user_id, product_price, id) WHERE (deleted_at IS NULL);

CREATE INDEX scheduled_deletions_due ON scheduled_deletions USING btree (due_at) WHERE (started_at IS NULL);

CREATE INDEX scheduled_deletions_second_pass ON scheduled_deletions USING btree (due_at) WHERE (started_at IS NOT NULL);

CREATE UNIQUE INDEX users_email_key ON users USING btree (email_key);

ALTER TABLE ONLY backfill_samples
    ADD CONSTRAINT backfill_samples_backfill_id_fkey FOREIGN KEY (backfill_id) REFERENCES backfills(id) ON DELETE CASCADE;

ALTER TABLE ONLY backfills
    ADD CONSTRAINT backfills_target_hash_fkey FOREIGN KEY (target_hash) REFERENCES pipelines(hash);

ALTER TABLE ONLY image_jobs
    ADD CONSTRAINT image_jobs_image_id_fkey FOREIGN KEY (image_id) REFERENCES images(id) ON DELETE CASCADE;

ALTER TABLE ONLY images
    ADD CONSTRAINT images_product_id_fkey FOREIGN KEY (product_id) REFERENCES products(id) ON DELETE CASCADE;

ALTER TABLE ONLY products
    ADD CONSTRAINT products_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id);
