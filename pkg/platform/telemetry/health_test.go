package telemetry_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/platform/telemetry"
)

var errDown = errors.New("dial tcp 10.0.0.7:5432: refused")

// dependency counts its checks, which fail while it is down.
type dependency struct {
	calls atomic.Int64
	down  atomic.Bool
}

func (p *dependency) check(context.Context) error {
	p.calls.Add(1)
	if p.down.Load() {
		return errDown
	}
	return nil
}

// as returns a dependency that the program needs.
func (p *dependency) as(name string) telemetry.Dependency {
	return telemetry.Dependency{Name: name, Check: p.check}
}

func healthConfig() telemetry.HealthConfig {
	return telemetry.HealthConfig{Interval: 2 * time.Second, UnreadyAfter: 30 * time.Second}
}

func newHealth(dependencies ...telemetry.Dependency) *telemetry.Health {
	return telemetry.NewHealth(healthConfig(), dependencies, time.Now, nil, zap.NewNop())
}

// runHealth runs h until the test ends.
func runHealth(t *testing.T, h *telemetry.Health) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

// awaitChecked waits in real time until the dependencies were checked.
func awaitChecked(t *testing.T, h *telemetry.Health, names ...string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(names, func(name string) bool { return h.Report().Checks[name].Error == "not checked yet" }) {
		select {
		case <-t.Context().Done():
			t.Fatal("no check")
		case <-tick.C:
		}
	}
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestHealth(t *testing.T) {
	t.Parallel()
	t.Run("first_ready_when_all_answer_at_once", testHealthFirstReady)
	t.Run("failure_later_leaves_it_ready", testHealthFailureLater)
	t.Run("optional_dependency_is_only_reported", testHealthOptional)
	t.Run("part_that_is_not_started", testHealthNotStarted)
	t.Run("checks_run_every_interval", testHealthChecksRunEveryInterval)
	t.Run("slow_checks_end_after_two_seconds", testHealthSlowChecks)
	t.Run("hanging_check_is_not_restarted", testHealthHangingCheck)
	t.Run("draining", testHealthDraining)
	t.Run("panic", testHealthPanic)
	t.Run("no_dependencies", testHealthNoDependencies)
	t.Run("changes_are_logged", testHealthChangesAreLogged)
	t.Run("metrics", testHealthMetrics)
}

func testHealthFirstReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db, queue dependency
		h := newHealth(db.as("postgres"), queue.as("kafka"))
		if err := h.Ready(t.Context()); fault.From(err) == nil || fault.From(err).Detail != "not available: kafka, postgres" {
			t.Errorf("before the first check: got %v", err)
		}
		db.down.Store(true)
		runHealth(t, h)
		pass(time.Second)
		err := h.Ready(t.Context())
		f := fault.From(err)
		if f == nil || f.Kind != fault.Unavailable || f.Detail != "not available: postgres" {
			t.Fatalf("got %v, want Unavailable with the name of the failed check", err)
		}
		if strings.Contains(f.Detail, "10.0.0.7") || !strings.Contains(err.Error(), "postgres: "+errDown.Error()) {
			t.Errorf("the error must be only in the cause: %v", err)
		}
		queue.down.Store(true)
		pass(time.Second)
		db.down.Store(false)
		pass(time.Second) // both have answered by now, but not both at last
		if h.Ready(t.Context()) == nil {
			t.Error("ready although kafka does not answer")
		}
		queue.down.Store(false)
		pass(time.Second)
		if err := h.Ready(t.Context()); err != nil {
			t.Errorf("got %v, want ready", err)
		}
	})
}

func testHealthFailureLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db, queue dependency
		h := newHealth(db.as("postgres"), queue.as("kafka"))
		runHealth(t, h)
		pass(time.Second)
		db.down.Store(true)
		queue.down.Store(true)
		pass(time.Hour)
		r := h.Report()
		if r.Status != telemetry.Ready || r.Reason != "" || h.Ready(t.Context()) != nil {
			t.Errorf("got %+v, want ready", r)
		}
		if c := r.Checks["postgres"]; c.OK || c.Error != errDown.Error() || c.FailedSeconds < 3500 {
			t.Errorf("got %+v, want a failure since an hour", c)
		}
	})
}

func testHealthOptional(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db, cache dependency
		cache.down.Store(true)
		redis := cache.as("redis")
		redis.Optional = true
		h := newHealth(db.as("postgres"), redis)
		runHealth(t, h)
		pass(time.Second)
		r := h.Report()
		if r.Status != telemetry.Ready || r.Checks["redis"].OK || !r.Checks["redis"].Optional {
			t.Errorf("got %+v, want ready without redis", r)
		}
	})
}

func testHealthNotStarted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		late := telemetry.Dependency{Name: "redis", Check: func(context.Context) error { return telemetry.ErrNotStarted }}
		h := telemetry.NewHealth(healthConfig(), []telemetry.Dependency{late}, time.Now, reg, zap.NewNop())
		runHealth(t, h)
		pass(time.Second)
		if r := h.Report(); r.Status != telemetry.NotReady || r.Checks["redis"].Error != "not checked yet" {
			t.Errorf("got %+v", r)
		}
		if n, err := testutil.GatherAndCount(reg, "vitrine_dependency_up"); err != nil || n != 0 {
			t.Errorf("%d series, %v, want none", n, err)
		}
	})
}

func testHealthChecksRunEveryInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db, other dependency
		other.down.Store(true)
		h := newHealth(db.as("postgres"), other.as("kafka"))
		runHealth(t, h)
		pass(999 * time.Millisecond)
		if got := db.calls.Load(); got != 5 { // every 200 ms while the program starts
			t.Errorf("%d checks within the first second, want 5", got)
		}
		other.down.Store(false)
		pass(time.Second)
		before := db.calls.Load()
		pass(20 * time.Second)
		if got := db.calls.Load() - before; got != 10 {
			t.Errorf("%d checks in 20 s, want 10", got)
		}
	})
}

func testHealthSlowChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := telemetry.Dependency{Name: "a", Check: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		late := telemetry.Dependency{Name: "b", Check: func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(1500 * time.Millisecond):
				return nil
			}
		}}
		h := newHealth(slow, late)
		runHealth(t, h)
		pass(2 * time.Second)
		want := map[string]telemetry.Result{
			"a": {Seconds: 2, FailedSeconds: 2, Error: "no answer within 2s"}, "b": {OK: true, Seconds: 1.5},
		}
		if got := h.Report().Checks; !maps.Equal(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func testHealthHangingCheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		release := make(chan struct{})
		h := newHealth(telemetry.Dependency{Name: "kafka", Check: func(context.Context) error {
			calls.Add(1)
			<-release
			return nil
		}})
		runHealth(t, h)
		pass(time.Hour)
		got := h.Report().Checks["kafka"]
		if got.Error != "no answer within 2s" || got.FailedSeconds != 3600 || calls.Load() != 1 {
			t.Errorf("got %+v after %d checks, want 1", got, calls.Load())
		}
		close(release)
		pass(time.Second)
		if err := h.Ready(t.Context()); err != nil || calls.Load() < 2 {
			t.Errorf("after the end of the hanging check: got %v after %d checks", err, calls.Load())
		}
	})
}

func testHealthDraining(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db dependency
		h := newHealth(db.as("postgres"))
		runHealth(t, h)
		pass(time.Second)
		h.SetDraining()
		pass(time.Minute)
		if got := h.Report(); got.Status != telemetry.Draining {
			t.Errorf("got %+v", got)
		}
		if err := h.Ready(t.Context()); fault.From(err) == nil || fault.From(err).Detail != "shutting down" {
			t.Errorf("got %v", err)
		}
	})
}

func testHealthPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHealth(telemetry.Dependency{Name: "kafka", Check: func(context.Context) error { panic("nil client") }})
		runHealth(t, h)
		pass(time.Second)
		if got := h.Report().Checks["kafka"].Error; !strings.HasPrefix(got, "panic: nil client") {
			t.Errorf("got %q", got)
		}
	})
}

func testHealthNoDependencies(t *testing.T) {
	t.Parallel()
	if err := newHealth().Ready(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
}

func testHealthChangesAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db, cache dependency
		core, logs := observer.New(zap.DebugLevel)
		redis := cache.as("redis")
		redis.Optional = true
		h := telemetry.NewHealth(healthConfig(), []telemetry.Dependency{db.as("postgres"), redis}, time.Now, nil, zap.New(core))
		cache.down.Store(true)
		runHealth(t, h)
		for _, down := range []bool{false, true, true, false, false} {
			db.down.Store(down)
			pass(5 * time.Second)
		}
		var got []string
		for _, e := range logs.All() {
			name, _ := e.ContextMap()["check"].(string)
			got = append(got, strings.TrimSpace(e.Message+" "+name))
		}
		slices.Sort(got)
		want := []string{"check failed postgres", "check failed redis", "check recovered postgres", "ready"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func testHealthMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db, cache dependency
		cache.down.Store(true)
		reg := prometheus.NewPedanticRegistry()
		dependencies := []telemetry.Dependency{db.as("postgres"), cache.as("redis")}
		h := telemetry.NewHealth(healthConfig(), dependencies, time.Now, reg, zap.NewNop())
		runHealth(t, h)
		pass(time.Second)
		const up = `
# HELP vitrine_dependency_up Whether the last check of a dependency succeeded; there is no series before the first check.
# TYPE vitrine_dependency_up gauge
vitrine_dependency_up{dependency="postgres"} 1
vitrine_dependency_up{dependency="redis"} `
		const ready = `
# HELP vitrine_ready Whether /readyz returns 200.
# TYPE vitrine_ready gauge
vitrine_ready `
		want := func(text, when string) {
			t.Helper()
			if err := testutil.GatherAndCompare(reg, strings.NewReader(text)); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		want(up+"0"+ready+"0\n", "not ready")
		cache.down.Store(false)
		pass(time.Second)
		want(up+"1"+ready+"1\n", "ready")
		h.SetDraining()
		pass(time.Minute)
		want(up+"1"+ready+"0\n", "draining")
	})
}
