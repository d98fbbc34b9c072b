package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

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
	"vitrine.io/pkg/platform/program"
	"vitrine.io/pkg/platform/telemetry"
)

// parts is the worker put together. Nothing is connected to before it runs.
type parts struct {
	*program.App
	cfg       Config
	db        *postgres.DB
	store     *postgres.Store
	cache     *rediscache.Cache
	bucket    *blob.Bucket
	publisher *kafka.Publisher
	pool      *codec.Pool
	consumer  *kafka.Consumer
	breakers  *worker.Breakers
	health    *telemetry.Health
}

// When partitions move or the process stops, work in hand has half of the rebalance timeout to end; what has not is cut
// short and released. The other half is for that: at worst one try to write a result is under way, whose end is awaited, and
// then the release, each as long as VITRINE_WORKER_OUTCOME_TIMEOUT allows. So however long an attempt may take, it never
// outlives its session, and the group never waits in vain for this member.
const (
	rebalance = time.Minute
	parting   = 5 * time.Second // the last commit, and leaving the group
)

// timely says which settings would let work outlive its session, or nil.
func timely(cfg Config) error {
	release := 2 * cfg.Worker.OutcomeTimeout
	if most := (rebalance/2 - parting) / 2; cfg.Worker.OutcomeTimeout > most {
		return fmt.Errorf("VITRINE_WORKER_OUTCOME_TIMEOUT: must be at most %s, or work in hand outlives its session", most)
	}
	if least := rebalance/2 + release + parting; cfg.Shutdown.Grace < least {
		return fmt.Errorf("VITRINE_SHUTDOWN_GRACE: must be at least %s, or work in hand is cut off", least)
	}
	return nil
}

func assemble(cfg Config, kit *program.App) (*parts, error) {
	if err := timely(cfg); err != nil {
		return nil, err
	}
	kafka.BridgeLogger(kit.Log)
	rediscache.BridgeLogger(kit.Log)
	p := &parts{App: kit, cfg: cfg}
	reg, log := kit.Registry, kit.Log
	var err error
	if p.pool, err = codec.New(cfg.Codec, reg, log.Named("codec")); err != nil {
		return nil, fmt.Errorf("find codec: %w", err)
	}
	if p.db, err = postgres.Open(cfg.Postgres, log.Named("postgres"), reg); err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	// A worker only ever tells the cache to forget, so no document ever has its tag.
	if p.cache, err = rediscache.New(cfg.Redis, "worker", time.Now, rand.Float64, reg, log.Named("cache")); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	if p.bucket, err = blob.New(cfg.S3, reg, log.Named("blob")); err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	if p.publisher, err = kafka.NewPublisher(cfg.Kafka, reg, log.Named("kafka")); err != nil {
		return nil, fmt.Errorf("make publisher: %w", err)
	}
	p.store = postgres.NewStore(p.db)
	service := catalog.New(catalog.Deps{
		Store: p.store, Pipelines: p.store, Cache: p.cache, Pipeline: kit.Pipeline.Current,
		NewID: program.NewID, Random: rand.Float64, Now: time.Now, Log: log.Named("catalog"),
	}, cfg.Catalog)
	p.breakers = worker.NewBreakers(cfg.Breaker, reg, log.Named("breaker"),
		worker.Probe{Dependency: worker.Postgres, Check: p.db.Ping}, worker.Probe{Dependency: worker.S3, Check: p.bucket.Ping},
		worker.Probe{Dependency: worker.Encoder, Check: p.pool.Ready})
	w := worker.New(worker.Deps{
		Catalog: service, Pipelines: p.store, Codec: p.pool, Objects: p.bucket, Breakers: p.breakers,
		Pipeline: kit.Pipeline.Current, Now: time.Now, Log: log.Named("worker"),
		Source: fetch.New(cfg.Fetch.For(concurrency(cfg)), fetch.Internet(), time.Now, reg, log.Named("fetch")),
	}, cfg.Worker, reg)
	p.consumer, err = kafka.NewConsumer(cfg.Kafka, kafka.ConsumerConfig{
		Group: "vitrine.workers", Topic: event.TopicRequested, InFlight: concurrency(cfg), RebalanceTimeout: rebalance,
		OrderingKey: worker.OrderingKey, Check: worker.Check,
	}, w.Handle, p.publisher, reg, log.Named("requests"))
	if err != nil {
		return nil, fmt.Errorf("make consumer: %w", err)
	}
	p.health = telemetry.NewHealth(map[string]telemetry.Check{
		"postgres": p.db.Ping, "s3": p.bucket.Ping, "codec": p.pool.Ready,
		"kafka": func(context.Context) error { return p.consumer.Ready() },
	}, time.Now, log.Named("health"))
	return p, nil
}

// perCodec is how many pictures are in work for each codec process: one at it, one on its way from or to the network.
const perCodec = 2

// concurrency is how many pictures are in work at a time.
func concurrency(cfg Config) int {
	if cfg.Worker.Concurrency > 0 {
		return cfg.Worker.Concurrency
	}
	if cfg.Codec.Children > 0 {
		return perCodec * cfg.Codec.Children
	}
	return perCodec * runtime.GOMAXPROCS(0)
}

// run works until ctx ends. Work in hand is then finished or released before anything that it needs is closed.
func (p *parts) run(ctx context.Context) error {
	return lifecycle.Run(ctx, p.cfg.Shutdown.Grace+time.Second, // for the farewell, after work that took all of its grace
		p.Admin(p.health),
		lifecycle.Closer("connections", func() error {
			p.bucket.Close()
			return errors.Join(p.publisher.Close(), p.cache.Close(), p.db.Close())
		}),
		lifecycle.Closer("codec", func() error {
			now, cancel := context.WithCancel(context.Background())
			cancel() // nothing is in work any more
			return p.pool.Close(now)
		}),
		p.Follow(p.store),
		lifecycle.Part{Name: "requests", Run: p.consumer.Run},
		lifecycle.Part{Name: "breakers", Run: func(ctx context.Context) error { return p.breakers.Run(ctx, p.consumer) }},
		lifecycle.Part{Name: "drain", Run: func(ctx context.Context) error {
			<-ctx.Done()
			p.health.SetDraining()
			return nil
		}},
	)
}
