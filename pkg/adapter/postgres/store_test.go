package postgres_test

import (
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/test/servers"
	"vitrine.io/pkg/test/storetest"
)

func TestMain(m *testing.M) { servers.Main(m) }

// config returns a configuration with few connections, because many tests run at once.
func config(dsn string) postgres.Config {
	return postgres.Config{
		DSN: dsn, ApplicationName: "test", MaxOpenConns: 6, ConnMaxLifetime: time.Hour, ConnMaxIdleTime: time.Hour,
		ConnectTimeout: 5 * time.Second, Timeout: 30 * time.Second, StatementTimeout: 30 * time.Second,
		LockTimeout: 30 * time.Second, SlowQuery: time.Minute, EditQueue: 1000, OutboxMaxTries: 20,
		List: postgres.ListConfig{
			MaxOpenConns: 2, MaxWaiting: 100, Wait: 30 * time.Second, StatementTimeout: 30 * time.Second, MaxCost: 20_000,
		},
	}
}

// migrated returns the DSN of a private schema with the newest migrations.
func migrated(t testing.TB) string {
	t.Helper()
	dsn := servers.Postgres(t)
	if err := postgres.Migrate(t.Context(), postgres.Config{DSN: dsn}, zaptest.NewLogger(t)); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	return dsn
}

// open opens a pool that is closed with the test.
func open(t testing.TB, cfg postgres.Config, reg prometheus.Registerer) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(cfg, zaptest.NewLogger(t), reg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

func outboxOf(t testing.TB, db *postgres.DB) *postgres.Outbox {
	t.Helper()
	outbox, err := postgres.NewOutbox(db)
	if err != nil {
		t.Fatalf("open outbox: %v", err)
	}
	t.Cleanup(func() {
		if err := outbox.Close(); err != nil {
			t.Errorf("close outbox: %v", err)
		}
	})
	return outbox
}

// connect returns a bare connection, to read rows and to hold locks.
func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() {
		_ = conn.Close(t.Context()) // the context of t has ended: the socket is closed without a Terminate message
	})
	return conn
}

// run runs a statement on a bare connection.
func run(t testing.TB, conn *pgx.Conn, statement string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement, args...); err != nil {
		t.Fatalf("run %s: %v", statement, err)
	}
}

// scalar returns the one value of a query on a bare connection.
func scalar[T any](t testing.TB, conn *pgx.Conn, query string, args ...any) T {
	t.Helper()
	var value T
	if err := conn.QueryRow(t.Context(), query, args...).Scan(&value); err != nil {
		t.Fatalf("run %s: %v", query, err)
	}
	return value
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Parts {
		t.Helper()
		return newFixture(t, manyTries).Parts
	})
}

// TestStoreUnderC is TestStore on a database with the character type C. Each test has a schema of its own.
func TestStoreUnderC(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(servers.PostgresLocale(t, "C"))
	if err != nil {
		t.Fatal(err)
	}
	var count atomic.Int64
	storetest.Run(t, func(t *testing.T) storetest.Parts {
		t.Helper()
		schema := "s" + strconv.FormatInt(count.Add(1), 10)
		run(t, connect(t, u.String()), "CREATE SCHEMA "+schema)
		dsn := inSchema(u, schema+",public")
		if err := postgres.Migrate(t.Context(), postgres.Config{DSN: dsn}, zaptest.NewLogger(t)); err != nil {
			t.Fatalf("migrate: %v", err)
		}
		return fixtureOn(t, dsn, manyTries).Parts
	})
}

// A program does not erase a column of a newer release, neither from an image that it changes nor from one that it adds.
func TestNewerColumn(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	conn, store := connect(t, dsn), postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry()))
	seed(t, conn)
	change := func(fn func(*catalog.Product)) {
		t.Helper()
		_, err := store.Edit(t.Context(), 1, func(p *catalog.Product, _ time.Time) (catalog.Change, error) {
			fn(p)
			return catalog.Change{}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	change(func(p *catalog.Product) { p.Images[0].Width = 1 }) // the connection has the statement prepared
	run(t, conn, `ALTER TABLE images ADD COLUMN newer text NOT NULL DEFAULT 'default'`)
	run(t, conn, `UPDATE images SET newer = 'written'`)
	change(func(p *catalog.Product) {
		p.Images[0].Width = 2
		p.Images = append(p.Images, catalog.Image{Position: len(p.Images), Status: catalog.Pending, JobState: catalog.Idle})
	})
	var got string
	const values = `SELECT string_agg(newer, ' ' ORDER BY position) FROM images WHERE product_id = 1`
	if err := conn.QueryRow(t.Context(), values).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if want := "written default"; got != want {
		t.Errorf("the newer column: got %q, want %q", got, want)
	}
}
