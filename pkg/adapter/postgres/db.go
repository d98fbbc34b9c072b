package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	gormpg "gorm.io/driver/postgres"
	"gorm.io/gorm"
)

// DB is a pool of connections to the database. It is safe for concurrent use.
type DB struct {
	cfg     Config
	log     *zap.Logger
	reg     prometheus.Registerer
	pool    *sql.DB
	gorm    *gorm.DB
	slow    gormLogger // also for statements that do not go through gorm
	metrics *metrics
}

// Open prepares a pool. It needs no server: connections are made when they are used, and [DB.Ping] tells whether that
// works. It fails only on a configuration that [Config.Validate] refuses.
func Open(cfg Config, log *zap.Logger, reg prometheus.Registerer) (*DB, error) {
	return open("main", cfg, log, reg)
}

func open(name string, cfg Config, log *zap.Logger, reg prometheus.Registerer) (*DB, error) {
	conn, err := connConfig(cfg)
	if err != nil {
		return nil, err
	}
	pool := stdlib.OpenDB(*conn, stdlib.OptionBeforeConnect(reloadRoots(cfg)))
	pool.SetMaxOpenConns(cfg.MaxOpenConns)
	pool.SetMaxIdleConns(cfg.MaxOpenConns)
	pool.SetConnMaxLifetime(cfg.ConnMaxLifetime)
	pool.SetConnMaxIdleTime(cfg.ConnMaxIdleTime)
	logger := gormLogger{log: log, slow: cfg.SlowQuery}
	g, err := gorm.Open(dialector{gormpg.New(gormpg.Config{Conn: pool})}, &gorm.Config{
		SkipDefaultTransaction: true, // transactions are DB.transact's
		DisableAutomaticPing:   true,
		PrepareStmt:            false, // pgx keeps prepared statements per connection
		TranslateError:         false, // translate needs SQLSTATE and constraint, not gorm's summary of them
		Logger:                 logger,
	})
	if err != nil {
		_ = pool.Close()
		return nil, fmt.Errorf("open gorm: %w", err)
	}
	return &DB{
		cfg: cfg, log: log, reg: reg, pool: pool, gorm: g, slow: logger,
		metrics: newMetrics(reg, name, pool.Stats),
	}, nil
}

// connConfig returns how each connection is made: with the limits that the server has to keep even if this process
// no longer can, and in UTC, so that times inside JSON read the same everywhere.
func connConfig(cfg Config) (*pgx.ConnConfig, error) {
	conn, err := cfg.login()
	if err != nil {
		return nil, err
	}
	conn.ConnectTimeout = cfg.ConnectTimeout
	for name, value := range map[string]string{
		"application_name":                    cfg.ApplicationName,
		"timezone":                            "UTC",
		"statement_timeout":                   milliseconds(cfg.StatementTimeout),
		"lock_timeout":                        milliseconds(cfg.LockTimeout),
		"idle_in_transaction_session_timeout": milliseconds(cfg.Timeout),
	} {
		conn.RuntimeParams[name] = value
	}
	return conn, nil
}

// reloadRoots reads the authority's file again for each new connection: authorities that operators and certificate managers
// make live for weeks, and a process may live longer. A file that is just being replaced leaves what was read before.
func reloadRoots(cfg Config) func(context.Context, *pgx.ConnConfig) error {
	return func(_ context.Context, conn *pgx.ConnConfig) error {
		if fresh, err := cfg.login(); err == nil {
			conn.TLSConfig, conn.Fallbacks = fresh.TLSConfig, fresh.Fallbacks
		}
		return nil
	}
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// Ping reports whether the database answers: fault.Unavailable if it does not.
func (db *DB) Ping(ctx context.Context) error {
	_, err := db.exec(ctx, "ping", "SELECT 1")
	return err
}

// Close closes the connections, after waiting for those in use.
func (db *DB) Close() error { return db.pool.Close() }

// call runs fn, which sends one statement that may be sent twice: database/sql repeats it when it believes that a broken
// connection never carried it. Rows are read with gorm's Find and not with its Scan, which formats every statement for the
// log whether or not it is slow.
func (db *DB) call(ctx context.Context, method string, fn func(conn *gorm.DB) error) (err error) {
	defer db.metrics.observe(method, time.Now(), &err)
	ctx, cancel := context.WithTimeout(ctx, db.cfg.Timeout)
	defer cancel()
	return translate(fn(db.gorm.WithContext(ctx)))
}

// exec sends one statement by [DB.call] and returns how many rows it affected.
func (db *DB) exec(ctx context.Context, method, statement string, args ...any) (rows int64, err error) {
	err = db.call(ctx, method, func(conn *gorm.DB) error {
		done := conn.Exec(statement, args...)
		rows = done.RowsAffected
		return done.Error
	})
	return rows, err
}

// query sends one statement by [DB.call] and returns its rows.
func query[T any](ctx context.Context, db *DB, method, statement string, args ...any) ([]T, error) {
	var rows []T
	err := db.call(ctx, method, func(conn *gorm.DB) error { return conn.Raw(statement, args...).Find(&rows).Error })
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// find sends one statement by [DB.call] and returns its row, or the error missing if there is none.
func find[T any](ctx context.Context, db *DB, method string, missing error, statement string, args ...any) (T, error) {
	var row T
	err := db.call(ctx, method, func(conn *gorm.DB) error {
		found := conn.Raw(statement, args...).Find(&row)
		if found.Error == nil && found.RowsAffected == 0 {
			return missing
		}
		return found.Error
	})
	return row, err
}

// errNothing ends a transaction that has nothing to write: it is rolled back, and that is no error.
var errNothing = errors.New("nothing to write")

// transact runs fn between BEGIN and COMMIT, once: nothing is repeated. An error or a panic of fn rolls everything back.
func (db *DB) transact(ctx context.Context, method string, fn func(tx *gorm.DB) error) (err error) {
	defer db.metrics.observe(method, time.Now(), &err)
	ctx, cancel := context.WithTimeout(ctx, db.cfg.Timeout)
	defer cancel()
	tx := db.gorm.WithContext(ctx).Begin()
	if tx.Error != nil {
		return translate(tx.Error)
	}
	done := false
	defer func() {
		if !done {
			tx.Rollback() // its error adds nothing: the server rolls back what loses its connection
		}
	}()
	if err := fn(tx); err != nil {
		if errors.Is(err, errNothing) {
			return nil
		}
		if cause := ctx.Err(); cause != nil && errors.Is(err, sql.ErrTxDone) {
			err = cause
		}
		return translate(err)
	}
	if err := ctx.Err(); err != nil { // better certainly not than perhaps
		return translate(err)
	}
	done = true
	return translateCommit(ctx, tx.Commit().Error)
}
