package main

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/adapter/rediscache"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/platform/config"
	"vitrine.io/pkg/platform/telemetry"
	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) {
	rediscache.BridgeLogger(zap.NewNop()) // otherwise its log lines break benchmark lines
	servers.Main(m,
		// The clock of fasthttp, one per process, and its pool cleaner, which checks only every 10 s whether its server has ended.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

const publicURL = "https://images.example/vitrine"

// settings is the measured part of cmd/api's configuration, with the same names and defaults.
type settings struct {
	Log      telemetry.LogConfig `envPrefix:"LOG_"`
	HTTP     httpapi.Config      `envPrefix:"HTTP_"`
	Catalog  catalog.Config      `envPrefix:"CATALOG_"`
	Postgres postgres.Config     `envPrefix:"POSTGRES_"`
	Redis    rediscache.Config   `envPrefix:"REDIS_"`
	Kafka    kafka.Config        `envPrefix:"KAFKA_"`
	Relay    relay.Config        `envPrefix:"RELAY_"`
}

// instance is an api, wired as in cmd/api, on a private part of real servers, with the clients of the bare side.
type instance struct {
	cfg     settings
	log     *zap.Logger
	reg     *prometheus.Registry
	db      *postgres.DB
	store   *countingStore
	cache   *lossyCache
	relay   *relay.Relay // nil if none runs
	service *catalog.Service
	server  *httpapi.Server

	pool  *pgxpool.Pool        // with the options of the store's pool
	redis *redis.ClusterClient // with the options of the cache's client
}

// countingStore counts the reads that were not served from the cache.
type countingStore struct {
	*postgres.Store
	reads atomic.Int64
}

// Product implements catalog.Store.
func (s *countingStore) Product(ctx context.Context, id catalog.ProductID) (catalog.Product, error) {
	s.reads.Add(1)
	return s.Store.Product(ctx, id)
}

// lossyCache is the cache, which can drop invalidations.
type lossyCache struct {
	*rediscache.Cache
	drop atomic.Bool
}

// Invalidate implements catalog.Cache.
func (c *lossyCache) Invalidate(ctx context.Context, id catalog.ProductID, version int64) error {
	if c.drop.Load() {
		return errors.New("invalidation dropped")
	}
	return c.Cache.Invalidate(ctx, id, version)
}

// newInstance starts an api with a new schema, which listens until the end of the test.
func newInstance(tb testing.TB) *instance {
	tb.Helper()
	dsn := servers.Postgres(tb)
	addrs, prefix := servers.Redis(tb)
	environ := []string{
		"VITRINE_HTTP_ADDR=127.0.0.1:0", "VITRINE_HTTP_CORS_ORIGINS=https://shop.example", "VITRINE_POSTGRES_DSN=" + dsn,
		"VITRINE_REDIS_ADDRS=" + strings.Join(addrs, ","), "VITRINE_REDIS_KEY_PREFIX=" + prefix,
		// On a stalled machine a hit is slow, and does not become a miss.
		"VITRINE_REDIS_TIMEOUT=5s", "VITRINE_REDIS_IO_TIMEOUT=5s", "VITRINE_REDIS_DIAL_TIMEOUT=5s",
	}
	cfg, _, err := config.Load[settings](nil, environ)
	must(tb, err)
	must(tb, postgres.Migrate(tb.Context(), postgres.Config{DSN: dsn}, zap.NewNop()))
	return startInstance(tb, cfg)
}

// startInstance starts an api on prepared servers.
func startInstance(tb testing.TB, cfg settings) *instance {
	tb.Helper()
	build := telemetry.NewBuild("bench", debug.ReadBuildInfo)
	s := &instance{cfg: cfg, reg: telemetry.NewRegistry("api", build)}
	lines, err := os.Create(filepath.Join(tb.TempDir(), "log"))
	must(tb, err)
	tb.Cleanup(func() { must(tb, lines.Close()) })
	log, _, stop, err := telemetry.NewLogger(cfg.Log, lines, "api", build, s.reg)
	must(tb, err)
	tb.Cleanup(stop)
	s.log = log
	s.db, err = postgres.Open(cfg.Postgres, s.log.Named("postgres"), s.reg)
	must(tb, err)
	tb.Cleanup(func() { must(tb, s.db.Close()) })
	s.store = &countingStore{Store: postgres.NewStore(s.db)}
	s.assemble(tb)
	s.bare(tb)
	return s
}

// assemble creates the parts above the store, as cmd/api does, and starts the server.
func (s *instance) assemble(tb testing.TB) {
	tb.Helper()
	_, epoch, err := s.store.Installation(tb.Context())
	must(tb, err)
	encoder := httpapi.NewEncoder(publicURL, epoch)
	cache, err := rediscache.New(s.cfg.Redis, encoder.Tag(), time.Now, rand.Float64, s.reg, s.log.Named("cache"))
	must(tb, err)
	tb.Cleanup(func() { must(tb, cache.Close()) })
	s.cache = &lossyCache{Cache: cache}
	inForce := pipeline.NewRevision(pipeline.Default())
	s.service = catalog.New(catalog.Deps{
		Store: s.store, Pipelines: s.store, Cache: s.cache, Encoder: encoder,
		Pipeline: func() *pipeline.Revision { return inForce },
		NewID:    newID, Random: rand.Float64, Now: time.Now, Log: s.log.Named("catalog"),
	}, s.cfg.Catalog)
	s.server = httpapi.New(httpapi.Deps{
		Catalog: s.service, Encoder: encoder, Ready: func(context.Context) error { return nil }, NewID: uuid.NewString,
		Now: time.Now, Registry: s.reg, Log: s.log.Named("http"),
	}, s.cfg.HTTP)
	must(tb, s.server.Listen())
	tb.Cleanup(running(tb, s.server.Run))
}

// bare creates the clients of the bare side, with the options of rediscache and postgres.
func (s *instance) bare(tb testing.TB) {
	tb.Helper()
	pool, err := pgxpool.ParseConfig(s.cfg.Postgres.DSN)
	must(tb, err)
	pool.MaxConns = int32(s.cfg.Postgres.MaxOpenConns)
	pool.ConnConfig.RuntimeParams["timezone"] = "UTC"
	s.pool, err = pgxpool.NewWithConfig(tb.Context(), pool)
	must(tb, err)
	tb.Cleanup(s.pool.Close)
	s.redis = redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: s.cfg.Redis.Addrs, DisableIdentity: true, MaxRedirects: 2, ContextTimeoutEnabled: true,
		DialTimeout: s.cfg.Redis.DialTimeout, ReadTimeout: s.cfg.Redis.IOTimeout, WriteTimeout: s.cfg.Redis.IOTimeout,
		PoolTimeout: s.cfg.Redis.IOTimeout, PoolSize: 10 * runtime.GOMAXPROCS(0), DisableRoutingPolicies: true,
	})
	tb.Cleanup(func() { must(tb, s.redis.Close()) })
}

// key returns the key of a product in our cache.
func (s *instance) key(id string) string { return s.cfg.Redis.KeyPrefix + "p:{" + id + "}" }

// createTopics creates private topics with a number of partitions each, and returns an outbox and a publisher.
func (s *instance) createTopics(tb testing.TB, partitions int) (*postgres.Outbox, *kafka.Publisher) {
	tb.Helper()
	brokers, prefix := servers.Kafka(tb)
	s.cfg.Kafka.Brokers, s.cfg.Kafka.TopicPrefix = brokers, prefix
	s.cfg.Kafka.Partitions, s.cfg.Kafka.Replication, s.cfg.Kafka.MinISR = partitions, 1, 1
	admin, err := kafka.NewAdmin(s.cfg.Kafka)
	must(tb, err)
	must(tb, admin.EnsureTopics(tb.Context()))
	return s.connectKafka(tb)
}

// connectKafka is createTopics for a further instance on the same topics.
func (s *instance) connectKafka(tb testing.TB) (*postgres.Outbox, *kafka.Publisher) {
	tb.Helper()
	outbox, err := postgres.NewOutbox(s.db)
	must(tb, err)
	tb.Cleanup(func() { must(tb, outbox.Close()) })
	publisher, err := kafka.NewPublisher(s.cfg.Kafka, s.reg, s.log.Named("kafka"))
	must(tb, err)
	tb.Cleanup(func() { must(tb, publisher.Close()) })
	return outbox, publisher
}

// running runs a part of the api. The returned function stops it and waits until it has ended.
func running(tb testing.TB, run func(context.Context) error) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	return func() { cancel(); must(tb, <-done) }
}

// newID returns an id as in cmd/api.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// dataset describes generated users and products.
type dataset struct {
	users, products int
	images          int              // per product, all ready
	name            func(int) string // of the product with that id
}

// seed adds users and products, by COPY. Their ids start at 1; products are distributed evenly over the users.
func (s *instance) seed(tb testing.TB, c dataset) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), s.cfg.Postgres.DSN)
	must(tb, err)
	defer conn.Close(context.Background())
	// The foreign keys are valid and need no check, and a million rows are indexed faster at once than one by one.
	_, err = conn.Exec(tb.Context(), "SET session_replication_role = replica; SET maintenance_work_mem = '512MB'")
	must(tb, err)
	restore := dropIndexes(tb, conn)
	copyRows(tb, conn, "users", []string{"name", "email", "email_key"}, c.users, func(i int) []any {
		email := fmt.Sprintf("user-%d@example.com", i+1)
		return []any{"User", email, catalog.EmailKey(email)}
	})
	urls := make([]string, c.images)
	for i := range urls {
		urls[i] = fmt.Sprintf("https://origin.example/catalogue/photo-%d.jpg", i)
	}
	columns := []string{
		"user_id", "product_name", "product_description", "product_price", "product_images", "compressed_product_images",
	}
	copyRows(tb, conn, "products", columns, c.products, func(i int) []any {
		keys := make([]string, c.images)
		for at := range keys {
			keys[at] = objects(i, at) + "full." + pipeline.JPEG.Extension()
		}
		cents := pgtype.Numeric{Int: big.NewInt(int64(i) * 7919 % 100_000), Exp: -catalog.PriceDecimals, Valid: true}
		return []any{int64(i%c.users + 1), c.name(i + 1), "A kettle for every kitchen.", cents, urls, keys}
	})
	shape := renditions("PREFIX/")
	columns = []string{
		"product_id", "position", "source_url", "source_bytes", "status", "job_state", "width", "height", "placeholder",
		"renditions",
	}
	copyRows(tb, conn, "images", columns, c.products*c.images, func(i int) []any {
		product, at := i/c.images, i%c.images
		return []any{int64(product + 1), int32(at), urls[at], int64(2_400_000), "ready", "idle", int32(3000), int32(2000),
			"#c0ffee", []byte(strings.ReplaceAll(shape, "PREFIX/", objects(product, at)))}
	})
	restore()
	_, err = conn.Exec(tb.Context(), "VACUUM ANALYZE users, products, images")
	must(tb, err)
}

// dropIndexes drops all indexes that are not unique. The returned function creates them again.
func dropIndexes(tb testing.TB, conn *pgx.Conn) (restore func()) {
	tb.Helper()
	rows, err := conn.Query(tb.Context(), `SELECT c.relname::text AS name, pg_get_indexdef(i.indexrelid) AS definition
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		WHERE c.relnamespace = current_schema()::regnamespace AND NOT i.indisunique`)
	must(tb, err)
	type index struct{ Name, Definition string }
	indexes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[index])
	must(tb, err)
	for _, x := range indexes {
		_, err := conn.Exec(tb.Context(), "DROP INDEX "+x.Name)
		must(tb, err)
	}
	return func() {
		for _, x := range indexes {
			_, err := conn.Exec(tb.Context(), x.Definition)
			must(tb, err)
		}
	}
}

func copyRows(tb testing.TB, conn *pgx.Conn, table string, columns []string, n int, row func(i int) []any) {
	tb.Helper()
	_, err := conn.CopyFrom(tb.Context(), pgx.Identifier{table}, columns,
		pgx.CopyFromSlice(n, func(i int) ([]any, error) { return row(i), nil }))
	must(tb, err)
}

func objects(product, at int) string {
	return fmt.Sprintf("products/%d/%d/1-5f0a9c3e7b21/", product+1, at)
}

// renditions returns the column renditions as the worker writes it for a large source with the default pipeline.
func renditions(prefix string) string {
	var all []string
	for _, r := range pipeline.Default().Spec.Renditions {
		for _, f := range r.Formats {
			all = append(all, fmt.Sprintf(
				`{"name": %q, "format": %q, "width": %d, "height": %d, "bytes": %d, "key": %q, "default": %t}`,
				r.Name, f.Format, r.Width, r.Width*2/3, r.Width*110, prefix+r.Name+"."+f.Format.Extension(),
				r.Name == "full" && f.Format == pipeline.JPEG))
		}
	}
	return "[" + strings.Join(all, ",") + "]"
}
