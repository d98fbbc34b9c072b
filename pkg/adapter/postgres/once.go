package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/failpoint"
)

// lockKey does not wait, so that a request whose key is locked fails at once and releases its connection. Advisory locks
// belong to the whole database, so the schema is part of the name.
const lockKey = `SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || ' ' || $1 || ' ' || $2, 1))`

// selectKey looks a key up in the partitions that may have keys of the last 24 hours, which is how long a key is kept. Older
// keys stay until their partition is dropped, but have no effect.
const selectKey = `
SELECT fingerprint, response FROM idempotency_keys
WHERE principal = $1 AND key = $2 AND created_at > now() - interval '24 hours'
    AND day >= ((now() - interval '24 hours') AT TIME ZONE 'UTC')::date
ORDER BY created_at DESC LIMIT 1`

const insertKey = `
INSERT INTO idempotency_keys (principal, key, fingerprint, response) VALUES ($1, $2, $3, $4)`

// InsertOnce implements catalog.Store.
func (s *Store) InsertOnce(ctx context.Context, key catalog.IdempotencyKey, p catalog.Product,
	announce func(catalog.Product) []catalog.Outgoing, respond func(catalog.Product) (catalog.SavedResponse, error),
) (inserted catalog.Product, saved catalog.SavedResponse, replayed bool, err error) {
	saved, replayed, err = s.once(ctx, "insert_once", key, func(tx *gorm.DB) (catalog.SavedResponse, error) {
		if err := insert(tx, &p, announce); err != nil {
			return nil, err
		}
		return responseTo(p, respond)
	})
	if err != nil || replayed {
		return catalog.Product{}, saved, replayed, err
	}
	return p, saved, false, nil
}

// InsertUserOnce implements catalog.Store.
func (s *Store) InsertUserOnce(ctx context.Context, key catalog.IdempotencyKey, u catalog.User,
	respond func(catalog.User) (catalog.SavedResponse, error),
) (saved catalog.SavedResponse, replayed bool, err error) {
	return s.once(ctx, "insert_user_once", key, func(tx *gorm.DB) (catalog.SavedResponse, error) {
		if err := insertUserRow(tx, &u); err != nil {
			return nil, err
		}
		return responseTo(u, respond)
	})
}

// EditOnce implements catalog.Store.
func (s *Store) EditOnce(ctx context.Context, key catalog.IdempotencyKey, id catalog.ProductID,
	fn func(*catalog.Product, time.Time) (catalog.Change, error),
	respond func(catalog.Product) (catalog.SavedResponse, error),
) (edited catalog.Product, saved catalog.SavedResponse, replayed bool, err error) {
	unlock, err := s.lockEdits(ctx, id)
	if err != nil {
		return catalog.Product{}, nil, false, err
	}
	defer unlock()
	saved, replayed, err = s.once(ctx, "edit_once", key, func(tx *gorm.DB) (catalog.SavedResponse, error) {
		var err error
		if edited, err = edit(tx, id, fn); err != nil && !errors.Is(err, errNothing) {
			return nil, err
		}
		return responseTo(edited, respond)
	})
	if err != nil || replayed {
		return catalog.Product{}, saved, replayed, err
	}
	return edited, saved, false, nil
}

// once runs act and saves the response that it returns, unless a request with the key has done so. The lock is held until
// the transaction ends, and a later statement reads the key, so the holder of the lock sees what the previous holder
// committed. The lock of the key is taken before all others.
func (s *Store) once(ctx context.Context, method string, key catalog.IdempotencyKey,
	act func(tx *gorm.DB) (catalog.SavedResponse, error),
) (saved catalog.SavedResponse, replayed bool, err error) {
	err = s.db.transact(ctx, method, func(tx *gorm.DB) error {
		var err error
		if saved, replayed, err = lockIdempotencyKey(tx, key); err != nil {
			return err
		}
		if replayed {
			return errNothing
		}
		if saved, err = act(tx); err != nil {
			return err
		}
		if err := insertIdempotencyKey(tx, key, saved); err != nil {
			return err
		}
		failpoint.Hit(failpoint.KeyWritten)
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	return saved, replayed, nil
}

// responseTo calls respond, whose error translate returns unchanged.
func responseTo[T any](of T, respond func(T) (catalog.SavedResponse, error)) (catalog.SavedResponse, error) {
	saved, err := respond(of)
	if err != nil {
		return nil, callerError{err}
	}
	return saved, nil
}

// SavedResponse implements maintenance.SavedResponses.
func (s *Store) SavedResponse(ctx context.Context, key catalog.IdempotencyKey,
) (saved catalog.SavedResponse, found bool, err error) {
	err = s.db.call(ctx, "saved_response", func(conn *gorm.DB) error {
		saved, found, err = findKey(conn, key)
		return err
	})
	return saved, found, err
}

// SaveResponse implements maintenance.SavedResponses.
func (s *Store) SaveResponse(ctx context.Context, key catalog.IdempotencyKey, response catalog.SavedResponse,
) (catalog.SavedResponse, error) {
	saved, _, err := s.once(ctx, "save_response", key, func(*gorm.DB) (catalog.SavedResponse, error) { return response, nil })
	return saved, err
}

// insertIdempotencyKey stores the response to a request. It returns fault.Unavailable if today has no partition.
func insertIdempotencyKey(tx *gorm.DB, key catalog.IdempotencyKey, saved catalog.SavedResponse) error {
	err := tx.Exec(insertKey, key.Principal, key.Key, key.Fingerprint, []byte(saved)).Error
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pg) && pg.Code == checkViolation && pg.ConstraintName == "": // a constraint would have a name
		return unavailable(err, "idempotency keys cannot be stored at the moment")
	default:
		return fmt.Errorf("insert idempotency key: %w", err)
	}
}

// lockIdempotencyKey locks the key and returns the response to an earlier request with it. found is false if there was none.
func lockIdempotencyKey(tx *gorm.DB, key catalog.IdempotencyKey) (saved catalog.SavedResponse, found bool, err error) {
	var free bool
	if err := tx.Raw(lockKey, key.Principal, key.Key).Find(&free).Error; err != nil {
		return nil, false, fmt.Errorf("lock idempotency key: %w", err)
	}
	if !free {
		return nil, false, callerError{catalog.ErrInProgress}
	}
	return findKey(tx, key)
}

// findKey returns the response to an earlier request with the key. found is false if there was none.
func findKey(conn *gorm.DB, key catalog.IdempotencyKey) (saved catalog.SavedResponse, found bool, err error) {
	var row struct {
		Fingerprint string
		Response    []byte
	}
	rows := conn.Raw(selectKey, key.Principal, key.Key).Find(&row)
	switch {
	case rows.Error != nil:
		return nil, false, fmt.Errorf("load idempotency key: %w", rows.Error)
	case rows.RowsAffected == 0:
		return nil, false, nil
	case row.Fingerprint != key.Fingerprint:
		return nil, false, callerError{catalog.ErrKeyReused}
	}
	return row.Response, true, nil
}
