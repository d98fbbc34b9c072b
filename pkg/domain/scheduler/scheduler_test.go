package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/scheduler"
	"vitrine.io/pkg/test/catalogtest"
)

// fakeJobs are the jobs of a scheduler, without a database.
type fakeJobs struct {
	mu       sync.Mutex
	waiting  map[catalog.Class]map[scheduler.Flow]int
	inFlight map[scheduler.Flow]int
	busy     bool // another scheduler runs a round
	err      error
	backfill int // jobs of backfills that each round releases
	rounds   int
	counts   int
	wakes    int
}

func (f *fakeJobs) Release(_ context.Context, _ scheduler.Search,
	plan func(catalog.Class, []scheduler.Waiting, map[scheduler.Flow]int) []scheduler.Grant,
) (scheduler.Round, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rounds++
	r := scheduler.Round{Acquired: !f.busy, Released: map[catalog.Class]int{}}
	if f.err != nil || f.busy {
		return r, f.err
	}
	for _, n := range f.inFlight {
		r.InFlight += n
	}
	for _, class := range []catalog.Class{catalog.Live, catalog.Bulk} {
		var waiting []scheduler.Waiting
		for flow, n := range f.waiting[class] {
			waiting = append(waiting, scheduler.Waiting{Flow: flow, Due: n})
		}
		for _, g := range plan(class, waiting, f.inFlight) {
			f.waiting[class][g.Flow] -= g.Jobs
			r.Released[class] += g.Jobs
		}
	}
	r.Released[catalog.BackfillClass] = f.backfill
	return r, nil
}

func (f *fakeJobs) CountWaiting(context.Context) (map[catalog.Class]int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts++
	counts := map[catalog.Class]int{}
	for class, flows := range f.waiting {
		for _, n := range flows {
			counts[class] += n
		}
	}
	return counts, nil
}

func (f *fakeJobs) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wakes++
}

// during runs a scheduler for a time.
func during(t *testing.T, f *fakeJobs, cfg scheduler.Config, reg *prometheus.Registry, d time.Duration) {
	t.Helper()
	s := scheduler.New(scheduler.Deps{Jobs: f, Wake: f.wake, Now: time.Now, Log: zap.NewNop()}, cfg, reg)
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("run: %v", err)
	}
}

func config() scheduler.Config {
	return scheduler.Config{Interval: time.Second, Batch: 10, HostWindow: 64, Window: 100}
}

func newJobs(live, bulk int) *fakeJobs {
	return &fakeJobs{inFlight: map[scheduler.Flow]int{}, waiting: map[catalog.Class]map[scheduler.Flow]int{
		catalog.Live: {flow(1, "h"): live}, catalog.Bulk: {flow(2, "i"): bulk},
	}}
}

func TestScheduler(t *testing.T) {
	t.Parallel()
	t.Run("full_rounds_follow_without_a_pause", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f, reg := newJobs(30, 70), prometheus.NewRegistry()
			during(t, f, config(), reg, 1500*time.Millisecond)
			for name, want := range map[string]float64{
				"released_total": 94, "in_flight": 94, "window": 100, "errors_total": 0,
			} {
				if got := catalogtest.Metric(t, reg, "vitrine_scheduler_"+name); got != want {
					t.Errorf("%s: got %v, want %v", name, got, want)
				}
			}
			if f.wakes != 10 || f.rounds != 10 || f.counts != 1 {
				t.Errorf("got %d wakes in %d rounds, %d counts, want ten of ten, and one", f.wakes, f.rounds, f.counts)
			}
		})
	})
	t.Run("jobs_of_backfills_are_not_in_flight", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f, reg := newJobs(3, 0), prometheus.NewRegistry()
			f.backfill = 2
			during(t, f, config(), reg, 1500*time.Millisecond)
			if got := catalogtest.Metric(t, reg, "vitrine_scheduler_in_flight"); got != 3 {
				t.Errorf("got %v in flight, want 3", got)
			}
		})
	})
	t.Run("live_jobs_fill_the_batch_first", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newJobs(8, 8)
			cfg := config()
			cfg.Window, cfg.HostWindow = 10, 10
			during(t, f, cfg, prometheus.NewRegistry(), 1500*time.Millisecond)
			if got := fmt.Sprint(f.inFlight); got != fmt.Sprint(map[scheduler.Flow]int{flow(1, "h"): 8, flow(2, "i"): 2}) {
				t.Errorf("got %s", got)
			}
		})
	})
	t.Run("errors_are_counted_and_rounds_go_on", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f, reg := newJobs(1, 1), prometheus.NewRegistry()
			f.err = errors.New("down")
			during(t, f, config(), reg, 3500*time.Millisecond)
			if n := catalogtest.Metric(t, reg, "vitrine_scheduler_errors_total"); n != 3 || f.wakes != 0 {
				t.Errorf("got %v errors and %d wakes, want three and none", n, f.wakes)
			}
		})
	})
	t.Run("gauges_are_zero_while_another_scheduler_runs", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f, reg := newJobs(5, 200), prometheus.NewRegistry()
			f.busy = true
			during(t, f, config(), reg, 3500*time.Millisecond)
			if n := catalogtest.Metric(t, reg, "vitrine_scheduler_waiting"); n != 0 || f.counts != 0 {
				t.Errorf("got %v waiting after %d counts, want none", n, f.counts)
			}
		})
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	if wrong := config().Validate(); len(wrong) != 0 {
		t.Errorf("got %v for a valid configuration", wrong)
	}
	if wrong := (scheduler.Config{HostWindow: 1, Window: 1_000_001}).Validate(); len(wrong) != 4 {
		t.Errorf("got %v, want every field", wrong)
	}
}
