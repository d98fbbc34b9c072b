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

// DB is a pool of connections to the database, with a pool for lists and one connection for [DB.Ping] beside it. It is safe
// for concurrent use.
type DB struct {
	cfg     Config
	log     *zap.Logger
	reg     prometheus.Registerer
	pool    *sql.DB
	gorm    *gorm.DB
	slow    gormLogger // used for statements outside gorm, too
	conns   *writableConns
	metrics *metrics

	lists *lists // nil in a pool that is not [Open]'s
}

// Open returns the pools. It does not connect: connections are made when they are used, and [DB.Ping] tests one. It returns
// an error only if [Config.Validate] does.
func Open(cfg Config, log *zap.Logger, reg prometheus.Registerer) (*DB, error) {
	db, err := open("main", cfg, log, reg)
	if err != nil {
		return nil, err
	}
	if db.lists, err = newLists(cfg, db); err != nil {
		return nil, err
	}
	return db, nil
}

func open(name string, cfg Config, log *zap.Logger, reg prometheus.Registerer) (*DB, error) {
	conn, err := connConfig(cfg)
	if err != nil {
		return nil, err
	}
	conns, reload := new(writableConns), reloadRoots(cfg)
	beforeConnect := func(ctx context.Context, conn *pgx.ConnConfig) error {
		neverCancel(conn)
		return reload(ctx, conn)
	}
	pool := stdlib.OpenDB(*conn, append(conns.options(), stdlib.OptionBeforeConnect(beforeConnect))...)
	pool.SetMaxOpenConns(cfg.MaxOpenConns)
	pool.SetMaxIdleConns(cfg.MaxOpenConns)
	pool.SetConnMaxLifetime(cfg.ConnMaxLifetime)
	pool.SetConnMaxIdleTime(cfg.ConnMaxIdleTime)
	logger := gormLogger{log: log, slow: cfg.SlowQuery}
	g, err := gorm.Open(dialector{gormpg.New(gormpg.Config{Conn: pool})}, &gorm.Config{
		SkipDefaultTransaction: true, // DB.transact starts the transactions
		DisableAutomaticPing:   true,
		PrepareStmt:            false, // pgx keeps prepared statements per connection
		TranslateError:         false, // translate needs SQLSTATE and constraint, which gorm's errors lack
		Logger:                 logger,
	})
	if err != nil {
		_ = pool.Close()
		return nil, fmt.Errorf("open gorm: %w", err)
	}
	return &DB{
		cfg: cfg, log: log, reg: reg, pool: pool, gorm: g, slow: logger, conns: conns,
		metrics: newMetrics(reg, name, pool.Stats),
	}, nil
}

// connConfig returns the configuration of each connection. It sets the time limits on the server, too, where they apply
// even if this process hangs. It sets the time zone UTC, so that times inside JSON do not depend on the time zone of the
// server.
func connConfig(cfg Config) (*pgx.ConnConfig, error) {
	conn, err := cfg.login()
	if err != nil {
		return nil, err
	}
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

// reloadRoots reads the file of authorities for each new connection, because an authority may be replaced within weeks,
// and a process may run longer. If the file cannot be read, for example while it is replaced, the previous authorities
// stay.
func reloadRoots(cfg Config) func(context.Context, *pgx.ConnConfig) error {
	return func(_ context.Context, conn *pgx.ConnConfig) error {
		if current, err := cfg.login(); err == nil {
			conn.TLSConfig, conn.Fallbacks = current.TLSConfig, current.Fallbacks
		}
		return nil
	}
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// Ping returns fault.Unavailable if the database does not answer. It uses the pool: [HealthCheck] has a connection of its
// own.
func (db *DB) Ping(ctx context.Context) error {
	_, err := db.exec(ctx, "ping", "SELECT 1")
	return err
}

// Close waits for the calls in progress and closes all connections.
func (db *DB) Close() error {
	if db.lists == nil {
		return db.pool.Close()
	}
	return errors.Join(db.lists.db.Close(), db.pool.Close())
}

// call runs fn, which sends one statement. The statement must be safe to repeat, because database/sql sends it again if a
// connection broke and it assumes that the statement was not sent. fn reads rows with gorm's Find, because Scan formats
// every statement for the log, even if it is not slow.
func (db *DB) call(ctx context.Context, method string, fn func(conn *gorm.DB) error) (err error) {
	defer db.observe(method, time.Now(), &err)
	ctx, cancel := context.WithTimeout(ctx, db.cfg.Timeout)
	defer cancel()
	return translate(fn(db.gorm.WithContext(ctx)))
}

// observe records the end of a call that began at start. It is deferred, so err points to the error of the call.
func (db *DB) observe(method string, start time.Time, err *error) {
	if db.conns.inspect(*err) && db.lists != nil {
		db.lists.db.conns.discard() // lists write nothing, so they would read old rows without an error
	}
	db.metrics.observe(method, start, *err)
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

// errNothing ends a transaction that has nothing to write. The transaction is rolled back without an error.
var errNothing = errors.New("nothing to write")

// transact runs fn once between BEGIN and COMMIT. An error or a panic of fn rolls the transaction back.
func (db *DB) transact(ctx context.Context, method string, fn func(tx *gorm.DB) error) (err error) {
	defer db.observe(method, time.Now(), &err)
	ctx, cancel := context.WithTimeout(ctx, db.cfg.Timeout)
	defer cancel()
	tx := db.gorm.WithContext(ctx).Begin()
	if tx.Error != nil {
		return translate(tx.Error)
	}
	defer tx.Rollback() // no effect after Commit; if it fails, the server rolls back when the connection closes
	if err := fn(tx); err != nil {
		if errors.Is(err, errNothing) {
			return nil
		}
		if cause := ctx.Err(); cause != nil && errors.Is(err, sql.ErrTxDone) {
			err = cause
		}
		return translate(err)
	}
	if err := ctx.Err(); err != nil { // fail before COMMIT, while the outcome is certain
		return translate(err)
	}
	return translateCommit(ctx, tx.Commit().Error)
}
