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

// The dependencies of every image.
const (
	Postgres = "postgres"
	S3       = "s3"
	Encoder  = "codec"
)

// Breakers are circuit breakers, one for each dependency of every image. They keep a worker from taking requests while a
// dependency is down, and so from fetching the same sources again and again for nothing. A breaker opens at once when a
// probe fails, and when work has met so many faults of the dependency in a row: a store may answer probes and refuse writes.
//
// While any breaker is open no request is taken; work in hand continues, and costs no attempt if it meets the fault. A
// successful probe makes the breaker half open: requests are taken again. The next fault opens it again, each time for
// twice as long, and the next success closes it.
type Breakers struct {
	cfg     BreakerConfig
	all     map[string]*breaker
	changed chan struct{} // holds one token while the pauser may have to be called
	open    *prometheus.GaugeVec
	opened  *prometheus.CounterVec
	log     *zap.Logger
}

// Probe checks one dependency. Check may be called while the dependency is in use.
type Probe struct {
	Dependency string
	Check      func(ctx context.Context) error
}

// Pauser stops and starts the intake of requests; kafka.Consumer is one.
type Pauser interface {
	Pause()
	Resume()
}

// NewBreakers returns closed breakers, one for each probe.
func NewBreakers(cfg BreakerConfig, reg prometheus.Registerer, log *zap.Logger, probes ...Probe) *Breakers {
	b := &Breakers{
		cfg: cfg, all: map[string]*breaker{}, changed: make(chan struct{}, 1), log: log,
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vitrine_worker_breaker_open", Help: "1 while no requests are taken because the dependency is down.",
		}, []string{"dependency"}),
		opened: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_worker_breaker_opened_total", Help: "How often a dependency's circuit breaker has opened.",
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

// Run probes until ctx ends, and pauses intake while a breaker is open.
func (b *Breakers) Run(ctx context.Context, intake Pauser) error {
	var probing sync.WaitGroup
	defer probing.Wait()
	for _, one := range b.all {
		probing.Go(func() { b.keepProbing(ctx, one) })
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

// keepProbing probes one dependency, at once and then an interval after each answer. A probe that hangs delays only the
// probes of the same dependency.
func (b *Breakers) keepProbing(ctx context.Context, one *breaker) {
	for {
		probe, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
		err := one.probe.Check(probe)
		cancel()
		if ctx.Err() != nil {
			return
		}
		b.note(one, one.probed(err, time.Now()), err)
		if !backoff.Sleep(ctx, b.cfg.Interval) {
			return
		}
	}
}

// Report records how work with a dependency ended: nil, or its fault.
func (b *Breakers) Report(dependency string, err error) {
	if one := b.all[dependency]; one != nil {
		b.note(one, one.worked(err, time.Now()), err)
	}
}

// observe reports err if it says something about the dependency. The end of the caller's context and a defect of ours say
// nothing; any other error is an answer, and so a success.
func (b *Breakers) observe(dependency string, err error) {
	switch {
	case err == nil, fault.From(err) != nil && !fault.Is(err, fault.Unavailable):
		b.Report(dependency, nil)
	case errors.Is(err, context.Canceled):
	case fault.Is(err, fault.Unavailable), errors.Is(err, context.DeadlineExceeded):
		b.Report(dependency, err)
	}
}

// observeCodec reports a codec that could not be started. An image that crashed or hung one had a codec that started.
func (b *Breakers) observeCodec(err error) {
	switch f := media.FailureOf(err); {
	case f != nil && f.Code == media.CodecUnavailable:
		if !errors.Is(err, context.Canceled) {
			b.Report(Encoder, err)
		}
	case err == nil, f != nil:
		b.Report(Encoder, nil)
	}
}

// note counts and logs a change, and wakes Run.
func (b *Breakers) note(one *breaker, to change, err error) {
	name := zap.String("dependency", one.probe.Dependency)
	switch to {
	case unchanged:
		return
	case hasOpened:
		b.open.WithLabelValues(one.probe.Dependency).Set(1)
		b.opened.WithLabelValues(one.probe.Dependency).Inc()
		b.log.Warn("circuit open: no new requests are taken", name, zap.Error(err))
	case onTrial:
		b.open.WithLabelValues(one.probe.Dependency).Set(0)
		b.log.Info("circuit half open: requests are taken on trial", name)
	case hasClosed:
		b.log.Info("circuit closed", name)
	}
	select {
	case b.changed <- struct{}{}:
	default: // there is a token already
	}
}

func (b *Breakers) anyOpen() bool {
	for _, one := range b.all {
		if one.isOpen() {
			return true
		}
	}
	return false
}

// change is a transition of a breaker.
type change int

const (
	unchanged change = iota
	hasOpened
	onTrial
	hasClosed
)

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
	faults int           // of work, in a row
	until  time.Time     // an open breaker stays open until then, even if probes succeed
	pause  time.Duration // how long it stays open when work opens it the next time
}

func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state == open
}

// probed records the result of a probe.
func (b *breaker) probed(err error, now time.Time) change {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err != nil && b.state != open:
		b.state, b.until = open, now
		return hasOpened
	case err == nil && b.state == open && !now.Before(b.until):
		b.state = halfOpen
		return onTrial
	default:
		return unchanged
	}
}

// worked records the outcome of work. Work that ends while the breaker is open began earlier, and is ignored.
func (b *breaker) worked(err error, now time.Time) change {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state == open:
		return unchanged
	case err == nil:
		b.faults = 0
		if b.state == closed {
			return unchanged
		}
		b.state, b.pause = closed, b.cfg.Interval
		return hasClosed
	}
	if b.faults++; b.state == closed && b.faults < b.cfg.Faults {
		return unchanged
	}
	b.state, b.until = open, now.Add(b.pause)
	b.pause = min(2*b.pause, b.cfg.MaxPause)
	return hasOpened
}
