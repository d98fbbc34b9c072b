package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/adapter/fetch"
	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/adapter/rediscache"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/lifecycle"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/slots"
	"vitrine.io/pkg/platform/program"
	"vitrine.io/pkg/platform/telemetry"
)

// workerProgram has the parts of the worker. None connects before run.
type workerProgram struct {
	*program.App
	cfg       Config
	db        *postgres.DB
	store     *postgres.Store
	cache     *rediscache.Cache
	bucket    *blob.Bucket
	originals *blob.Bucket // nil: none is configured
	publisher *kafka.Publisher
	pool      *codec.Pool
	consumer  *kafka.Consumer
	backfill  *kafka.Consumer
	breakers  *worker.Breakers
	postgres  *postgres.HealthCheck
	health    *telemetry.Health
}

// pinger is a bucket as a probe sees it.
type pinger interface {
	// Ping returns nil if the bucket exists and the store answers.
	Ping(ctx context.Context) error
}

// When partitions move or the process stops, jobs in progress have half of rebalanceTimeout to end; then they are
// interrupted and released. The other half is for that: at most one write of an outcome, which is not interrupted, and
// the release, each limited by VITRINE_WORKER_OUTCOME_TIMEOUT. So no job outlasts the consumer's session.
const (
	rebalanceTimeout = time.Minute
	leaveTimeout     = 5 * time.Second // the last commit, and leaving the group
)

// checkTimeouts returns an error if the settings allow a job to outlast its session.
func checkTimeouts(cfg Config) error {
	release := 2 * cfg.Worker.OutcomeTimeout
	if maxTimeout := (rebalanceTimeout/2 - leaveTimeout) / 2; cfg.Worker.OutcomeTimeout > maxTimeout {
		return fmt.Errorf("VITRINE_WORKER_OUTCOME_TIMEOUT: must be at most %s, or a job outlasts its session", maxTimeout)
	}
	if minGrace := rebalanceTimeout/2 + release + leaveTimeout; cfg.Shutdown.Grace < minGrace {
		return fmt.Errorf("VITRINE_SHUTDOWN_GRACE: must be at least %s, or jobs in progress are cut off", minGrace)
	}
	return nil
}

func assemble(cfg Config, app *program.App) (*workerProgram, error) {
	if err := checkTimeouts(cfg); err != nil {
		return nil, err
	}
	if err := cfg.S3.CheckBounds(cfg.Pipeline.Bounds); err != nil {
		return nil, err
	}
	kafka.BridgeLogger(app.Log)
	rediscache.BridgeLogger(app.Log)
	p := &workerProgram{App: app, cfg: cfg}
	reg, log := app.Registry, app.Log
	var err error
	if p.pool, err = codec.New(cfg.Codec, reg, log.Named("codec")); err != nil {
		return nil, fmt.Errorf("find codec: %w", err)
	}
	if p.db, err = postgres.Open(cfg.Postgres, log.Named("postgres"), reg); err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	// A worker only invalidates documents, so its tag is never used.
	if p.cache, err = rediscache.New(cfg.Redis, "worker", time.Now, rand.Float64, reg, log.Named("cache")); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	if p.bucket, err = blob.New(cfg.S3, reg, log.Named("blob")); err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	p.originals = p.bucket.Originals()
	if p.publisher, err = kafka.NewPublisher(cfg.Kafka, reg, log.Named("kafka")); err != nil {
		return nil, fmt.Errorf("create publisher: %w", err)
	}
	p.store = postgres.NewStore(p.db)
	service := catalog.New(catalog.Deps{
		Store: p.store, Pipelines: p.store, Backfills: p.store, Cache: p.cache, Pipeline: app.Pipeline.Current,
		NewID: program.NewID, Random: rand.Float64, Now: time.Now, Log: log.Named("catalog"),
	}, cfg.Catalog)
	source := fetch.New(cfg.Fetch.For(concurrency(cfg)), cfg.Pipeline.Bounds, fetch.Internet(cfg.Fetch.Resolver), time.Now, reg,
		log.Named("fetch"))
	rules := func() pipeline.Fetch { return app.Pipeline.Current().Spec().Fetch }
	egress := worker.NewEgress(cfg.Egress, source, p.store, rules, time.Now, reg, log.Named("egress"))
	p.breakers = worker.NewBreakers(cfg.Breaker, reg, log.Named("breaker"), p.probes(source, egress)...)
	hosts := slots.New[string]()
	deps := worker.Deps{
		Catalog: service, Pipelines: p.store, Codec: p.pool, Objects: p.bucket, Samples: p.store, Breakers: p.breakers,
		Egress: egress, Pipeline: app.Pipeline.Current, Now: time.Now, Log: log.Named("worker"), Source: source.ShareHosts(hosts),
		Hosts: hosts, Memory: source,
	}
	if p.originals != nil {
		deps.Originals = p.originals
	}
	w := worker.New(deps, cfg.Worker, reg)
	if err := p.assembleConsumers(w); err != nil {
		return nil, fmt.Errorf("create consumer: %w", err)
	}
	return p, p.assembleHealth()
}

// assembleConsumers creates the consumers. Backfills use slots that other jobs leave idle.
func (p *workerProgram) assembleConsumers(w *worker.Worker) (err error) {
	all := slots.NewShared(concurrency(p.cfg), backfillConcurrency(p.cfg))
	consumer := func(group, topic string, slots *slots.Part) (*kafka.Consumer, error) {
		return kafka.NewConsumer(p.cfg.Kafka, kafka.ConsumerConfig{
			Group: group, Topic: topic, InFlight: concurrency(p.cfg), Slots: slots, RebalanceTimeout: rebalanceTimeout,
			OrderingKey: worker.OrderingKey, Check: worker.Check,
		}, w.Handle, p.publisher, p.Registry, p.Log.Named("requests"))
	}
	if p.consumer, err = consumer(kafka.GroupWorkers, event.TopicRequested, all.Preferred()); err != nil {
		return err
	}
	p.backfill, err = consumer(kafka.GroupBackfill, event.TopicBackfill, all.Others())
	return err
}

// Pause implements worker.Pauser.
func (p *workerProgram) Pause() {
	p.consumer.Pause()
	p.backfill.Pause()
}

// Resume implements worker.Pauser.
func (p *workerProgram) Resume() {
	p.consumer.Resume()
	p.backfill.Resume()
}

// assembleHealth creates the health checks. A worker gets no requests, so its readiness matters to a rollout: it is first
// ready when everything that it needs answers and it has joined its group.
func (p *workerProgram) assembleHealth() error {
	var err error
	if p.postgres, err = postgres.NewHealthCheck(p.db); err != nil {
		return fmt.Errorf("open health check: %w", err)
	}
	p.health = telemetry.NewHealth(p.cfg.Health, []telemetry.Dependency{
		{Name: "postgres", Check: p.postgres.Check, Shared: true},
		{Name: "redis", Check: p.cache.Ping},
		{Name: "s3", Check: p.pingBuckets},
		{Name: "codec", Check: p.pool.Ready},
		{Name: "kafka", Check: func(context.Context) error { return p.consumer.Ready() }},
	}, time.Now, p.Registry, p.Log.Named("health"))
	p.health.SetPeers(p.cache.Peers("worker", p.Instance(), p.postgres.Installation, p.cfg.Health.MarkTTL()))
	return nil
}

// probes returns the probes of all dependencies that have a circuit breaker.
func (p *workerProgram) probes(source *fetch.Fetcher, egress *worker.Egress) []worker.Probe {
	return []worker.Probe{
		{Dependency: worker.DependencyPostgres, Check: p.db.Ping},
		{Dependency: worker.DependencyS3, Check: p.pingBuckets},
		{Dependency: worker.DependencyCodec, Check: p.pool.Ready},
		{Dependency: worker.DependencyResolver, Check: source.CheckResolver, WhileOpen: true},
		{Dependency: worker.DependencyEgress, Check: egress.Check, WhileOpen: true},
	}
}

// pingBuckets returns nil if the buckets that every attempt needs may be used.
func (p *workerProgram) pingBuckets(ctx context.Context) error {
	keep := p.originals != nil && p.Pipeline.Current().Spec().Originals.Keep
	return pingBuckets(ctx, p.bucket, p.originals, keep)
}

// pingBuckets pings the bucket of the renditions, and that of the originals only if the pipeline in force keeps originals.
// Without that, only jobs of backfills read it, and its outage defers only those.
func pingBuckets(ctx context.Context, renditions, originals pinger, keep bool) error {
	if err := renditions.Ping(ctx); err != nil || !keep {
		return err
	}
	return originals.Ping(ctx)
}

// imagesPerCodec is how many images are in progress for each codec process: one is rendered while another is downloaded or
// stored.
const imagesPerCodec = 2

// concurrency is how many images are processed at a time.
func concurrency(cfg Config) int {
	if cfg.Worker.Concurrency > 0 {
		return cfg.Worker.Concurrency
	}
	if cfg.Codec.Children > 0 {
		return imagesPerCodec * cfg.Codec.Children
	}
	return imagesPerCodec * runtime.GOMAXPROCS(0)
}

// backfillConcurrency is how many of them may be of backfills. A rendering in progress is not interrupted, so half of the
// codec processes stay free for other jobs.
func backfillConcurrency(cfg Config) int {
	if cfg.Worker.Backfill > 0 {
		return min(cfg.Worker.Backfill, concurrency(cfg))
	}
	return max(1, concurrency(cfg)/imagesPerCodec/2)
}

// consume runs both consumers until ctx ends. They stop at the same time, since each may need the whole grace.
func (p *workerProgram) consume(ctx context.Context) error {
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return p.consumer.Run(ctx) })
	both.Go(func() error { return p.backfill.Run(ctx) })
	return both.Wait()
}

// run processes jobs until ctx ends. Jobs in progress are then finished or released before their dependencies are closed.
func (p *workerProgram) run(ctx context.Context) error {
	return lifecycle.Run(ctx, p.cfg.Shutdown.Grace+time.Second, // for closing the rest, after jobs have used the grace
		p.Admin(p.health),
		lifecycle.Closer("connections", func() error {
			p.bucket.Close()
			return errors.Join(p.publisher.Close(), p.cache.Close(), p.postgres.Close(), p.db.Close())
		}),
		lifecycle.Part{Name: "health", Run: p.health.Run},
		lifecycle.Closer("codec", func() error {
			now, cancel := context.WithCancel(context.Background())
			cancel() // no job is left
			return p.pool.Close(now)
		}),
		p.WatchPipeline(p.store),
		lifecycle.Part{Name: "requests", Run: p.consume},
		lifecycle.Part{Name: "breakers", Run: func(ctx context.Context) error { return p.breakers.Run(ctx, p) }},
		lifecycle.Closer("drain", func() error {
			p.health.SetDraining()
			return nil
		}),
	)
}
