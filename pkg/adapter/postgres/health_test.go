package postgres_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/servers"
)

func TestHealthCheck(t *testing.T) {
	t.Parallel()
	t.Run("schema_and_installation", testHealthCheckSchema)
	t.Run("request_pool_is_used_up", testHealthCheckRequestPoolUsedUp)
	t.Run("server_becomes_read_only", testHealthCheckReadOnly)
}

func testHealthCheckSchema(t *testing.T) {
	t.Parallel()
	cfg := config(servers.Postgres(t))
	db := open(t, cfg, prometheus.NewRegistry())
	health := healthOf(t, db)
	err := health.Check(t.Context())
	if f := fault.From(err); f == nil || f.Code != "schema_behind" || health.Installation() != "" {
		t.Errorf("an empty schema: got %v and %q", err, health.Installation())
	}
	if err := postgres.Migrate(t.Context(), cfg, zaptest.NewLogger(t)); err != nil {
		t.Fatal(err)
	}
	if err := health.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	id, epoch, err := postgres.NewStore(db).Installation(t.Context())
	if want := fmt.Sprintf("%s.%d", id, epoch); err != nil || health.Installation() != want {
		t.Errorf("got %q, want %q (%v)", health.Installation(), want, err)
	}
}

// A call holds the only connection of the requests while it waits for a lock.
func testHealthCheckRequestPoolUsedUp(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	cfg := config(dsn)
	cfg.MaxOpenConns = 1
	reg := prometheus.NewRegistry()
	db := open(t, cfg, reg)
	health, conn := healthOf(t, db), connect(t, dsn)
	run(t, conn, "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
	done := make(chan error, 1)
	go func() { done <- insertUser(t.Context(), postgres.NewStore(db), "ada") }()
	awaitNil(t, "the call holds the connection", func() error {
		if n, _ := findMetric(t, reg, "vitrine_postgres_connections_in_use", "pool=main"); n != 1 {
			return errors.New("it does not")
		}
		return nil
	})
	if err := health.Check(t.Context()); err != nil {
		t.Error(err)
	}
	run(t, conn, "ROLLBACK")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The connections stay open while the server refuses writes, as through a pooler during a switchover.
func testHealthCheckReadOnly(t *testing.T) {
	t.Parallel()
	server := servers.PostgresServer(t)
	cfg := config(server.DSN)
	if err := postgres.Migrate(t.Context(), cfg, zaptest.NewLogger(t)); err != nil {
		t.Fatal(err)
	}
	db := open(t, cfg, prometheus.NewRegistry())
	health, conn, store := healthOf(t, db), connect(t, server.DSN), postgres.NewStore(db)
	for _, check := range []func() error{
		func() error { return health.Check(t.Context()) },
		func() error { return insertUser(t.Context(), store, "ada") },
	} {
		if err := check(); err != nil {
			t.Fatal(err)
		}
	}
	run(t, conn, "ALTER SYSTEM SET default_transaction_read_only = on")
	run(t, conn, "SELECT pg_reload_conf()")
	awaitNil(t, "the check fails on its open connection", func() error {
		err := health.Check(t.Context())
		if err == nil {
			return errors.New("it succeeds")
		}
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "accepts no writes") {
			t.Fatalf("got %v", err)
		}
		return nil
	})
	if _, err := store.User(t.Context(), 1); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a read on a connection to a read-only server: got %v, want unavailable", err)
	}
	run(t, conn, "SET default_transaction_read_only = off")
	run(t, conn, "ALTER SYSTEM RESET default_transaction_read_only")
	run(t, conn, "SELECT pg_reload_conf()")
	awaitNil(t, "the check succeeds", func() error { return health.Check(t.Context()) })
	if err := insertUser(t.Context(), store, "bob"); err != nil {
		t.Error(err)
	}
}
