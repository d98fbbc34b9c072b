package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/adapter/rediscache"
	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/domain/scheduler"
	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/lifecycle"
	"vitrine.io/pkg/platform/program"
	"vitrine.io/pkg/platform/telemetry"
)

// api has the parts of the program that need no connection to be created.
type api struct {
	*program.App
	cfg       Config
	db        *postgres.DB
	store     *postgres.Store
	outbox    *postgres.Outbox
	bucket    *blob.Bucket
	publisher *kafka.Publisher
	postgres  *postgres.HealthCheck
	progress  *kafka.Progress
	health    *telemetry.Health
	serving   atomic.Pointer[serving] // nil until the API's port is open
	reprocess readyHandler            // POST /images/reprocess on the admin port
}

// serving has the parts that exist once Postgres has answered.
type serving struct {
	cache   *rediscache.Cache
	changes *kafka.Consumer
}

// assemble creates the parts that need no connection.
func assemble(cfg Config, app *program.App) (*api, error) {
	if err := cfg.S3.CheckBounds(cfg.Pipeline.Bounds); err != nil { // originals have to be deleted, too
		return nil, err
	}
	kafka.BridgeLogger(app.Log)
	rediscache.BridgeLogger(app.Log)
	a := &api{App: app, cfg: cfg}
	var err error
	if a.db, err = postgres.Open(cfg.Postgres, app.Log.Named("postgres"), app.Registry); err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	a.store = postgres.NewStore(a.db).Releasing(cfg.Scheduler.Windows())
	if a.outbox, err = postgres.NewOutbox(a.db); err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	if a.bucket, err = blob.New(cfg.S3, app.Registry, app.Log.Named("blob")); err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	if a.publisher, err = kafka.NewPublisher(cfg.Kafka, app.Registry, app.Log.Named("kafka")); err != nil {
		return nil, fmt.Errorf("create publisher: %w", err)
	}
	if a.progress, err = kafka.NewProgress(cfg.Kafka); err != nil {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	if a.postgres, err = postgres.NewHealthCheck(a.db); err != nil {
		return nil, fmt.Errorf("open health check: %w", err)
	}
	a.health = telemetry.NewHealth(cfg.Health, a.dependencies(), time.Now, app.Registry, app.Log.Named("health"))
	return a, nil
}

// dependencies returns what the program needs. Only Postgres and its own port decide about its readiness; without the others
// it serves reads and accepts writes.
func (a *api) dependencies() []telemetry.Dependency {
	optional := func(name string, check func(context.Context, *serving) error) telemetry.Dependency {
		return telemetry.Dependency{Name: name, Optional: true, Check: func(ctx context.Context) error {
			s := a.serving.Load()
			if s == nil {
				return telemetry.ErrNotStarted
			}
			return check(ctx, s)
		}}
	}
	return []telemetry.Dependency{
		{Name: "postgres", Check: a.postgres.Check, Shared: true},
		{Name: "http", Check: a.listening},
		{Name: "s3", Check: a.bucket.Ping, Optional: true},
		optional("redis", func(ctx context.Context, s *serving) error { return s.cache.Ping(ctx) }),
		optional("kafka", func(_ context.Context, s *serving) error { return s.changes.Ready() }),
	}
}

// run serves until ctx ends. The admin port answers while serve waits for Postgres, so that a slow database makes the
// program not ready instead of dead.
func (a *api) run(ctx context.Context) error {
	return lifecycle.Run(ctx, a.cfg.Shutdown.Grace+time.Second, // for closing the rest, after serve has used its grace
		a.Admin(a.health, telemetry.Route{Pattern: "/images/reprocess", Handler: &a.reprocess}),
		lifecycle.Closer("connections", func() error {
			a.bucket.Close()
			return errors.Join(a.publisher.Close(), a.outbox.Close(), a.postgres.Close(), a.db.Close())
		}),
		lifecycle.Part{Name: "health", Run: a.health.Run},
		a.WatchPipeline(a.store),
		lifecycle.Part{Name: "api", Run: a.serve},
	)
}

// groupCache is the Kafka group that repairs the cache. Each cache has a group of its own, because each needs every event.
const groupCache = "vitrine.cache"

// cacheGroup returns the group of a cache by its name.
func cacheGroup(name string) string {
	if name == "" {
		return groupCache
	}
	return groupCache + "." + name
}

// serve waits for Postgres and then runs the API, the relay and maintenance.
func (a *api) serve(ctx context.Context) error {
	epoch, err := a.cacheEpoch(ctx)
	if err != nil {
		return err
	}
	encoder := httpapi.NewEncoder(a.cfg.S3.Public(), epoch)
	cache, err := rediscache.New(a.cfg.Redis, encoder.Tag(), time.Now, rand.Float64, a.Registry, a.Log.Named("cache"))
	if err != nil {
		return fmt.Errorf("open cache: %w", err)
	}
	outboxRelay := relay.New(a.outbox, a.publisher, a.cfg.Relay, a.Registry, a.Log.Named("relay"))
	service := catalog.New(catalog.Deps{
		Store: a.store, Pipelines: a.store, Cache: cache, Encoder: encoder, Pipeline: a.Pipeline.Current,
		NewID: program.NewID, Random: rand.Float64, Now: time.Now, Wake: outboxRelay.Wake, Log: a.Log.Named("catalog"),
	}, a.cfg.Catalog)
	changes, err := kafka.NewConsumer(a.cfg.Kafka, kafka.ConsumerConfig{
		Group: cacheGroup(a.cfg.Redis.Name), Topic: event.TopicChanged, InFlight: 32, Check: checkChanged,
	}, service.HandleChanged, a.publisher, a.Registry, a.Log.Named("changes"))
	if err != nil {
		return fmt.Errorf("create consumer: %w", err)
	}
	server := httpapi.New(httpapi.Deps{
		Catalog: service, Encoder: encoder, Ready: a.health.Ready, NewID: uuid.NewString, Now: time.Now, Registry: a.Registry,
		Log: a.Log.Named("http"),
	}, a.cfg.HTTP)
	if err := server.Listen(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	a.serving.Store(&serving{cache: cache, changes: changes})
	a.health.SetPeers(cache.Peers("api", a.Instance(), a.postgres.Installation, a.cfg.Health.MarkTTL()))
	jobs := scheduler.New(scheduler.Deps{
		Jobs: a.store, Wake: outboxRelay.Wake, Now: time.Now, Log: a.Log.Named("scheduler"),
	}, a.cfg.Scheduler, a.Registry)
	rescuer := maintenance.NewRescuer(a.store, a.progress, service, a.cfg.Rescuer, a.Registry, a.Log.Named("rescuer"))
	cleaner := maintenance.NewCleaner(a.store, a.cfg.Cleaner, a.Registry, a.Log.Named("cleaner"))
	keys := maintenance.NewKeyRotator(a.store, a.cfg.Cleaner, a.Registry, a.Log.Named("keys"))
	collector, auditor := a.bucketKeepers(service)
	bulk := maintenance.NewReprocessor(a.store, service, a.store, a.cfg.Reprocessor, time.Now, a.Registry,
		a.Log.Named("reprocessor"))
	walker := backfill.NewWalker(backfill.WalkerDeps{
		Walks: a.store, List: a.store.ListBackfills, Images: a.store, Catalog: service, Canaries: a.store,
		PublicURL: func(key string) string { return a.cfg.S3.Public() + key }, Now: time.Now, Log: a.Log.Named("backfill"),
	}, a.cfg.Backfill, a.Registry)
	a.reprocess.set(httpapi.NewReprocessHandler(bulk, a.Log.Named("bulk")))
	return lifecycle.Run(ctx, a.cfg.Shutdown.Grace,
		lifecycle.Closer("cache", cache.Close),
		lifecycle.Part{Name: "relay", Run: outboxRelay.Run},
		lifecycle.Part{Name: "changes", Run: changes.Run},
		lifecycle.Part{Name: "scheduler", Run: jobs.Run},
		lifecycle.Part{Name: "rescuer", Run: rescuer.Run},
		lifecycle.Part{Name: "cleaner", Run: cleaner.Run},
		lifecycle.Part{Name: "keys", Run: keys.Run},
		lifecycle.Part{Name: "gc", Run: collector.Run},
		lifecycle.Part{Name: "auditor", Run: auditor.Run},
		lifecycle.Part{Name: "backfill", Run: walker.Run},
		lifecycle.Part{Name: "http", Run: server.Run},
		lifecycle.Closer("drain", func() error { return a.drain(server) }),
	)
}

// bucketKeepers returns the garbage collector and the auditor of both buckets.
func (a *api) bucketKeepers(service *catalog.Service) (*maintenance.GarbageCollector, *maintenance.Auditor) {
	buckets := maintenance.Buckets{Renditions: a.bucket}
	deps := maintenance.AuditorDeps{
		Checkpoints: a.store, References: a.store, Bucket: a.bucket, Catalog: service, Now: time.Now,
		Log: a.Log.Named("auditor"),
	}
	if originals := a.bucket.Originals(); originals != nil {
		buckets.Originals, deps.Originals = originals, originals
	}
	return maintenance.NewGarbageCollector(a.store, buckets, a.cfg.GC, a.Registry, a.Log.Named("gc")),
		maintenance.NewAuditor(deps, a.cfg.Auditor, a.Registry)
}

// readyHandler is a handler that is set after its port is open. Until then it responds with 503.
type readyHandler struct{ handler atomic.Pointer[http.Handler] }

func (l *readyHandler) set(h http.Handler) { l.handler.Store(&h) }

// ServeHTTP implements http.Handler.
func (l *readyHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := l.handler.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Retry-After", "1")
	http.Error(w, "the program is still starting", http.StatusServiceUnavailable)
}

// cacheEpoch waits for Postgres and reads the epoch that documents in the cache belong to.
func (a *api) cacheEpoch(ctx context.Context) (int64, error) {
	for logged := false; ; logged = true {
		_, epoch, err := a.store.Installation(ctx)
		if err == nil {
			return epoch, nil
		}
		if !logged {
			a.Log.Warn("waiting for postgres", zap.Error(err))
		}
		if !backoff.Sleep(ctx, time.Second) {
			return 0, fmt.Errorf("wait for postgres: %w", ctx.Err())
		}
	}
}

// listening is the health check of the API's port.
func (a *api) listening(context.Context) error {
	if a.serving.Load() == nil {
		return errors.New("the port is not open yet")
	}
	return nil
}

// drain is the first part to stop: it makes the program not ready, and waits Shutdown.Delay so that load balancers notice
// and clients close their connections.
func (a *api) drain(server *httpapi.Server) error {
	a.health.SetDraining()
	server.SetDraining()
	<-time.After(a.cfg.Shutdown.Delay)
	return nil
}

// checkChanged returns why a message is not a valid product.changed, or nil.
func checkChanged(m event.Message) error {
	_, err := event.Decode[event.ProductChanged](m)
	return err
}
