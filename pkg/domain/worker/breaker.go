package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

// The dependencies that every image needs.
const (
	DependencyPostgres = "postgres"
	DependencyS3       = "s3"
	DependencyCodec    = "codec"
	DependencyResolver = "resolver" // DNS for the names of sources
	DependencyEgress   = "egress"   // the way to the sources' hosts
)

// Breakers are circuit breakers, one for each dependency. They stop the intake of jobs while a dependency is down, so
// that sources are not downloaded for attempts that must fail. A breaker opens when one probe fails, or after
// [BreakerConfig].Faults consecutive faults of the dependency in attempts, because a store may answer probes and refuse
// writes. A fault is an operation that fails because the dependency is unavailable.
//
// While a breaker is open the worker accepts no job. Running attempts continue; the fault costs them no attempt. A
// successful probe makes the breaker half open, and the worker accepts jobs. The next fault opens it again, each time
// for twice as long; the next success closes it.
//
// A dependency whose probe has WhileOpen is one that only [Breakers.Trip] opens, with evidence of its own. It becomes half
// open with the first successful probe, and at the latest after MaxPause: the evidence may have been an error, and sources
// that the probe does not know may be available.
type Breakers struct {
	cfg     BreakerConfig
	all     map[string]*breaker
	changed chan struct{} // holds a token while Run has to compare the breakers with the intake
	open    *prometheus.GaugeVec
	opened  *prometheus.CounterVec
	log     *zap.Logger
}

// Probe checks one dependency. Check returns nil if it is available; it must be safe for concurrent use.
type Probe struct {
	Dependency string
	Check      func(ctx context.Context) error
	WhileOpen  bool // Check is called only while the breaker is open, and opens none
}

// Pauser stops and starts the intake of jobs; kafka.Consumer implements it.
type Pauser interface {
	Pause()
	Resume()
}

// NewBreakers returns closed breakers, one for each probe, and registers their metrics with reg.
func NewBreakers(cfg BreakerConfig, reg prometheus.Registerer, log *zap.Logger, probes ...Probe) *Breakers {
	b := &Breakers{
		cfg: cfg, all: map[string]*breaker{}, changed: make(chan struct{}, 1), log: log,
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vitrine_worker_breaker_open", Help: "1 while the intake of requests is paused because the dependency is down.",
		}, []string{"dependency"}),
		opened: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_worker_breaker_opened_total", Help: "Openings of a dependency's circuit breaker.",
		}, []string{"dependency"}),
	}
	reg.MustRegister(b.open, b.opened)
	for _, p := range probes {
		b.all[p.Dependency] = &breaker{probe: p, cfg: cfg, pause: cfg.Interval}
		b.open.WithLabelValues(p.Dependency).Set(0)
		b.opened.WithLabelValues(p.Dependency)
	}
	return b
}

// Run probes every dependency until ctx ends, and pauses intake while a breaker is open. It returns nil.
func (b *Breakers) Run(ctx context.Context, intake Pauser) error {
	var probing sync.WaitGroup
	defer probing.Wait()
	for _, br := range b.all {
		probing.Go(func() { b.probeLoop(ctx, br) })
	}
	paused := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.changed:
		}
		pause := b.anyOpen()
		switch {
		case pause && !paused:
			intake.Pause()
		case !pause && paused:
			intake.Resume()
		}
		paused = pause
	}
}

// probeLoop probes one dependency, at once and then an interval after each result. Each dependency has a loop of its own, so
// a probe that hangs delays only the probes of its dependency.
func (b *Breakers) probeLoop(ctx context.Context, br *breaker) {
	for {
		if !br.probe.WhileOpen || br.isOpen() {
			b.check(ctx, br)
		}
		if !backoff.Sleep(ctx, b.cfg.Interval) {
			return
		}
	}
}

// check probes one dependency once.
func (b *Breakers) check(ctx context.Context, br *breaker) {
	probe, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	err := br.probe.Check(probe)
	if ctx.Err() != nil {
		return
	}
	if to, changed := br.recordProbe(err, time.Now()); changed {
		b.onChange(br, to, err)
	}
}

// Trip opens the breaker of a dependency whose outage has been verified. Without a breaker for it, it does nothing.
func (b *Breakers) Trip(dependency string, err error) {
	if br := b.all[dependency]; br != nil && br.trip(time.Now()) {
		b.onChange(br, open, err)
	}
}

// isOpen reports whether the dependency has a breaker and it is open.
func (b *Breakers) isOpen(dependency string) bool {
	br := b.all[dependency]
	return br != nil && br.isOpen()
}

// Report records the result of an operation on a dependency: nil, or its fault. Without a breaker for the dependency it does
// nothing.
func (b *Breakers) Report(dependency string, err error) {
	if br := b.all[dependency]; br != nil {
		if to, changed := br.recordWork(err, time.Now()); changed {
			b.onChange(br, to, err)
		}
	}
}

// observe reports the result of an operation. An error with another kind than Unavailable is an answer of the dependency,
// so it counts as a success. The end of a cancelled context and an error without a kind are not reported, because they
// say nothing about the dependency.
func (b *Breakers) observe(dependency string, err error) {
	switch {
	case err == nil, fault.From(err) != nil && !fault.Is(err, fault.Unavailable):
		b.Report(dependency, nil)
	case errors.Is(err, context.Canceled):
	case fault.Is(err, fault.Unavailable), errors.Is(err, context.DeadlineExceeded):
		b.Report(dependency, err)
	}
}

// observeCodec reports whether a codec could be started. A codec that crashed or exceeded its deadline had started.
func (b *Breakers) observeCodec(err error) {
	switch f := media.FailureOf(err); {
	case f != nil && f.Code == media.CodecUnavailable:
		if !errors.Is(err, context.Canceled) {
			b.Report(DependencyCodec, err)
		}
	case err == nil, f != nil:
		b.Report(DependencyCodec, nil)
	}
}

// onChange counts and logs a transition, and wakes Run.
func (b *Breakers) onChange(br *breaker, to breakerState, err error) {
	name := zap.String("dependency", br.probe.Dependency)
	switch to {
	case open:
		b.open.WithLabelValues(br.probe.Dependency).Set(1)
		b.opened.WithLabelValues(br.probe.Dependency).Inc()
		b.log.Warn("circuit breaker open: intake of requests paused", name, zap.Error(err))
	case halfOpen:
		b.open.WithLabelValues(br.probe.Dependency).Set(0)
		b.log.Info("circuit breaker half open: intake of requests resumes", name)
	case closed:
		b.log.Info("circuit breaker closed", name)
	}
	select {
	case b.changed <- struct{}{}:
	default: // Run has not taken the previous token yet
	}
}

func (b *Breakers) anyOpen() bool {
	for _, br := range b.all {
		if br.isOpen() {
			return true
		}
	}
	return false
}

type breakerState int

const (
	closed breakerState = iota
	open
	halfOpen
)

// breaker is the state of one dependency.
type breaker struct {
	probe Probe
	cfg   BreakerConfig

	mu     sync.Mutex
	state  breakerState
	faults int           // consecutive operations that were faults
	until  time.Time     // an open breaker stays open until this time, even if probes succeed
	opened time.Time     // by trip
	pause  time.Duration // how long the next operation that opens the breaker keeps it open
}

func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state == open
}

// recordProbe records the result of a probe, and returns the state and whether it has changed.
func (b *breaker) recordProbe(err error, now time.Time) (to breakerState, changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.state
	expired := b.probe.WhileOpen && now.Sub(b.opened) >= b.cfg.MaxPause
	switch {
	case err != nil && b.state != open && !b.probe.WhileOpen:
		b.state, b.until = open, now
	case b.state == open && (expired || err == nil && !now.Before(b.until)):
		b.state = halfOpen
	}
	return b.state, b.state != before
}

// trip opens the breaker until a probe succeeds, and reports whether it was not open before.
func (b *breaker) trip(now time.Time) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed = b.state != open
	if changed {
		b.state, b.until, b.opened = open, now, now
	}
	return changed
}

// recordWork records the result of an operation, and returns as recordProbe does. It ignores operations that end while the
// breaker is open, because they started before it opened.
func (b *breaker) recordWork(err error, now time.Time) (to breakerState, changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.state
	switch {
	case b.state == open:
	case err != nil:
		if b.faults++; b.state == halfOpen || b.faults >= b.cfg.Faults {
			b.state, b.until = open, now.Add(b.pause)
			b.pause = min(2*b.pause, b.cfg.MaxPause)
		}
	default:
		b.faults = 0
		if b.state == halfOpen {
			b.state, b.pause = closed, b.cfg.Interval
		}
	}
	return b.state, b.state != before
}
