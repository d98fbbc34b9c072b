package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/servers"
)

// insertUser inserts a user and returns the error.
func insertUser(ctx context.Context, store *postgres.Store, name string) error {
	_, err := store.InsertUser(ctx, catalog.User{Name: name, Email: name + "@example.com"})
	return err
}

func healthOf(t testing.TB, db *postgres.DB) *postgres.HealthCheck {
	t.Helper()
	health, err := postgres.NewHealthCheck(db)
	if err != nil {
		t.Fatalf("open health check: %v", err)
	}
	t.Cleanup(func() {
		if err := health.Close(); err != nil {
			t.Errorf("close health check: %v", err)
		}
	})
	return health
}

// awaitNil calls check until it returns nil.
func awaitNil(t testing.TB, what string, check func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

func TestFailover(t *testing.T) {
	t.Parallel()
	t.Run("promoted_standby_gets_the_writes", testFailoverPromotedStandby)
	t.Run("read_only_connections_are_replaced", testFailoverReadOnlyConnections)
}

// The pools that were opened before the failover are used after it. The standby comes first in the DSN, so a pool that
// accepted any server would never write.
func testFailoverPromotedStandby(t *testing.T) {
	t.Parallel()
	primary, standby := servers.PostgresPair(t)
	cfg := config(standby.BothDSN(t, primary))
	if err := postgres.Migrate(t.Context(), cfg, zaptest.NewLogger(t)); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	db := open(t, cfg, prometheus.NewRegistry())
	store, outbox, health := postgres.NewStore(db), outboxOf(t, db), healthOf(t, db)
	calls := map[string]func() error{
		"store":  func() error { return insertUser(t.Context(), store, fmt.Sprintf("u%d", time.Now().UnixNano())) },
		"outbox": func() error { _, err := outbox.PublishBatch(t.Context(), 1, nil); return err },
		"health": func() error { return health.Check(t.Context()) },
	}
	for name, call := range calls {
		if err := call(); err != nil {
			t.Errorf("%s: %v, want the primary, which is the second host", name, err)
		}
	}
	if err := insertUser(t.Context(), store, "kept"); err != nil {
		t.Fatal(err)
	}
	standby.CatchUp(t, primary)
	primary.Stop(t)
	for name, call := range calls {
		if err := call(); !fault.Is(err, fault.Unavailable) || errors.Is(err, catalog.ErrOutcomeUnknown) {
			t.Errorf("%s, without a primary: got %v, want unavailable", name, err)
		}
	}
	standby.Promote(t)
	for name, call := range calls {
		if err := call(); err != nil {
			t.Errorf("%s, after the promotion: %v", name, err)
		}
	}
	if err := insertUser(t.Context(), store, "kept"); !fault.Is(err, fault.Conflict) {
		t.Errorf("got %v: the new primary must have the user", err)
	}
}

// poisonTrigger makes the session that inserts a user with the name poison read-only, as if the server behind it had become
// a standby. It waits for a lock, so that several sessions are poisoned at once.
const poisonTrigger = `
CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext(current_schema()));
    PERFORM set_config('default_transaction_read_only', 'on', false);
    RETURN NULL;
END $$;
CREATE TRIGGER poison AFTER INSERT ON users FOR EACH ROW WHEN (NEW.name = 'poison') EXECUTE FUNCTION poison()`

// All connections of a pool have become read-only. One write fails, and no other.
func testFailoverReadOnlyConnections(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	conn := connect(t, dsn)
	run(t, conn, poisonTrigger)
	run(t, conn, "SELECT pg_advisory_lock(hashtext(current_schema()))")
	const conns = 3
	cfg := config(dsn)
	cfg.MaxOpenConns = conns
	store := postgres.NewStore(open(t, cfg, prometheus.NewRegistry()))
	var poisoned sync.WaitGroup
	for i := range conns {
		poisoned.Go(func() {
			u := catalog.User{Name: "poison", Email: fmt.Sprintf("poison%d@example.com", i)}
			if _, err := store.InsertUser(t.Context(), u); err != nil {
				t.Errorf("poison: %v", err)
			}
		})
	}
	awaitNil(t, "all connections wait in the trigger", func() error {
		const waiting = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND objid = hashtext(current_schema())::bigint & 4294967295`
		if n := scalar[int](t, conn, waiting); n != conns {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	run(t, conn, "SELECT pg_advisory_unlock(hashtext(current_schema()))")
	poisoned.Wait()

	if err := insertUser(t.Context(), store, "first"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("the first write: got %v, want unavailable", err)
	}
	for i := range 2 * conns {
		if err := insertUser(t.Context(), store, fmt.Sprintf("later%d", i)); err != nil {
			t.Errorf("write %d after it: %v", i, err)
		}
	}
}
