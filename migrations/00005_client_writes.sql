-- +goose Up

-- version grows with every visible change; revision only with those that a client asked for.
ALTER TABLE products ADD COLUMN revision bigint NOT NULL DEFAULT 1 CHECK (revision > 0);

-- Pictures that change places do so in one statement, at whose end no two may share one.
ALTER TABLE images DROP CONSTRAINT images_product_id_position_key;
ALTER TABLE images ADD CONSTRAINT images_place UNIQUE (product_id, position) DEFERRABLE INITIALLY IMMEDIATE;

-- How far each audit of bucket and rows has come, and when its next turn is. Whoever takes a turn moves due_at on first.
CREATE TABLE audits (
    name   text PRIMARY KEY,
    cursor text NOT NULL DEFAULT '',
    due_at timestamptz NOT NULL DEFAULT now()
);

-- +goose Down

DROP TABLE audits;
ALTER TABLE images DROP CONSTRAINT images_place;
ALTER TABLE images ADD CONSTRAINT images_product_id_position_key UNIQUE (product_id, position);
ALTER TABLE products DROP COLUMN revision;
