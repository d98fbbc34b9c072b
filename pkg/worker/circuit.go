package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/backoff"
	"vitrine.io/pkg/fault"
)

// Circuits keep workers from taking requests while something that every picture needs is away: else sources would be fetched
// again and again for nothing. Each dependency has a circuit of its own. It opens at once when the dependency does not
// answer a probe, and when real work has met its fault so many times in a row: a store may well answer a probe and take
// nothing.
//
// While any circuit is open no request is taken; what is in hand goes on, and spends no attempt on a fault of ours. A probe
// that succeeds lets requests come again, on trial: the next fault opens the circuit again, each time for twice as long,
// and the next success closes it.
type Circuits struct {
	cfg     CircuitConfig
	all     map[string]*circuit
	changed chan struct{} // holds one token while there may be something to tell the gate
	metrics *circuitMetrics
	log     *zap.Logger
}

// Probe asks a dependency whether it is there. It may be called while it is being used.
type Probe struct {
	Dependency string
	Ask        func(ctx context.Context) error
}

// Gate is what takes requests; kafka.Consumer is one.
type Gate interface {
	Pause()
	Resume()
}

// NewCircuits returns closed circuits, one for each probe.
func NewCircuits(cfg CircuitConfig, reg prometheus.Registerer, log *zap.Logger, probes ...Probe) *Circuits {
	c := &Circuits{
		cfg: cfg, all: map[string]*circuit{}, changed: make(chan struct{}, 1), metrics: newCircuitMetrics(reg), log: log,
	}
	for _, p := range probes {
		c.all[p.Dependency] = &circuit{probe: p, cfg: cfg, pause: cfg.Interval}
		c.metrics.open.WithLabelValues(p.Dependency).Set(0)
		c.metrics.opened.WithLabelValues(p.Dependency)
	}
	return c
}

// Run probes until ctx ends, and pauses the gate while a circuit is open.
func (c *Circuits) Run(ctx context.Context, gate Gate) error {
	var probing sync.WaitGroup
	defer probing.Wait()
	for _, one := range c.all {
		probing.Go(func() { c.keepProbing(ctx, one) })
	}
	paused := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
		}
		pause := c.anyOpen()
		switch {
		case pause && !paused:
			gate.Pause()
		case !pause && paused:
			gate.Resume()
		}
		paused = pause
	}
}

// keepProbing asks one dependency at once, and again when the interval has passed since it answered. One that hangs delays
// nobody's but its own probes.
func (c *Circuits) keepProbing(ctx context.Context, one *circuit) {
	for {
		asking, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
		err := one.probe.Ask(asking)
		cancel()
		if ctx.Err() != nil {
			return
		}
		c.note(one, one.probed(err, time.Now()), err)
		if !backoff.Sleep(ctx, c.cfg.Interval) {
			return
		}
	}
}

// Report says how real work with a dependency ended: nil, or its fault.
func (c *Circuits) Report(dependency string, err error) {
	if one := c.all[dependency]; one != nil {
		c.note(one, one.worked(err, time.Now()), err)
	}
}

// reportUnavailable reports err as far as it says anything of the dependency: the end of the caller's own context does not,
// and neither does a defect of ours. Any other answer is a sign of life.
func (c *Circuits) reportUnavailable(dependency string, err error) {
	switch {
	case err == nil, fault.From(err) != nil && !fault.Is(err, fault.Unavailable):
		c.Report(dependency, nil)
	case errors.Is(err, context.Canceled):
	case fault.Is(err, fault.Unavailable), errors.Is(err, context.DeadlineExceeded):
		c.Report(dependency, err)
	}
}

// note tells of a change.
func (c *Circuits) note(one *circuit, to change, err error) {
	name := zap.String("dependency", one.probe.Dependency)
	switch to {
	case unchanged:
		return
	case hasOpened:
		c.metrics.open.WithLabelValues(one.probe.Dependency).Set(1)
		c.metrics.opened.WithLabelValues(one.probe.Dependency).Inc()
		c.log.Warn("circuit open: no new requests are taken", name, zap.Error(err))
	case onTrial:
		c.metrics.open.WithLabelValues(one.probe.Dependency).Set(0)
		c.log.Info("circuit half open: requests are taken on trial", name)
	case hasClosed:
		c.log.Info("circuit closed", name)
	}
	select {
	case c.changed <- struct{}{}:
	default: // there is a token already
	}
}

func (c *Circuits) anyOpen() bool {
	for _, one := range c.all {
		if one.isOpen() {
			return true
		}
	}
	return false
}

// change is what has become of a circuit.
type change int

const (
	unchanged change = iota
	hasOpened
	onTrial
	hasClosed
)

type circuitState int

const (
	closed circuitState = iota
	open
	halfOpen
)

// circuit is the state of one dependency.
type circuit struct {
	probe Probe
	cfg   CircuitConfig

	mu     sync.Mutex
	state  circuitState
	faults int           // of work, in a row
	until  time.Time     // an open circuit stays so, whatever a probe says
	pause  time.Duration // the next time that work opens it
}

func (c *circuit) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == open
}

// probed takes a probe's answer.
func (c *circuit) probed(err error, now time.Time) change {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil && c.state != open:
		c.state, c.until = open, now
		return hasOpened
	case err == nil && c.state == open && !now.Before(c.until):
		c.state = halfOpen
		return onTrial
	default:
		return unchanged
	}
}

// worked takes the outcome of real work. What ends while the circuit is open began before, and says nothing new.
func (c *circuit) worked(err error, now time.Time) change {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state == open:
		return unchanged
	case err == nil:
		c.faults = 0
		if c.state == closed {
			return unchanged
		}
		c.state, c.pause = closed, c.cfg.Interval
		return hasClosed
	}
	if c.faults++; c.state == closed && c.faults < c.cfg.Faults {
		return unchanged
	}
	c.state, c.until = open, now.Add(c.pause)
	c.pause = min(2*c.pause, c.cfg.Longest)
	return hasOpened
}
