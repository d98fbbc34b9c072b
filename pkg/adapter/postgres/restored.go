package postgres

import (
	"context"

	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
)

const incrementEpoch = `UPDATE installation SET epoch = epoch + 1 RETURNING epoch`

// advanceSequences sets each sequence beyond its last value and beyond the highest id, because not every restore includes
// the sequences. A rollback does not undo it, which is harmless.
const advanceSequences = `
SELECT setval(pg_get_serial_sequence('users', 'id'), $1::bigint + greatest(
           pg_sequence_last_value(pg_get_serial_sequence('users', 'id')::regclass), (SELECT max(id) FROM users), 0)),
       setval(pg_get_serial_sequence('products', 'id'), $1::bigint + greatest(
           pg_sequence_last_value(pg_get_serial_sequence('products', 'id')::regclass), (SELECT max(id) FROM products), 0)),
       setval(pg_get_serial_sequence('images', 'id'), $1::bigint + greatest(
           pg_sequence_last_value(pg_get_serial_sequence('images', 'id')::regclass), (SELECT max(id) FROM images), 0))`

// Restored records that the database was restored from a backup and returns its new epoch. It advances the sequences of
// ids by increment, so that no id that was assigned after the backup is assigned a second time. It may be repeated.
func (s *Store) Restored(ctx context.Context, increment int64) (epoch int64, err error) {
	err = s.db.transact(ctx, "restored", func(tx *gorm.DB) error {
		if err := tx.Exec(advanceSequences, increment).Error; err != nil {
			return err
		}
		return tx.Raw(incrementEpoch).Find(&epoch).Error
	})
	return epoch, err
}

// incrementVersions includes deleted products, because the deletion is cached under a version, too.
const incrementVersions = `
WITH batch AS MATERIALIZED (SELECT id FROM products WHERE id > $1 ORDER BY id LIMIT $2 FOR UPDATE),
updated AS (UPDATE products p SET version = p.version + $3 FROM batch WHERE p.id = batch.id)
SELECT count(*) AS products, coalesce(max(id), 0) AS last FROM batch`

// IncrementVersions adds increment to the versions of up to limit products with ids above after, in the order of their
// ids. It returns their number and the last id.
//
// After a restore, caches and messages contain versions that the database has lost. New changes would get the same
// versions, and readers would take them for the old ones. Therefore the versions must grow beyond all lost ones.
func (s *Store) IncrementVersions(ctx context.Context, after catalog.ProductID, limit int, increment int64,
) (products int, last catalog.ProductID, err error) {
	type row struct {
		Products int
		Last     catalog.ProductID
	}
	updated, err := find[row](ctx, s.db, "increment_versions", nil, incrementVersions, int64(after), limit, increment)
	return updated.Products, updated.Last, err
}
