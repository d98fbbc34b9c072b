package catalog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/adapter/rediscache"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// onServers is a service on a real Postgres and a real Redis Cluster, as one process would have it.
func onServers(t *testing.T, dsn string, addrs []string, prefix string) *catalog.Service {
	t.Helper()
	reg := prometheus.NewRegistry()
	db, err := postgres.Open(postgres.Config{
		DSN: dsn, MaxOpenConns: 8, ConnMaxLifetime: time.Hour, ConnMaxIdleTime: time.Hour, ConnectTimeout: time.Minute,
		Timeout: time.Minute, StatementTimeout: time.Minute, LockTimeout: time.Minute, OutboxMaxTries: 1,
	}, zap.NewNop(), reg)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := rediscache.New(rediscache.Config{
		Addrs: addrs, KeyPrefix: prefix, TTL: time.Hour, MissingTTL: time.Hour, TombstoneTTL: time.Hour,
		Timeout: 30 * time.Second, DialTimeout: 10 * time.Second, IOTimeout: 10 * time.Second,
	}, "test", time.Now, rand.Float64, reg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cache.Close(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	store := postgres.NewStore(db)
	return catalog.New(catalog.Deps{
		Store: store, Pipelines: store, Cache: cache, Encoder: encode{}, Pipeline: inForce,
		NewID: uuid.NewString, Random: rand.Float64, Now: time.Now, Log: zap.NewNop(),
	}, catalog.Config{LoadTimeout: time.Minute, InvalidateTimeout: time.Minute, DeletionGrace: time.Hour})
}

// TestNeverStale lets two API processes read while a worker changes what they read, a thousand times: who begins to read
// after a change was acknowledged never sees what was before.
func TestNeverStale(t *testing.T) {
	t.Parallel()
	const products, rounds = 20, 50
	dsn := servers.Postgres(t)
	addrs, prefix := servers.Redis(t)
	if err := postgres.Migrate(t.Context(), postgres.Config{DSN: dsn}, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	apis := []*catalog.Service{onServers(t, dsn, addrs, prefix), onServers(t, dsn, addrs, prefix)}
	worker := onServers(t, dsn, addrs, prefix)
	user, err := apis[0].CreateUser(t.Context(), "Ada", "ada@example.com")
	if err != nil {
		t.Fatal(err)
	}
	for range products {
		in := input("https://example.com/a.jpg")
		in.UserID = user.ID
		// A 404 of the id to come may be cached: then Create has to replace it.
		p, err := apis[0].Create(t.Context(), in, "")
		if err != nil {
			t.Fatal(err)
		}
		changeAndRead(t, apis, worker, p, rounds)
	}
}

// changeAndRead spends attempt after attempt on the product's picture, which is visible each time, beside readers that never
// stop.
func changeAndRead(t *testing.T, apis []*catalog.Service, worker *catalog.Service, p catalog.Product, rounds int) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				_, _ = apis[i%2].Get(ctx, p.ID) // fills the cache with whatever it has read
			}
		})
	}
	defer readers.Wait()
	defer stop()
	policy := pipeline.Default().Spec.Retry
	policy.MaxAttempts = rounds + 1
	ticket := p.Images[0].JobID
	for version := p.Version + 1; version <= p.Version+int64(rounds); version++ {
		a, err := worker.Begin(ctx, catalog.Job{ProductID: p.ID, ImageID: p.Images[0].ID, JobID: ticket}, time.Hour)
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
				t.Fatalf("api %d answers version %d (body %d) after version %d was acknowledged", i, doc.Version, body.Version, version)
			}
		}
		if ticket, err = current(ctx, worker, p); err != nil {
			t.Fatal(err)
		}
	}
}

// current returns the ticket that the picture has now.
func current(ctx context.Context, s *catalog.Service, p catalog.Product) (string, error) {
	now, err := s.Store.Product(ctx, p.ID)
	if err != nil {
		return "", fmt.Errorf("load product: %w", err)
	}
	return now.Images[0].JobID, nil
}
