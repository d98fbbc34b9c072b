package catalog_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/adapter/rediscache"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// openService returns a service on a real Postgres and a real Redis Cluster, with connections of its own like a process.
func openService(t *testing.T, dsn string, addrs []string, prefix string) *catalog.Service {
	t.Helper()
	reg := prometheus.NewRegistry()
	db, err := postgres.Open(postgres.Config{
		DSN: dsn, MaxOpenConns: 8, ConnMaxLifetime: time.Hour, ConnMaxIdleTime: time.Hour, ConnectTimeout: time.Minute,
		Timeout: time.Minute, StatementTimeout: time.Minute, LockTimeout: time.Minute, EditQueue: 1000, OutboxMaxTries: 1,
		List: postgres.ListConfig{MaxOpenConns: 1, Wait: time.Minute, StatementTimeout: time.Minute},
	}, zap.NewNop(), reg)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := rediscache.New(rediscache.Config{
		Addrs: addrs, KeyPrefix: prefix, TTL: time.Hour, MissingTTL: time.Hour, TombstoneTTL: time.Hour,
		Timeout: 30 * time.Second, DialTimeout: 10 * time.Second, IOTimeout: 10 * time.Second, DownPause: time.Second,
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
		Store: store, Pipelines: store, Cache: cache, Encoder: encode{}, Pipeline: defaultPipeline,
		NewID: uuid.NewString, Random: rand.Float64, Now: time.Now, Log: zap.NewNop(),
	}, catalog.Config{LoadTimeout: time.Minute, InvalidateTimeout: time.Minute, DeletionGrace: time.Hour})
}
