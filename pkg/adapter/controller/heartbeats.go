package controller

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/pipeline"
)

// Heartbeats reads the reports of the running instances.
type Heartbeats interface {
	// Heartbeats returns the reports that are younger than maxAge.
	Heartbeats(ctx context.Context, maxAge time.Duration) ([]pipeline.Report, error)
}

// snapshot is the result of the last read of the heartbeats. The zero value is that of no read.
type snapshot struct {
	reports []pipeline.Report
	read    bool
	err     error
}

// known reports whether the last read succeeded.
func (s snapshot) known() bool { return s.read && s.err == nil }

// refusal describes the first instance that has refused its file.
func (s snapshot) refusal() string {
	for _, r := range s.reports {
		if r.Error != "" {
			return fmt.Sprintf("%s %s refuses the published file: %s", r.Role, r.Instance, r.Error)
		}
	}
	return ""
}

// poller reads the heartbeats every interval, and then calls changed. It is a Runnable of a manager: only the leader reads.
type poller struct {
	source   Heartbeats
	interval time.Duration
	maxAge   time.Duration
	changed  func(ctx context.Context)
	failures prometheus.Counter
	log      *zap.Logger
	last     atomic.Pointer[snapshot]
}

func (p *poller) snapshot() snapshot {
	if s := p.last.Load(); s != nil {
		return *s
	}
	return snapshot{}
}

// Start reads until ctx ends. A read has the interval's time; a failure is logged once, and so is the next success.
func (p *poller) Start(ctx context.Context) error {
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
	for {
		p.read(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *poller) read(ctx context.Context) {
	try, cancel := context.WithTimeout(ctx, p.interval)
	defer cancel()
	reports, err := p.source.Heartbeats(try, p.maxAge)
	if ctx.Err() != nil {
		return
	}
	before := p.snapshot()
	switch {
	case err != nil && before.err == nil:
		p.log.Warn("heartbeats cannot be read", zap.Error(err))
	case err == nil && before.err != nil:
		p.log.Info("heartbeats can be read again")
	}
	if err != nil {
		p.failures.Inc()
	}
	p.last.Store(&snapshot{reports: reports, read: true, err: err})
	p.changed(ctx)
}
