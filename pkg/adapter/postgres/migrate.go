package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"go.uber.org/zap"

	"vitrine.io/migrations"
	"vitrine.io/pkg/foundation/fault"
)

// Migration is one migration of the schema.
type Migration struct {
	Version   int64
	Name      string    // of its file
	AppliedAt time.Time // zero if it is not applied
}

// Migrate applies the migrations that are missing. It is idempotent and safe to run concurrently: a lock in the database
// lets one run at a time, and the others then have nothing to do. If a migration fails, the earlier ones stay applied.
// fault.Conflict if users from before migration 8 have one e-mail address in two spellings.
func Migrate(ctx context.Context, cfg Config, log *zap.Logger) error {
	return withProvider(ctx, cfg, func(p *goose.Provider, pool *sql.DB) error {
		results, err := p.Up(ctx)
		logResults(log, results)
		if err != nil {
			return err
		}
		return fillEmailKeys(ctx, pool)
	})
}

// MigrateDown reverts the newest applied migration and deletes its data. It is no error if none is applied.
func MigrateDown(ctx context.Context, cfg Config, log *zap.Logger) error {
	return withProvider(ctx, cfg, func(p *goose.Provider, _ *sql.DB) error {
		version, err := p.GetDBVersion(ctx)
		if err != nil || version == 0 {
			return err
		}
		result, err := p.Down(ctx)
		if result != nil {
			logResults(log, []*goose.MigrationResult{result})
		}
		return err
	})
}

// MigrationStatus returns every migration that this program knows, oldest first.
func MigrationStatus(ctx context.Context, cfg Config) ([]Migration, error) {
	var known []Migration
	err := withProvider(ctx, cfg, func(p *goose.Provider, _ *sql.DB) error {
		status, err := p.Status(ctx)
		for _, s := range status {
			known = append(known, Migration{
				Version: s.Source.Version, Name: path.Base(s.Source.Path), AppliedAt: s.AppliedAt,
			})
		}
		return err
	})
	return known, err
}

// withProvider runs fn with a goose provider and the pool of its own that the provider uses.
func withProvider(ctx context.Context, cfg Config, fn func(*goose.Provider, *sql.DB) error) error {
	pool, err := migrationPool(cfg, pgconn.ValidateConnectTargetSessionAttrsReadWrite)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer func() { _ = pool.Close() }()
	locker, err := schemaLock(ctx, pool)
	if err != nil {
		return fmt.Errorf("migrate: %w", translate(err))
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, pool, migrations.FS,
		goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("migrate: read migrations: %w", translate(err))
	}
	if err := fn(provider, pool); err != nil {
		return fmt.Errorf("migrate: %w", translate(err))
	}
	return nil
}

// migrationPool opens a pool without the time limits of calls: a migration may last long. validate checks each new
// connection; nil accepts every server.
func migrationPool(cfg Config, validate pgconn.ValidateConnectFunc) (*sql.DB, error) {
	conn, err := cfg.login()
	if err != nil {
		return nil, err
	}
	conn.ValidateConnect = validate
	conn.RuntimeParams["application_name"] = "vitrine-migrate"
	return stdlib.OpenDB(*conn), nil
}

// CheckSchema returns nil if every migration that this program knows has been applied. It ignores migrations of a newer
// program. If one is missing, it returns fault.Unavailable, because the migration may still be running. It only reads the
// table goose_db_version, so its user needs no other privilege, and a standby suffices.
func CheckSchema(ctx context.Context, cfg Config) error {
	pool, err := migrationPool(cfg, nil)
	if err != nil {
		return fmt.Errorf("check schema: %w", err)
	}
	defer func() { _ = pool.Close() }()
	return checkSchema(ctx, pool)
}

// checkSchema is CheckSchema on an open pool.
func checkSchema(ctx context.Context, pool *sql.DB) error {
	applied, err := appliedVersions(ctx, pool)
	if err != nil {
		return fmt.Errorf("check schema: %w", translate(err))
	}
	known, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return fmt.Errorf("check schema: %w", err)
	}
	for _, file := range known {
		version, err := goose.NumericComponent(file)
		if err != nil {
			return fmt.Errorf("check schema: %w", err)
		}
		if !applied[version] {
			return fault.New(fault.Unavailable, "schema_behind", "the database lacks the migration "+file)
		}
	}
	return checkEmailKeys(ctx, pool)
}

// checkEmailKeys returns fault.Unavailable until [fillEmailKeys] has completed its migration.
func checkEmailKeys(ctx context.Context, pool *sql.DB) error {
	var complete bool
	if err := pool.QueryRowContext(ctx, emailKeysComplete).Scan(&complete); err != nil {
		return fmt.Errorf("check schema: %w", translate(err))
	}
	if !complete {
		return fault.New(fault.Unavailable, "schema_behind", "the e-mail keys of the users are not complete: run vitrine setup")
	}
	return nil
}

// appliedVersions reads the table of goose, which does not exist before the first migration.
func appliedVersions(ctx context.Context, pool *sql.DB) (map[int64]bool, error) {
	applied := map[int64]bool{}
	rows, err := pool.QueryContext(ctx, "SELECT version_id FROM goose_db_version WHERE is_applied")
	var missing *pgconn.PgError
	if errors.As(err, &missing) && missing.Code == undefinedTable {
		return applied, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var version int64
		if err := rows.Scan(&version); err != nil {
			return nil, err
		}
		applied[version] = true
	}
	return applied, rows.Err()
}

// schemaLock returns goose's advisory lock, which tries every second for five minutes. Its number depends on the schema, so
// installations that share a database do not wait for each other.
func schemaLock(ctx context.Context, pool *sql.DB) (lock.SessionLocker, error) {
	var id int64
	const number = `SELECT hashtextextended('vitrine migrations ' || current_schema(), 0)`
	if err := pool.QueryRowContext(ctx, number).Scan(&id); err != nil {
		return nil, fmt.Errorf("name the lock: %w", err)
	}
	return lock.NewPostgresSessionLocker(lock.WithLockID(id), lock.WithLockTimeout(1, 300))
}

func logResults(log *zap.Logger, results []*goose.MigrationResult) {
	for _, r := range results {
		log.Info("migration applied", zap.String("direction", r.Direction),
			zap.String("file", path.Base(r.Source.Path)), zap.Duration("duration", r.Duration))
	}
}
