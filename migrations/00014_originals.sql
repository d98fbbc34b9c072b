-- +goose Up

SET LOCAL lock_timeout = '2s';

-- original_key is the key of the image's source in the bucket for originals, '' if it is not kept. It has no index, so that
-- updates of images stay HOT.
ALTER TABLE images ADD COLUMN original_key text NOT NULL DEFAULT '';

-- on_missing says what becomes of images without an original. skip_missing of a job is that of its backfill.
ALTER TABLE backfills ADD COLUMN on_missing text NOT NULL DEFAULT 'fetch' CHECK (on_missing IN ('fetch', 'skip'));
ALTER TABLE image_jobs ADD COLUMN skip_missing boolean NOT NULL DEFAULT false;

-- +goose Down

SET LOCAL lock_timeout = '2s';

ALTER TABLE image_jobs DROP COLUMN skip_missing;
ALTER TABLE backfills DROP COLUMN on_missing;
ALTER TABLE images DROP COLUMN original_key;
