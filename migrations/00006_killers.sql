-- +goose Up

-- Nothing here reads a table, but it has to be alone with it for a moment. Rather try again than have everybody wait behind a
-- long transaction.
SET LOCAL lock_timeout = '2s';

-- The content that a codec did not survive in the present request, in hexadecimal. Programs that do not know of it leave it as
-- it is.
ALTER TABLE images ADD COLUMN killer_sha256 text NOT NULL DEFAULT '';

-- +goose Down

ALTER TABLE images DROP COLUMN killer_sha256;
