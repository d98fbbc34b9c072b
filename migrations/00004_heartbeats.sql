-- +goose Up

-- What each running program last said of its pipeline. A row is removed by an orderly stop, and means nothing once it is old.
CREATE TABLE heartbeats (
    role      text NOT NULL,
    instance  text NOT NULL,
    revision  text NOT NULL,
    error     text NOT NULL,
    loaded_at timestamptz NOT NULL,
    seen_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (role, instance)
);

-- +goose Down

DROP TABLE heartbeats;
