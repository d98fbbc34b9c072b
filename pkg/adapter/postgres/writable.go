package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// writableConns closes the connections of a pool that lead to a server which accepts no writes.
//
// New connections go to a writable server, because [Config.login] sets target_session_attrs=read-write. But a connection may
// become read-only later: a pooler keeps it while the server behind it becomes a standby. Then a write fails with SQLSTATE
// 25006. After one such error, every connection that was made before it is closed instead of used again, so that not each of
// them fails a call first.
type writableConns struct{ generation atomic.Int64 }

// generationKey is the key of a connection's generation among its custom data.
const generationKey = "vitrine.generation"

// options returns the hooks of the pool.
func (w *writableConns) options() []stdlib.OptionOpenDB {
	return []stdlib.OptionOpenDB{
		stdlib.OptionAfterConnect(func(_ context.Context, conn *pgx.Conn) error {
			conn.PgConn().CustomData()[generationKey] = w.generation.Load()
			return nil
		}),
		stdlib.OptionResetSession(func(_ context.Context, conn *pgx.Conn) error {
			if conn.PgConn().CustomData()[generationKey] != w.generation.Load() {
				return driver.ErrBadConn
			}
			return nil
		}),
	}
}

// inspect reads the error of a call.
func (w *writableConns) inspect(err error) (discarded bool) {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == readOnlyTransaction {
		w.discard()
		return true
	}
	return false
}

// discard closes all connections before their next use.
func (w *writableConns) discard() { w.generation.Add(1) }
