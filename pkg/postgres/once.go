package postgres

import (
	"context"
	"fmt"

	"gorm.io/gorm"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/failpoint"
)

// lockKey waits for nobody: a request that finds its key locked is told so at once, and holds no connection. Advisory locks
// are the whole database's, so the schema is part of the name.
const lockKey = `SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || ' ' || $1 || ' ' || $2, 1))`

const selectKey = `SELECT fingerprint, status, headers, body FROM idempotency_keys WHERE principal = $1 AND key = $2`

const insertKey = `
INSERT INTO idempotency_keys (principal, key, fingerprint, status, headers, body) VALUES ($1, $2, $3, $4, $5, $6)`

// keyRow is a row of idempotency_keys.
type keyRow struct {
	Fingerprint string
	Status      int
	Headers     asJSON[map[string]string]
	Body        []byte
}

// InsertOnce implements catalog.Store. The lock is held until the transaction ends, and the key is looked up by a statement
// after it: whoever gets the lock sees what its last holder committed.
func (s *Store) InsertOnce(ctx context.Context, once catalog.Once, p catalog.Product,
	announce func(catalog.Product) []catalog.Outgoing, answer func(catalog.Product) (catalog.Reply, error),
) (catalog.Product, catalog.Reply, bool, error) {
	var reply catalog.Reply
	replayed := false
	err := s.db.transact(ctx, "insert_once", func(tx *gorm.DB) error {
		earlier, err := takeKey(tx, once)
		if err != nil {
			return err
		}
		if earlier != nil {
			reply, replayed = *earlier, true
			return errNothing
		}
		if err := insert(tx, &p, announce); err != nil {
			return err
		}
		if reply, err = answer(p); err != nil {
			return asIs{err}
		}
		err = tx.Exec(insertKey, once.Principal, once.Key, once.Fingerprint, reply.Status,
			asJSON[map[string]string]{reply.Headers}, reply.Body).Error
		if err != nil {
			return fmt.Errorf("insert idempotency key: %w", err)
		}
		failpoint.Hit(failpoint.KeyWritten)
		return nil
	})
	if err != nil {
		return catalog.Product{}, catalog.Reply{}, false, err
	}
	if replayed {
		p = catalog.Product{}
	}
	return p, reply, replayed, nil
}

// takeKey locks the key and returns what the request that used it was answered, or nil if none has.
func takeKey(tx *gorm.DB, once catalog.Once) (*catalog.Reply, error) {
	var free bool
	if err := tx.Raw(lockKey, once.Principal, once.Key).Find(&free).Error; err != nil {
		return nil, fmt.Errorf("lock idempotency key: %w", err)
	}
	if !free {
		return nil, asIs{catalog.ErrInProgress}
	}
	var row keyRow
	found := tx.Raw(selectKey, once.Principal, once.Key).Find(&row)
	switch {
	case found.Error != nil:
		return nil, fmt.Errorf("load idempotency key: %w", found.Error)
	case found.RowsAffected == 0:
		return nil, nil //nolint:nilnil // there is none, and that is no error
	case row.Fingerprint != once.Fingerprint:
		return nil, asIs{catalog.ErrKeyReused}
	}
	return &catalog.Reply{Status: row.Status, Headers: row.Headers.V, Body: row.Body}, nil
}
