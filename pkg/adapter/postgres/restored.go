package postgres

import (
	"context"

	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
)

const raiseEpoch = `UPDATE installation SET epoch = epoch + 1 RETURNING epoch`

// jumpIdentities takes the sequences beyond what they have given and beyond what is there: not every restore brings them
// back. A sequence does not go back when the transaction does, which is no harm.
const jumpIdentities = `
SELECT setval(pg_get_serial_sequence('users', 'id'), $1::bigint + greatest(
           pg_sequence_last_value(pg_get_serial_sequence('users', 'id')::regclass), (SELECT max(id) FROM users), 0)),
       setval(pg_get_serial_sequence('products', 'id'), $1::bigint + greatest(
           pg_sequence_last_value(pg_get_serial_sequence('products', 'id')::regclass), (SELECT max(id) FROM products), 0)),
       setval(pg_get_serial_sequence('images', 'id'), $1::bigint + greatest(
           pg_sequence_last_value(pg_get_serial_sequence('images', 'id')::regclass), (SELECT max(id) FROM images), 0))`

// Restored tells the database that it came back from a backup, and returns its new epoch. Ids go on jump further, so that
// none is given again that was given after the backup was made. Repeating it does it again, which is no harm.
func (s *Store) Restored(ctx context.Context, jump int64) (epoch int64, err error) {
	err = s.db.transact(ctx, "restored", func(tx *gorm.DB) error {
		if err := tx.Exec(jumpIdentities, jump).Error; err != nil {
			return err
		}
		return tx.Raw(raiseEpoch).Find(&epoch).Error
	})
	return epoch, err
}

// raiseVersions takes deleted products, too: that they are gone is cached at a version as well.
const raiseVersions = `
WITH batch AS MATERIALIZED (SELECT id FROM products WHERE id > $1 ORDER BY id LIMIT $2 FOR UPDATE),
raised AS (UPDATE products p SET version = p.version + $3 FROM batch WHERE p.id = batch.id)
SELECT count(*) AS products, coalesce(max(id), 0) AS last FROM batch`

// RaiseVersions adds jump to the versions of up to limit products with ids above after, in the order of their ids, and
// returns how many there were and the last of them.
//
// After a restore, caches and messages speak of versions that did not happen, and what will happen has the same numbers:
// news would be taken for old. Versions that are higher than all of those settle it, by the rule that the higher one wins.
func (s *Store) RaiseVersions(ctx context.Context, after catalog.ProductID, limit int, jump int64,
) (products int, last catalog.ProductID, err error) {
	type row struct {
		Products int
		Last     catalog.ProductID
	}
	raised, err := find[row](ctx, s.db, "raise_versions", nil, raiseVersions, int64(after), limit, jump)
	return raised.Products, raised.Last, err
}
