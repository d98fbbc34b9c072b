package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// emailKeysComplete tells whether [fillEmailKeys] has made the column NOT NULL.
const emailKeysComplete = `
SELECT coalesce((SELECT attnotnull FROM pg_attribute
    WHERE attrelid = to_regclass('users') AND attname = 'email_key'), false)`

// One run at a time fills the keys. Programs cannot add users meanwhile.
const (
	lockEmailKeys = `SELECT pg_advisory_xact_lock(hashtextextended('vitrine email keys ' || current_schema(), 0))`
	lockUsers     = `SET LOCAL lock_timeout = '2s'; LOCK TABLE users IN ACCESS EXCLUSIVE MODE`
)

const (
	selectUsersWithoutKey = `SELECT id, email FROM users WHERE email_key IS NULL ORDER BY id`
	selectUsersWithKey    = `SELECT id, email_key FROM users WHERE email_key = ANY($1) ORDER BY id`
	updateEmailKeys       = `
UPDATE users SET email_key = n.key FROM unnest($1::bigint[], $2::text[]) AS n (id, key) WHERE users.id = n.id`
	requireEmailKeys = `ALTER TABLE users ALTER COLUMN email_key SET NOT NULL`
)

// fillEmailKeys completes the migration 00008_email_key: it computes the keys of addresses outside ASCII by
// [catalog.EmailKey], which SQL cannot compute, and makes the column NOT NULL. fault.Conflict with the users' ids if two
// users have one address; then nothing is changed. It is idempotent and safe to run concurrently.
func fillEmailKeys(ctx context.Context, pool *sql.DB) error {
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no effect after Commit
	if _, err := tx.ExecContext(ctx, lockEmailKeys); err != nil {
		return err
	}
	var complete bool
	if err := tx.QueryRowContext(ctx, emailKeysComplete).Scan(&complete); err != nil || complete {
		return err
	}
	if _, err := tx.ExecContext(ctx, lockUsers); err != nil {
		return err
	}
	if err := updateKeys(ctx, tx); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, requireEmailKeys); err != nil {
		return err
	}
	return tx.Commit()
}

func updateKeys(ctx context.Context, tx *sql.Tx) error {
	ids, keys, err := usersAnd(ctx, tx, selectUsersWithoutKey)
	if err != nil {
		return err
	}
	for i, email := range keys {
		keys[i] = catalog.EmailKey(email)
	}
	otherIDs, otherKeys, err := usersAnd(ctx, tx, selectUsersWithKey, keys)
	if err != nil {
		return err
	}
	if same := sameKeys(append(otherIDs, ids...), append(otherKeys, keys...)); len(same) > 0 {
		return fault.New(fault.Conflict, "email_conflict", "these users have one e-mail address in different spellings: "+
			strings.Join(same, "; ")+". In the table users, change email and set email_key to NULL for all but one of each, "+
			"then repeat")
	}
	_, err = tx.ExecContext(ctx, updateEmailKeys, ids, keys)
	return err
}

// usersAnd returns the ids of users and a text of each.
func usersAnd(ctx context.Context, tx *sql.Tx, query string, args ...any) (ids []int64, texts []string, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id int64
		var text string
		if err := rows.Scan(&id, &text); err != nil {
			return nil, nil, err
		}
		ids, texts = append(ids, id), append(texts, text)
	}
	return ids, texts, rows.Err()
}

// sameKeys returns the ids of users with the same key, such as "3, 9", in the order of the smallest ids.
func sameKeys(ids []int64, keys []string) []string {
	byKey := map[string][]int64{}
	for i, key := range keys {
		byKey[key] = append(byKey[key], ids[i])
	}
	var groups [][]int64
	for _, group := range byKey {
		if len(group) > 1 {
			slices.Sort(group)
			groups = append(groups, group)
		}
	}
	slices.SortFunc(groups, slices.Compare)
	texts := make([]string, len(groups))
	for i, group := range groups {
		texts[i] = strings.ReplaceAll(strings.Trim(fmt.Sprint(group), "[]"), " ", ", ")
	}
	return texts
}
