package scheduler

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/backoff"
)

// A search reads at most maxFlows flows of a class. More are read in the next round, from there on.
const (
	maxFlows = 2000
	maxHosts = 100 // of one user, so that the hosts of one do not fill a search
)

// countInterval is the time between two counts of the waiting jobs, which read all of them.
const countInterval = 15 * time.Second

// Deps are the dependencies of a Scheduler.
type Deps struct {
	Jobs Jobs
	Wake func() // tells this process's relay that the outbox has rows
	Now  func() time.Time
	Log  *zap.Logger
}

// Scheduler releases jobs in rounds.
type Scheduler struct {
	Deps
	cfg      Config
	planners map[catalog.Class]*Planner
	after    map[catalog.Class]Flow
	counted  time.Time
	metrics  *metrics
}

// New returns a Scheduler and registers its metrics with reg. cfg must be valid.
func New(deps Deps, cfg Config, reg prometheus.Registerer) *Scheduler {
	s := &Scheduler{Deps: deps, cfg: cfg, planners: map[catalog.Class]*Planner{}, metrics: newMetrics(reg)}
	for _, class := range classes {
		s.planners[class] = NewPlanner(cfg.Windows())
	}
	s.metrics.window.Set(float64(cfg.Window))
	return s
}

// Run runs a round every interval until ctx ends. It counts and logs the errors of rounds, and returns nil.
func (s *Scheduler) Run(ctx context.Context) error {
	for pause := s.cfg.Interval; backoff.Sleep(ctx, pause); {
		full, err := s.round(ctx)
		if err != nil && ctx.Err() == nil {
			s.metrics.errors.Inc()
			s.Log.Warn("round failed", zap.Error(err))
		}
		if pause = s.cfg.Interval; full && err == nil {
			pause = 0
		}
	}
	return nil
}

// round releases one batch of jobs. full reports that more may follow at once.
func (s *Scheduler) round(ctx context.Context) (full bool, err error) {
	left := s.cfg.Batch
	search := Search{
		Windows: s.cfg.Windows(), After: s.after, MaxFlows: maxFlows, MaxHosts: maxHosts,
		MaxDue: min(s.cfg.Batch, s.cfg.HostWindow),
	}
	r, err := s.Jobs.Release(ctx, search, func(class catalog.Class, waiting []Waiting, inFlight map[Flow]int) []Grant {
		grants := s.planners[class].Plan(waiting, inFlight, left)
		for _, g := range grants {
			left -= g.Jobs
		}
		return grants
	})
	if err != nil {
		return false, fmt.Errorf("release jobs: %w", err)
	}
	if r.Acquired { // else another process searches
		s.after = r.Next
	}
	released := 0
	for class, n := range r.Released {
		s.metrics.released.WithLabelValues(string(class)).Add(float64(n))
		released += n
	}
	if released > 0 {
		s.Wake()
	}
	return left == 0, s.measure(ctx, r)
}

// measure sets the gauges after a round.
func (s *Scheduler) measure(ctx context.Context, r Round) error {
	if !r.Acquired {
		s.metrics.inFlight.Set(0)
		for _, class := range classes {
			s.metrics.waiting.WithLabelValues(string(class)).Set(0)
		}
		s.counted = time.Time{}
		return nil
	}
	s.metrics.inFlight.Set(float64(r.InFlight + r.Released[catalog.Live] + r.Released[catalog.Bulk]))
	if now := s.Now(); now.Sub(s.counted) >= countInterval {
		s.counted = now
		waiting, err := s.Jobs.CountWaiting(ctx)
		if err != nil {
			return fmt.Errorf("count waiting jobs: %w", err)
		}
		for _, class := range classes {
			s.metrics.waiting.WithLabelValues(string(class)).Set(float64(waiting[class]))
		}
	}
	return nil
}
