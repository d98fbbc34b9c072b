package postgres_test

import (
	"testing"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/test/storetest"
)

func TestBackfills(t *testing.T) {
	t.Parallel()
	storetest.RunBackfills(t, func(t *testing.T) storetest.BackfillParts {
		t.Helper()
		f := newFixture(t, manyTries)
		p := f.Product(1)
		return storetest.BackfillParts{
			Backfills: f.store, Walks: f.store, Pipelines: f.store, Canaries: f.store,
			Record: func(_ testing.TB, events ...catalog.BackfillEvent) {
				f.Change(p.ID, func(*catalog.Product) catalog.Change { return catalog.Change{Backfill: events} })
			},
		}
	})
}
