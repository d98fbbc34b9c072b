// Package catalogtest has what tests of more than one package need of a catalogue: one on a PostgreSQL server, and the value
// of a metric.
package catalogtest

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

// Catalog is a catalogue on a PostgreSQL server, with one product.
type Catalog struct {
	*testing.T
	*catalog.Service
	DSN     string
	DB      *postgres.DB
	Store   *postgres.Store
	Product catalog.Product
}

// New returns a catalogue on an empty database, without a cache, with a product of so many images. It fails the test on an
// error. The database is closed at the end of the test.
func New(t *testing.T, images int) *Catalog {
	t.Helper()
	cfg := postgres.Config{
		DSN: servers.Postgres(t), ApplicationName: "test", MaxOpenConns: 8, ConnMaxLifetime: time.Hour, ConnMaxIdleTime: time.Hour,
		ConnectTimeout: 5 * time.Second, Timeout: 30 * time.Second, StatementTimeout: 30 * time.Second,
		LockTimeout: 30 * time.Second, SlowQuery: time.Minute, EditQueue: 1000, OutboxMaxTries: 20,
		List: postgres.ListConfig{MaxOpenConns: 2, MaxWaiting: 100, Wait: time.Minute, StatementTimeout: time.Minute},
	}
	c := &Catalog{T: t, DSN: cfg.DSN}
	c.Must(postgres.Migrate(t.Context(), cfg, zap.NewNop()))
	db, err := postgres.Open(cfg, zap.NewNop(), prometheus.NewRegistry())
	c.Must(err)
	t.Cleanup(func() { _ = db.Close() })
	c.DB, c.Store = db, postgres.NewStore(db)
	c.Service = catalog.New(catalog.Deps{
		Store: c.Store, Pipelines: c.Store, Backfills: c.Store, Cache: noCache{}, NewID: uuid.NewString,
		Random: rand.Float64, Now: time.Now,
		Pipeline: func() *pipeline.Revision { return pipeline.NewRevision(pipeline.Default()) }, Log: zap.NewNop(),
	}, catalog.Config{LoadTimeout: time.Second, InvalidateTimeout: time.Second, DeletionGrace: time.Nanosecond})
	user, err := c.Store.InsertUser(t.Context(), catalog.User{Name: "Ada", Email: "ada@example.com"})
	c.Must(err)
	in := catalog.NewProductInput{UserID: user.ID, Name: "Lamp", Price: decimal.NewFromInt(1), PriceSet: true}
	for range images {
		in.ImageURLs = append(in.ImageURLs, "https://example.com/"+uuid.NewString())
	}
	c.Product, err = c.Create(t.Context(), in, "")
	c.Must(err)
	return c
}

// Must fails the test if err is not nil.
func (c *Catalog) Must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// Image returns the image of the product at position n, from 0, as it is stored.
func (c *Catalog) Image(n int) catalog.Image {
	c.Helper()
	p, err := c.Store.Product(c.Context(), c.Product.ID)
	c.Must(err)
	return p.Images[n]
}

// noCache is a cache without content.
type noCache struct{}

func (noCache) Get(context.Context, catalog.ProductID) (catalog.Document, bool, error) {
	return catalog.Document{}, false, nil
}

func (noCache) Fill(context.Context, catalog.ProductID, catalog.Document, time.Time) (catalog.FillResult, error) {
	return catalog.Filled, nil
}

func (noCache) Invalidate(context.Context, catalog.ProductID, int64) error { return nil }

// Metric returns the sum of the series of a counter or gauge.
func Metric(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
