package postgres

import (
	"context"

	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
)

const raiseEpoch = `UPDATE installation SET epoch = epoch + 1 RETURNING epoch`

// advanceSequences sets each sequence beyond its last value and beyond the highest id, because not every restore includes
// the sequences. A rollback does not undo it, which is harmless.
const advanceSequences = `
SELECT setval(pg_get_serial_sequence('users', 'id'), $1::bigint + greatest(
           pg_sequence_last_value(pg_get_serial_sequence('users', 'id')::regclass), (SELECT max(id) FROM users), 0)),
       setval(pg_get_serial_sequence('products', 'id'), $1::bigint + greatest(
           pg_sequence_last_value(pg_get_serial_sequence('products', 'id')::regclass), (SELECT max(id) FROM products), 0)),
       setval(pg_get_serial_sequence('images', 'id'), $1::bigint + greatest(
           pg_sequence_last_value(pg_get_serial_sequence('images', 'id')::regclass), (SELECT max(id) FROM images), 0))`

// Restored records that the database was restored from a backup and returns its new epoch. It advances the sequences of ids
// by jump, so that no id that was assigned after the backup is assigned a second time. It is harmless to repeat.
func (s *Store) Restored(ctx context.Context, jump int64) (epoch int64, err error) {
	err = s.db.transact(ctx, "restored", func(tx *gorm.DB) error {
		if err := tx.Exec(advanceSequences, jump).Error; err != nil {
			return err
		}
		return tx.Raw(raiseEpoch).Find(&epoch).Error
	})
	return epoch, err
}

// raiseVersions includes deleted products, because the deletion is cached under a version, too.
const raiseVersions = `
WITH batch AS MATERIALIZED (SELECT id FROM products WHERE id > $1 ORDER BY id LIMIT $2 FOR UPDATE),
raised AS (UPDATE products p SET version = p.version + $3 FROM batch WHERE p.id = batch.id)
SELECT count(*) AS products, coalesce(max(id), 0) AS last FROM batch`

// RaiseVersions adds jump to the versions of up to limit products with ids above after, in the order of their ids, and
// returns their number and the last id.
//
// After a restore, caches and messages contain versions that the database has lost, and new changes would get the same
// versions and be taken for old ones. Versions above all of the lost ones prevent that, because the higher version wins.
func (s *Store) RaiseVersions(ctx context.Context, after catalog.ProductID, limit int, jump int64,
) (products int, last catalog.ProductID, err error) {
	type row struct {
		Products int
		Last     catalog.ProductID
	}
	raised, err := find[row](ctx, s.db, "raise_versions", nil, raiseVersions, int64(after), limit, jump)
	return raised.Products, raised.Last, err
}
