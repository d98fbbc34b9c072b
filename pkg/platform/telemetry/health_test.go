package telemetry_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

func newHealth(checks map[string]telemetry.Check) *telemetry.Health {
	return telemetry.NewHealth(checks, time.Now, zap.NewNop())
}

func TestHealth(t *testing.T) {
	t.Parallel()
	t.Run("not_ready_names_failed_checks", testHealthNotReadyNamesFailedChecks)
	t.Run("report_is_kept_for_a_second", testHealthReportIsKeptForASecond)
	t.Run("concurrent_readers_share_a_report", testHealthConcurrentReadersShareAReport)
	t.Run("checks_run_concurrently_for_two_seconds", testHealthChecksRunConcurrentlyForTwoSeconds)
	t.Run("hanging_check_is_not_restarted", testHealthHangingCheckIsNotRestarted)
	t.Run("reader_deadline_does_not_end_checks", testHealthReaderDeadlineDoesNotEndChecks)
	t.Run("draining_runs_no_check", testHealthDrainingRunsNoCheck)
	t.Run("panic", testHealthPanic)
	t.Run("no_checks", testHealthNoChecks)
	t.Run("changes_are_logged", testHealthChangesAreLogged)
}

func testHealthNotReadyNamesFailedChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db, cache dependency
		h := newHealth(map[string]telemetry.Check{"postgres": db.check, "redis": cache.check})
		if err := h.Ready(t.Context()); err != nil {
			t.Fatalf("got %v, want ready", err)
		}
		db.down.Store(true)
		<-time.After(time.Second)
		err := h.Ready(t.Context())
		f := fault.From(err)
		if f == nil || f.Kind != fault.Unavailable || f.Detail != "not available: postgres" {
			t.Fatalf("got %v, want Unavailable with the name of the failed check", err)
		}
		if strings.Contains(f.Detail, "10.0.0.7") || !strings.Contains(err.Error(), "postgres: "+errDown.Error()) {
			t.Errorf("the reason must be only in the cause: %v", err)
		}
		got := h.Report(t.Context())
		want := map[string]telemetry.Result{"postgres": {Error: errDown.Error()}, "redis": {OK: true}}
		if got.Status != telemetry.NotReady || !maps.Equal(got.Checks, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func testHealthReportIsKeptForASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db dependency
		h := newHealth(map[string]telemetry.Check{"postgres": db.check})
		for _, c := range []struct {
			wait time.Duration
			want int64
		}{{0, 1}, {0, 1}, {999 * time.Millisecond, 1}, {time.Millisecond, 2}, {time.Hour, 3}} {
			<-time.After(c.wait)
			h.Report(t.Context())
			if got := db.calls.Load(); got != c.want {
				t.Errorf("after another %s: %d checks, want %d", c.wait, got, c.want)
			}
		}
	})
}

func testHealthConcurrentReadersShareAReport(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db dependency
		h := newHealth(map[string]telemetry.Check{"postgres": func(ctx context.Context) error {
			<-time.After(time.Second)
			return db.check(ctx)
		}})
		var readers sync.WaitGroup
		for range 100 {
			readers.Go(func() {
				if err := h.Ready(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		readers.Wait()
		if got := db.calls.Load(); got != 1 {
			t.Errorf("%d checks, want 1", got)
		}
	})
}

func testHealthChecksRunConcurrentlyForTwoSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		h := newHealth(map[string]telemetry.Check{"a": slow, "b": slow, "c": func(context.Context) error {
			<-time.After(1500 * time.Millisecond)
			return nil
		}})
		start := time.Now()
		got := h.Report(t.Context())
		if elapsed := time.Since(start); elapsed != 2*time.Second {
			t.Errorf("lasted %s, want 2s", elapsed)
		}
		want := map[string]telemetry.Result{
			"a": {Seconds: 2, Error: "no answer within 2s"}, "b": {Seconds: 2, Error: "no answer within 2s"},
			"c": {OK: true, Seconds: 1.5},
		}
		if got.Status != telemetry.NotReady || !maps.Equal(got.Checks, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func testHealthHangingCheckIsNotRestarted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		release := make(chan struct{})
		h := newHealth(map[string]telemetry.Check{"kafka": func(context.Context) error {
			calls.Add(1)
			<-release
			return nil
		}})
		for range 5 {
			if got := h.Report(t.Context()).Checks["kafka"].Error; got != "no answer within 2s" {
				t.Errorf("got %q", got)
			}
			<-time.After(time.Minute)
		}
		if got := calls.Load(); got != 1 {
			t.Errorf("%d checks hang, want 1", got)
		}
		close(release)
		synctest.Wait()
		if err := h.Ready(t.Context()); err != nil || calls.Load() != 2 {
			t.Errorf("after the end of the hanging check: got %v after %d checks, want 2", err, calls.Load())
		}
	})
}

func testHealthReaderDeadlineDoesNotEndChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHealth(map[string]telemetry.Check{"postgres": func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Second):
				return nil
			}
		}})
		var first sync.WaitGroup
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		first.Go(func() {
			if got := h.Report(ctx).Status; got != telemetry.Ready {
				t.Errorf("the first reader's deadline ended the checks: %s", got)
			}
		})
		synctest.Wait()
		start := time.Now()
		err := h.Ready(ctx) // waits for the lock until its deadline
		if !errors.Is(err, context.DeadlineExceeded) || !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v, want Unavailable because of the deadline", err)
		}
		if elapsed := time.Since(start); elapsed != 100*time.Millisecond {
			t.Errorf("waited %s beyond its deadline", elapsed)
		}
		first.Wait()
	})
}

func testHealthDrainingRunsNoCheck(t *testing.T) {
	t.Parallel()
	var db dependency
	h := newHealth(map[string]telemetry.Check{"postgres": db.check})
	h.SetDraining()
	if got := h.Report(t.Context()); got.Status != telemetry.Draining || db.calls.Load() != 0 {
		t.Errorf("got %+v after %d checks", got, db.calls.Load())
	}
	if err := h.Ready(t.Context()); fault.From(err) == nil || fault.From(err).Detail != "shutting down" {
		t.Errorf("got %v", err)
	}
}

func testHealthPanic(t *testing.T) {
	t.Parallel()
	h := newHealth(map[string]telemetry.Check{"kafka": func(context.Context) error { panic("nil client") }})
	if got := h.Report(t.Context()).Checks["kafka"].Error; got != "panic: nil client" {
		t.Errorf("got %q", got)
	}
}

func testHealthNoChecks(t *testing.T) {
	t.Parallel()
	if err := newHealth(nil).Ready(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
}

func testHealthChangesAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db, cache dependency
		core, logs := observer.New(zap.DebugLevel)
		h := telemetry.NewHealth(map[string]telemetry.Check{"postgres": db.check, "redis": cache.check}, time.Now, zap.New(core))
		cache.down.Store(true)
		for _, down := range []bool{false, true, true, false, false} {
			db.down.Store(down)
			h.Report(t.Context())
			<-time.After(time.Second)
		}
		var got []string
		for _, e := range logs.All() {
			got = append(got, e.Message+" "+e.ContextMap()["check"].(string))
		}
		want := []string{"check failed redis", "check failed postgres", "check recovered postgres"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
