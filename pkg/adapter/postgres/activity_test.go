package postgres_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/foundation/event"
)

// ageOf measures and returns the age of the oldest transaction, in seconds.
func ageOf(t *testing.T, outbox *postgres.Outbox, reg prometheus.Gatherer) float64 {
	t.Helper()
	if _, err := outbox.Depth(t.Context()); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "vitrine_postgres_oldest_transaction_age_seconds" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("the metric is missing")
	return 0
}

// waitForAge measures until ok returns true, and returns the age.
func waitForAge(
	t *testing.T, outbox *postgres.Outbox, reg prometheus.Gatherer, what string, ok func(age float64) bool,
) float64 {
	t.Helper()
	deadline, tick := time.After(time.Minute), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		age := ageOf(t, outbox, reg)
		if ok(age) {
			return age
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("got an age of %gs, want %s", age, what)
		}
	}
}

// holdOpen begins a transaction whose snapshot prevents the vacuum of later dead tuples, and returns a function that ends
// it.
func holdOpen(t *testing.T, dsn string) (end func()) {
	t.Helper()
	conn := connect(t, dsn)
	tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT count(*) FROM outbox"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// plainUser creates a user with privileges on the tables of the schema only, and returns its name.
func plainUser(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	schema := scalar[string](t, conn, "SELECT current_schema()::text")
	name := "plain_" + schema
	run(t, conn, fmt.Sprintf("CREATE ROLE %q LOGIN PASSWORD 'plain'", name))
	t.Cleanup(func() {
		for _, statement := range []string{"DROP OWNED BY %q", "DROP ROLE %q"} {
			if _, err := conn.Exec(context.Background(), fmt.Sprintf(statement, name)); err != nil {
				t.Error(err)
			}
		}
	})
	run(t, conn, fmt.Sprintf("GRANT USAGE ON SCHEMA %q TO %q", schema, name))
	run(t, conn, fmt.Sprintf("GRANT ALL ON ALL TABLES IN SCHEMA %q TO %q", schema, name))
	return name
}

// The age of an open transaction is measured, and the outbox is drained while it is open.
func TestOpenTransaction(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		plain bool // the user cannot see the sessions of other users
	}{{"visible", false}, {"hidden", true}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dsn := migrated(t)
			conn := connect(t, dsn)
			cfg, reg := config(dsn), prometheus.NewRegistry()
			if row.plain {
				cfg.Username, cfg.Password = plainUser(t, conn), "plain"
			}
			db, err := postgres.Open(cfg, zap.NewNop(), reg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			outbox := outboxOf(t, db)
			run(t, conn, insertMessage, 0)
			end := holdOpen(t, dsn)
			first := waitForAge(t, outbox, reg, "more than zero", func(age float64) bool { return age > 0 })
			second := waitForAge(t, outbox, reg, "a higher age", func(age float64) bool { return age > first })
			drained, err := outbox.PublishBatch(t.Context(), 10, func(_ context.Context, messages []event.Message) []error {
				return make([]error, len(messages))
			})
			if err != nil || drained.Published != 1 {
				t.Errorf("drain: got %+v and %v, want one message published", drained, err)
			}
			end()
			waitForAge(t, outbox, reg, "a lower age after its end", func(age float64) bool { return age < second })
		})
	}
}
