package worker_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/shopspring/decimal"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// noCache is a cache without content.
type noCache struct{}

func (noCache) Get(context.Context, catalog.ProductID) (catalog.Document, bool, error) {
	return catalog.Document{}, false, nil
}

func (noCache) Fill(context.Context, catalog.ProductID, catalog.Document, time.Time) (catalog.FillOutcome, error) {
	return catalog.Filled, nil
}

func (noCache) Invalidate(context.Context, catalog.ProductID, int64) error { return nil }

// database is a catalogue on a PostgreSQL server, with one product of one image.
type database struct {
	*testing.T
	*catalog.Service
	store   *postgres.Store
	product catalog.Product
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	cfg := postgres.Config{
		DSN: servers.Postgres(t), ApplicationName: "test", MaxOpenConns: 8, ConnMaxLifetime: time.Hour, ConnMaxIdleTime: time.Hour,
		ConnectTimeout: 5 * time.Second, Timeout: 30 * time.Second, StatementTimeout: 30 * time.Second,
		LockTimeout: 30 * time.Second, SlowQuery: time.Minute, OutboxMaxTries: 20,
	}
	if err := postgres.Migrate(t.Context(), cfg, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(cfg, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := &database{T: t, store: postgres.NewStore(db)}
	s.Service = catalog.New(catalog.Deps{
		Store: s.store, Pipelines: s.store, Cache: noCache{}, NewID: uuid.NewString, Random: rand.Float64, Now: time.Now,
		Pipeline: func() *pipeline.Revision { return pipeline.NewRevision(pipeline.Default()) }, Log: zap.NewNop(),
	}, catalog.Config{LoadTimeout: time.Second, InvalidateTimeout: time.Second, DeletionGrace: time.Nanosecond})
	user, err := s.store.InsertUser(t.Context(), catalog.User{Name: "Ada", Email: "ada@example.com"})
	s.must(err)
	in := catalog.NewProductInput{UserID: user.ID, Name: "Lamp", Price: decimal.NewFromInt(1), PriceSet: true}
	in.ImageURLs = []string{"https://example.com/a.jpg"}
	s.product, err = s.Create(t.Context(), in, "")
	s.must(err)
	return s
}

func (s *database) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *database) image() catalog.Image {
	s.Helper()
	p, err := s.store.Product(s.Context(), s.product.ID)
	s.must(err)
	return p.Images[0]
}
