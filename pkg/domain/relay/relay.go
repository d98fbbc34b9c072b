package relay

import (
	"context"
	"sync"
	"time"

	"vitrine.io/pkg/foundation/backoff"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

const (
	firstBackoff = 100 * time.Millisecond // doubling
	maxBackoff   = 5 * time.Second

	// roundBound is above the outbox's own five seconds: it is only reached when the database does not keep its word.
	roundBound  = 8 * time.Second
	sampleBound = 3 * time.Second

	savedSeconds = 2 // how many seconds' worth of the rate an idle relay saves up
)

// Relay publishes what stands in an outbox. Run may be called once; Wake at any time.
type Relay struct {
	outbox    Outbox
	publisher Publisher
	config    Config
	metrics   *metrics
	log       *zap.Logger
	wake      chan struct{}
	limiter   *rate.Limiter
	saidPart  time.Time // when it was last logged that a part could not be sent
}

// New returns a relay that does nothing until Run.
func New(outbox Outbox, publisher Publisher, config Config, reg prometheus.Registerer, log *zap.Logger) *Relay {
	return &Relay{
		outbox: outbox, publisher: publisher, config: config, metrics: newMetrics(reg), log: log, wake: make(chan struct{}, 1),
		limiter: newLimiter(config),
	}
}

// newLimiter returns the limit of messages a second, so that a backlog does not slow live traffic. A full round spends a
// batch at once, which rate.Limiter refuses above its burst.
func newLimiter(c Config) *rate.Limiter {
	if c.Rate == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(c.Rate), max(savedSeconds*c.Rate, c.Batch))
}

// Wake starts a round soon. It never blocks; calls before the round begins count as one, a call during a round asks for
// another. While the relay waits for a server to come back it is not hurried.
func (r *Relay) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run publishes until ctx ends, and returns nil after the current round.
func (r *Relay) Run(ctx context.Context) error {
	var sampling sync.WaitGroup
	sampling.Go(func() { r.sample(ctx) })
	defer sampling.Wait()
	state := health{log: r.log, what: "relaying"}
	for failures := 0; ctx.Err() == nil; {
		err := r.burst(ctx)
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

// burst does one round after the other until one claims less than a batch, one fails, or ctx ends.
func (r *Relay) burst(ctx context.Context) error {
	for {
		full, err := r.drain(ctx)
		if err != nil || !full {
			return err
		}
		if r.limiter.WaitN(ctx, r.config.Batch) != nil { // ctx has ended
			return nil
		}
	}
}

// judge logs what was refused and returns the first error that is about Kafka instead of one message. If Kafka took
// anything it is not down: a partition without a leader holds nobody else up.
func (r *Relay) judge(messages []event.Message, results []error) (outage error) {
	published := 0
	for i, err := range results {
		switch {
		case err == nil:
			published++
		case fault.Is(err, fault.Invalid):
			r.log.Error("kafka refuses a message", zap.Error(err), zap.String("event_id", messages[i].ID),
				zap.String("product_id", messages[i].Key), zap.String("type", messages[i].Type))
		case outage == nil:
			outage = err
		}
	}
	if published == 0 {
		return outage
	}
	r.partial(outage)
	return nil
}

// partial logs at most once a minute that only a part could be sent, because such rounds may follow each other all day.
func (r *Relay) partial(err error) {
	if err == nil || time.Since(r.saidPart) < time.Minute {
		return
	}
	r.saidPart = time.Now()
	r.log.Warn("some messages cannot be sent and will be repeated, others go", zap.Error(err))
}

// withoutRefusal drops an error that only repeats that a message was refused: the outbox puts that one off by itself, and
// the others should not wait for it.
func withoutRefusal(err error) error {
	if fault.Is(err, fault.Invalid) {
		return nil
	}
	return err
}

// sample measures the outbox now and then.
func (r *Relay) sample(ctx context.Context) {
	state := health{log: r.log, what: "measuring the outbox"}
	for ctx.Err() == nil {
		err := r.measure(ctx)
		if ctx.Err() == nil {
			state.report(err)
		}
		backoff.Sleep(ctx, backoff.Jitter(r.config.Sample))
	}
}

func (r *Relay) measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sampleBound)
	defer cancel()
	depth, err := r.outbox.Depth(ctx)
	if err == nil {
		r.metrics.depth(depth)
	}
	return err
}

// health logs that something broke, and that it works again: once each, not every round.
type health struct {
	log    *zap.Logger
	what   string
	broken bool
}

func (h *health) report(err error) {
	switch {
	case err != nil && !h.broken:
		h.log.Warn(h.what+" failed and will be repeated", zap.Error(err))
	case err == nil && h.broken:
		h.log.Info(h.what + " works again")
	}
	h.broken = err != nil
}
