-- +goose Up

-- Which database this is, and how often it was restored from a backup: one row.
CREATE TABLE installation (
    id    uuid NOT NULL PRIMARY KEY,
    epoch bigint NOT NULL
);

CREATE UNIQUE INDEX installation_one_row ON installation ((true));

INSERT INTO installation (id, epoch) VALUES (gen_random_uuid(), 0);

-- +goose Down

DROP TABLE installation;
