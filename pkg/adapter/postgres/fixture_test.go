package postgres_test

import (
	"cmp"
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/domain/scheduler"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/test/storetest"
)

// fixture is a test with a store and an outbox on a database of its own.
type fixture struct {
	*storetest.Fixture
	dsn    string
	store  *postgres.Store
	outbox *postgres.Outbox
}

// manyTries is a number of tries that no test uses up.
const manyTries = 100

// newFixture opens a fixture. The outbox parks a message that was refused maxTries times.
func newFixture(t *testing.T, maxTries int) *fixture {
	t.Helper()
	return fixtureOn(t, migrated(t), maxTries)
}

// fixtureOn is newFixture on a migrated database.
func fixtureOn(t *testing.T, dsn string, maxTries int) *fixture {
	t.Helper()
	cfg := config(dsn)
	cfg.OutboxMaxTries = maxTries
	db := open(t, cfg, prometheus.NewRegistry())
	f := &fixture{dsn: cfg.DSN, store: postgres.NewStore(db).Releasing(windows), outbox: outboxOf(t, db)}
	f.Fixture = &storetest.Fixture{T: t, Parts: storetest.Parts{
		Store: f.store, Pipelines: f.store, TakeDue: f.takeDue, ReleaseDue: f.releaseDue,
	}}
	return f
}

// windows are those of a fixture's scheduler.
var windows = scheduler.Windows{Host: 64, Total: 200}

// releaseDue runs one round of a scheduler.
func (f *fixture) releaseDue(t testing.TB) {
	t.Helper()
	f.round(windows)
}

// round runs one round of a scheduler without memory, and returns its result.
func (f *fixture) round(w scheduler.Windows) scheduler.Round {
	f.Helper()
	search := scheduler.Search{Windows: w, MaxFlows: 1000, MaxHosts: 100, MaxDue: 100}
	plan := func(_ catalog.Class, waiting []scheduler.Waiting, inFlight map[scheduler.Flow]int) []scheduler.Grant {
		return scheduler.NewPlanner(w).Plan(waiting, inFlight, 100)
	}
	r, err := f.store.Release(f.Context(), search, plan)
	f.Must(err, "release jobs")
	return r
}

// takeDue drains one batch of at most a hundred messages, all published, and returns the messages.
func (f *fixture) takeDue(t testing.TB) []event.Message {
	t.Helper()
	seen, _ := f.drain(100, nil)
	return seen
}

// storeTest is one test on a database of its own.
type storeTest struct {
	name     string
	run      func(f *fixture)
	maxTries int // 0: manyTries
}

// runStoreTests runs tests in parallel.
func runStoreTests(t *testing.T, tests []storeTest) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(newFixture(t, cmp.Or(test.maxTries, manyTries)))
		})
	}
}

// send puts messages into the outbox.
func (f *fixture) send(id catalog.ProductID, outgoing ...catalog.Outgoing) {
	f.Helper()
	f.Change(id, func(*catalog.Product) catalog.Change { return catalog.Change{Outbox: outgoing} })
}

// drain drains one batch with the same publish result for every message, and returns the messages.
func (f *fixture) drain(limit int, result error) ([]event.Message, relay.BatchResult) {
	f.Helper()
	var seen []event.Message
	drained, err := f.outbox.PublishBatch(f.Context(), limit, func(_ context.Context, messages []event.Message) []error {
		seen = append(seen, messages...)
		results := make([]error, len(messages))
		for i := range results {
			results[i] = result
		}
		return results
	})
	f.Must(err, "publish_batch")
	return seen, drained
}

// depth measures the outbox.
func (f *fixture) depth() relay.Depth {
	f.Helper()
	d, err := f.outbox.Depth(f.Context())
	f.Must(err, "measure outbox")
	return d
}

// startDue starts the scheduled deletions that are due. Their second pass is due after secondPass.
func (f *fixture) startDue(limit int, secondPass time.Duration) []string {
	f.Helper()
	prefixes, err := f.store.StartDue(f.Context(), limit, secondPass)
	f.Must(err, "start deletions")
	return prefixes
}

// claimSecondPass claims the deletions that are due for their second pass.
func (f *fixture) claimSecondPass(limit int, lease time.Duration) []string {
	f.Helper()
	prefixes, err := f.store.ClaimSecondPass(f.Context(), limit, lease)
	f.Must(err, "claim second passes")
	return prefixes
}

// remove removes started deletions.
func (f *fixture) remove(prefixes ...string) {
	f.Helper()
	f.Must(f.store.Remove(f.Context(), prefixes), "remove deletions")
}
