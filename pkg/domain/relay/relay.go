package relay

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

const (
	firstBackoff = 100 * time.Millisecond // doubles with each failed batch
	maxBackoff   = 5 * time.Second

	// roundTimeout is above the outbox's own limit of five seconds, and applies only if the database does not enforce that.
	batchTimeout  = 8 * time.Second
	sampleTimeout = 3 * time.Second

	burstSeconds = 2 // the burst of the rate limit, in seconds of the rate
)

// Relay publishes the messages of an outbox. Run may be called once, Wake at any time.
type Relay struct {
	outbox        Outbox
	publisher     Publisher
	config        Config
	metrics       *metrics
	log           *zap.Logger
	wake          chan struct{}
	limiter       *rate.Limiter
	partialLogged time.Time // when logPartial last logged
}

// New returns a Relay that publishes while Run runs, and registers its metrics with reg.
func New(outbox Outbox, publisher Publisher, config Config, reg prometheus.Registerer, log *zap.Logger) *Relay {
	return &Relay{
		outbox: outbox, publisher: publisher, config: config, metrics: newMetrics(reg), log: log, wake: make(chan struct{}, 1),
		limiter: newLimiter(config),
	}
}

// newLimiter returns the limit of messages a second. The burst is at least the size of a batch, because the relay waits
// for a whole batch at once, and rate.Limiter returns an error for a number above its burst.
func newLimiter(c Config) *rate.Limiter {
	if c.Rate == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(c.Rate), max(burstSeconds*c.Rate, c.Batch))
}

// Wake starts a batch without waiting for the next poll. It never blocks. Several calls before a batch start one batch; a
// call during a batch starts another. It does not shorten the pause after a failed batch.
func (r *Relay) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run publishes until ctx ends. It then finishes the current batch and returns nil.
func (r *Relay) Run(ctx context.Context) error {
	var sampling sync.WaitGroup
	sampling.Go(func() { r.sample(ctx) })
	defer sampling.Wait()
	state := stateLog{log: r.log, what: "relaying"}
	for failures := 0; ctx.Err() == nil; {
		err := r.publishBacklog(ctx)
		state.report(err)
		if err != nil {
			failures++
			backoff.Sleep(ctx, backoff.Delay(failures-1, firstBackoff, maxBackoff))
			continue
		}
		failures = 0
		backoff.Wait(ctx, backoff.Jitter(r.config.Poll), r.wake)
	}
	return nil
}

// publishBacklog runs batches until one claims less than a batch or fails, or ctx ends.
func (r *Relay) publishBacklog(ctx context.Context) error {
	for {
		full, err := r.publishBatch(ctx)
		if err != nil || !full {
			return err
		}
		if err := r.limiter.WaitN(ctx, r.config.Batch); err != nil {
			return nil //nolint:nilerr // the burst is at least a batch, so only the end of ctx ends the wait
		}
	}
}

// logResults logs refused messages. It returns the first error that is not about a single message, or nil if Kafka
// acknowledged any message: then Kafka is not down, and only a partition has no leader.
func (r *Relay) logResults(messages []event.Message, results []error) (outage error) {
	published := 0
	for i, err := range results {
		switch {
		case err == nil:
			published++
		case fault.Is(err, fault.Invalid):
			r.log.Error("Kafka refuses a message", zap.Error(err), zap.String("event_id", messages[i].ID),
				zap.String("product_id", messages[i].Key), zap.String("type", messages[i].Type))
		case outage == nil:
			outage = err
		}
	}
	if published == 0 {
		return outage
	}
	r.logPartial(outage)
	return nil
}

// logPartial logs, at most once a minute, that some messages of a batch could not be sent.
func (r *Relay) logPartial(err error) {
	if err == nil || time.Since(r.partialLogged) < time.Minute {
		return
	}
	r.partialLogged = time.Now()
	r.log.Warn("some messages cannot be sent and will be retried", zap.Error(err))
}

// sample measures the depth of the outbox about every Config.Sample until ctx ends.
func (r *Relay) sample(ctx context.Context) {
	state := stateLog{log: r.log, what: "measuring the outbox"}
	for ctx.Err() == nil {
		err := r.measure(ctx)
		if ctx.Err() == nil {
			state.report(err)
		}
		backoff.Sleep(ctx, backoff.Jitter(r.config.Sample))
	}
}

func (r *Relay) measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	depth, err := r.outbox.Depth(ctx)
	if err == nil {
		r.metrics.due.Set(float64(depth.Due))
		r.metrics.delayed.Set(float64(depth.Delayed))
		r.metrics.parked.Set(float64(depth.Parked))
		r.metrics.oldest.Set(depth.Oldest.Seconds())
	}
	return err
}

// stateLog logs the first of consecutive errors, and the first success after them.
type stateLog struct {
	log    *zap.Logger
	what   string
	failed bool
}

func (s *stateLog) report(err error) {
	switch {
	case err != nil && !s.failed:
		s.log.Warn(s.what+" failed and will be retried", zap.Error(err))
	case err == nil && s.failed:
		s.log.Info(s.what + " recovered")
	}
	s.failed = err != nil
}
