package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"path"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"go.uber.org/zap"

	"vitrine.io/migrations"
)

// Migration is one step of the schema's history.
type Migration struct {
	Version   int64
	Name      string    // of its file
	AppliedAt time.Time // zero: not yet
}

// Migrate brings the schema to the newest version. It is safe to race and to repeat: a lock in the database lets one
// run at a time, and the others find nothing left to do. What was applied stays when a later migration fails.
func Migrate(ctx context.Context, dsn string, log *zap.Logger) error {
	return migrating(ctx, dsn, func(p *goose.Provider) error {
		results, err := p.Up(ctx)
		logResults(log, results)
		return err
	})
}

// MigrateDown takes back the newest applied migration, and its data with it. None applied is no error.
func MigrateDown(ctx context.Context, dsn string, log *zap.Logger) error {
	return migrating(ctx, dsn, func(p *goose.Provider) error {
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
func MigrationStatus(ctx context.Context, dsn string) ([]Migration, error) {
	var known []Migration
	err := migrating(ctx, dsn, func(p *goose.Provider) error {
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

// migrating runs fn with a goose provider on a connection pool of its own.
func migrating(ctx context.Context, dsn string, fn func(*goose.Provider) error) error {
	conn, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("migrate: parse DSN: %w", err)
	}
	conn.RuntimeParams["application_name"] = "vitrine-migrate"
	pool := stdlib.OpenDB(*conn)
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
	if err := fn(provider); err != nil {
		return fmt.Errorf("migrate: %w", translate(err))
	}
	return nil
}

// schemaLock returns goose's advisory lock, asked for every second for five minutes. Its number is the schema's own:
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
