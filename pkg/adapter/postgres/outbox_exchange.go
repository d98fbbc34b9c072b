package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// transactPgx is transact on a bare connection, for the outbox's rounds of hundreds of rows: gorm and database/sql together
// spend more on reading a row than Kafka's client does on sending it. A deadline that passes closes the connection, which
// rolls back.
func (db *DB) transactPgx(ctx context.Context, method string, fn func(ctx context.Context, tx pgx.Tx) error) (err error) {
	defer db.metrics.observe(method, time.Now(), &err)
	ctx, cancel := context.WithTimeout(ctx, db.cfg.Timeout)
	defer cancel()
	conn, err := db.pool.Conn(ctx)
	if err != nil {
		return translate(err)
	}
	defer conn.Close()
	return conn.Raw(func(driver any) error {
		bare, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("the pool's connections are %T", driver)
		}
		return transactPgx(ctx, bare.Conn(), fn)
	})
}

func transactPgx(ctx context.Context, conn *pgx.Conn, fn func(ctx context.Context, tx pgx.Tx) error) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return translate(err)
	}
	defer tx.Rollback(ctx) //nolint:errcheck // after Commit it does nothing; a connection on which it fails is closed
	if err := fn(ctx, tx); err != nil {
		if errors.Is(err, errNothing) {
			return nil
		}
		return translate(err)
	}
	if err := ctx.Err(); err != nil { // better certainly not than perhaps
		return translate(err)
	}
	return translateCommit(ctx, tx.Commit(ctx))
}
