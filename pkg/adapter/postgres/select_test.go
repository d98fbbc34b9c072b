package postgres_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
)

func TestASelectionOfFewAmongManyLooksAtABoundedNumber(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	conn, store := connect(t, dsn), postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry()))
	furnish(t, conn) // one product of several, and the first picture
	run(t, conn, `INSERT INTO images (product_id, position, source_url, status, job_state)
		SELECT 1, n, 'x', CASE WHEN n IN (25000, 25001) THEN 'failed' ELSE 'ready' END, 'idle' FROM generate_series(1, 25001) n`)
	failed := catalog.Filter{Status: catalog.Failed}
	find := func(after catalog.ImageID, limit int) ([]maintenance.ImageRef, catalog.ImageID) {
		found, next, err := store.SelectImages(t.Context(), failed, after, limit)
		if err != nil {
			t.Fatal(err)
		}
		return found, next
	}
	if found, next := find(0, 10); len(found) != 0 || next != 20_000 {
		t.Errorf("got %v and %d, want none among the first 20000", found, next)
	}
	if found, next := find(20_000, 10); len(found) != 2 || next != 0 {
		t.Errorf("got %v and %d, want two, and none after them", found, next)
	}
	if found, next := find(5_003, 10); len(found) != 2 || next != 0 {
		t.Errorf("got %v and %d, want two of the last 19999, and none after them", found, next)
	}
	if found, next := find(20_000, 1); len(found) != 1 || next != found[0].ImageID {
		t.Errorf("got %v and %d, want the first, and to go on after it", found, next)
	}
}
