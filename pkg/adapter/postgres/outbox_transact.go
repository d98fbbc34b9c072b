package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// transactPgx is transact on a bare pgx connection. The batches of the outbox read hundreds of rows, and gorm and
// database/sql need more time to read a row than the Kafka client to send it. A deadline that passes closes the connection,
// which rolls the transaction back.
func (db *DB) transactPgx(ctx context.Context, method string, fn func(ctx context.Context, tx pgx.Tx) error) error {
	return db.onConn(ctx, method, func(ctx context.Context, conn *sql.Conn) error {
		return conn.Raw(func(driver any) error {
			bare, ok := driver.(*stdlib.Conn)
			if !ok {
				return fmt.Errorf("the connections of the pool are of type %T", driver)
			}
			return transactPgx(ctx, bare.Conn(), fn)
		})
	})
}

// onConn runs fn with one connection of the pool.
func (db *DB) onConn(ctx context.Context, method string, fn func(ctx context.Context, conn *sql.Conn) error) (err error) {
	defer db.observe(method, time.Now(), &err)
	ctx, cancel := context.WithTimeout(ctx, db.cfg.Timeout)
	defer cancel()
	conn, err := db.pool.Conn(ctx)
	if err != nil {
		return translate(err)
	}
	defer conn.Close()
	return translate(fn(ctx, conn))
}

func transactPgx(ctx context.Context, conn *pgx.Conn, fn func(ctx context.Context, tx pgx.Tx) error) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return translate(err)
	}
	defer tx.Rollback(ctx) //nolint:errcheck // no effect after Commit; if it fails, pgx closes the connection
	if err := fn(ctx, tx); err != nil {
		if errors.Is(err, errNothing) {
			return nil
		}
		return translate(err)
	}
	if err := ctx.Err(); err != nil { // fail before COMMIT, while the outcome is certain
		return translate(err)
	}
	return translateCommit(ctx, tx.Commit(ctx))
}
