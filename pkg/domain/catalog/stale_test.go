package catalog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/servers"
)

// TestNeverStale lets two API processes read a product while a worker changes it a thousand times. A read that begins
// after a change was acknowledged must not return an older version.
func TestNeverStale(t *testing.T) {
	t.Parallel()
	const products, rounds = 20, 50
	dsn := servers.Postgres(t)
	addrs, prefix := servers.Redis(t)
	if err := postgres.Migrate(t.Context(), postgres.Config{DSN: dsn}, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	apis := []*catalog.Service{openService(t, dsn, addrs, prefix), openService(t, dsn, addrs, prefix)}
	worker := openService(t, dsn, addrs, prefix)
	user, err := apis[0].CreateUser(t.Context(), "Ada", "ada@example.com")
	if err != nil {
		t.Fatal(err)
	}
	for range products {
		in := input("https://example.com/a.jpg")
		in.UserID = user.ID
		// A 404 of the next id may be cached. Create has to invalidate it.
		p, err := apis[0].Create(t.Context(), in, "")
		if err != nil {
			t.Fatal(err)
		}
		changeAndRead(t, apis, worker, p, rounds)
	}
}

// changeAndRead retries the product's image repeatedly, which increments the version, while readers run without a pause.
func changeAndRead(t *testing.T, apis []*catalog.Service, worker *catalog.Service, p catalog.Product, rounds int) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				_, _ = apis[i%2].Get(ctx, p.ID) // fills the cache with the version that it has read
			}
		})
	}
	defer readers.Wait()
	defer stop()
	policy := pipeline.Default().Spec.Retry
	policy.MaxAttempts = rounds + 1
	jobID := p.Images[0].JobID
	for version := p.Version + 1; version <= p.Version+int64(rounds); version++ {
		a, err := worker.Begin(ctx, catalog.Job{ProductID: p.ID, ImageID: p.Images[0].ID, JobID: jobID}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if err := worker.Retry(ctx, a, media.Fail(media.Timeout, "slow", nil), policy); err != nil {
			t.Fatal(err)
		}
		for i, api := range apis {
			doc, err := api.Get(ctx, p.ID)
			if err != nil {
				t.Fatal(err)
			}
			var body struct{ Version int64 }
			if err := json.Unmarshal(doc.Body, &body); err != nil {
				t.Fatal(err)
			}
			if doc.Version != version || body.Version != version {
				t.Fatalf("api %d returns version %d (body %d) after version %d was acknowledged", i, doc.Version, body.Version, version)
			}
		}
		if jobID, err = currentJobID(ctx, worker, p); err != nil {
			t.Fatal(err)
		}
	}
}

// currentJobID returns the id of the image's current job.
func currentJobID(ctx context.Context, s *catalog.Service, p catalog.Product) (string, error) {
	now, err := s.Store.Product(ctx, p.ID)
	if err != nil {
		return "", fmt.Errorf("load product: %w", err)
	}
	return now.Images[0].JobID, nil
}
