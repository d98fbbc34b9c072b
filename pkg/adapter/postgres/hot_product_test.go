package postgres_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/storetest"
)

// Edits of one product wait for each other without a connection, so the rest of the pool serves other calls.
func TestHotProduct(t *testing.T) {
	t.Parallel()
	cfg := config(migrated(t))
	cfg.MaxOpenConns, cfg.EditQueue = 2, 10
	store := postgres.NewStore(open(t, cfg, prometheus.NewRegistry()))
	f := &storetest.Fixture{T: t, Parts: storetest.Parts{Store: store}}
	product := f.Product(1)

	running, release := make(chan struct{}), make(chan struct{})
	results := make(chan error, cfg.EditQueue)
	edit := func(fn func(*catalog.Product, time.Time) (catalog.Change, error)) {
		_, err := store.Edit(t.Context(), product.ID, fn)
		results <- err
	}
	go edit(func(*catalog.Product, time.Time) (catalog.Change, error) {
		close(running)
		<-release
		return catalog.Change{}, nil
	})
	<-running
	for range cfg.EditQueue - 1 {
		go edit(func(*catalog.Product, time.Time) (catalog.Change, error) { return catalog.Change{}, nil })
	}
	for store.Edits(product.ID) < cfg.EditQueue { // the edits that wait use no resource that a test could watch
		runtime.Gosched()
	}
	if _, err := store.Product(t.Context(), product.ID); err != nil {
		t.Errorf("a read beside waiting edits: %v", err)
	}
	_, err := store.Edit(t.Context(), product.ID, nil)
	if fault.CodeOf(err) != "product_busy" || !fault.Is(err, fault.Unavailable) {
		t.Errorf("an edit beyond the queue: got %v, want product_busy", err)
	}
	close(release)
	for range cfg.EditQueue {
		if err := <-results; err != nil {
			t.Errorf("an edit in the queue: %v", err)
		}
	}
}

func TestEditWaitEnds(t *testing.T) {
	t.Parallel()
	f := newFixture(t, manyTries)
	product := f.Product(1)
	_, err := f.store.Edit(t.Context(), product.ID, func(*catalog.Product, time.Time) (catalog.Change, error) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := f.store.Edit(ctx, product.ID, nil)
		return catalog.Change{}, err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
}
