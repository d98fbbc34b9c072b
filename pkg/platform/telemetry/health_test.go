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

// part is something that is checked: it counts, and fails while down.
type part struct {
	asked atomic.Int64
	down  atomic.Bool
}

func (p *part) check(context.Context) error {
	p.asked.Add(1)
	if p.down.Load() {
		return errDown
	}
	return nil
}

func newHealth(checks map[string]telemetry.Check) *telemetry.Health {
	return telemetry.NewHealth(checks, time.Now, zap.NewNop())
}

func TestReadyMeansThatEveryCheckIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db, cache part
		h := newHealth(map[string]telemetry.Check{"postgres": db.check, "redis": cache.check})
		if err := h.Ready(t.Context()); err != nil {
			t.Fatalf("got %v, want ready", err)
		}
		db.down.Store(true)
		<-time.After(time.Second)
		err := h.Ready(t.Context())
		f := fault.From(err)
		if f == nil || f.Kind != fault.Unavailable || f.Detail != "not available: postgres" {
			t.Fatalf("got %v, want Unavailable with the name of what is down", err)
		}
		if strings.Contains(f.Detail, "10.0.0.7") || !strings.Contains(err.Error(), "postgres: "+errDown.Error()) {
			t.Errorf("the reason must be in the cause, and only there: %v", err)
		}
		got := h.Report(t.Context())
		want := map[string]telemetry.Result{"postgres": {Error: errDown.Error()}, "redis": {OK: true}}
		if got.Status != telemetry.NotReady || !maps.Equal(got.Checks, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestAnAnswerIsKeptForASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db part
		h := newHealth(map[string]telemetry.Check{"postgres": db.check})
		for _, c := range []struct {
			wait time.Duration
			want int64
		}{{0, 1}, {0, 1}, {999 * time.Millisecond, 1}, {time.Millisecond, 2}, {time.Hour, 3}} {
			<-time.After(c.wait)
			h.Report(t.Context())
			if got := db.asked.Load(); got != c.want {
				t.Errorf("after %s more: asked %d times, want %d", c.wait, got, c.want)
			}
		}
	})
}

func TestManyReadersCostOneRound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db part
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
		if got := db.asked.Load(); got != 1 {
			t.Errorf("asked %d times, want once", got)
		}
	})
}

func TestChecksRunAtOnceAndHaveTwoSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		h := newHealth(map[string]telemetry.Check{"a": slow, "b": slow, "c": func(context.Context) error {
			<-time.After(1500 * time.Millisecond)
			return nil
		}})
		began := time.Now()
		got := h.Report(t.Context())
		if spent := time.Since(began); spent != 2*time.Second {
			t.Errorf("took %s, want 2s", spent)
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

func TestACheckThatHangsIsNotStartedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		release := make(chan struct{})
		h := newHealth(map[string]telemetry.Check{"kafka": func(context.Context) error {
			asked.Add(1)
			<-release
			return nil
		}})
		for range 5 {
			if got := h.Report(t.Context()).Checks["kafka"].Error; got != "no answer within 2s" {
				t.Errorf("got %q", got)
			}
			<-time.After(time.Minute)
		}
		if got := asked.Load(); got != 1 {
			t.Errorf("%d of them hang now, want 1", got)
		}
		close(release)
		synctest.Wait()
		if err := h.Ready(t.Context()); err != nil || asked.Load() != 2 {
			t.Errorf("once it has ended it is asked again: got %v after %d", err, asked.Load())
		}
	})
}

func TestAnImpatientReaderSpoilsNothing(t *testing.T) {
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
				t.Errorf("the round was cut short with its first reader: %s", got)
			}
		})
		synctest.Wait()
		began := time.Now()
		err := h.Ready(ctx) // waits for its turn, and gives up
		if !errors.Is(err, context.DeadlineExceeded) || !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v, want Unavailable because of the deadline", err)
		}
		if spent := time.Since(began); spent != 100*time.Millisecond {
			t.Errorf("waited %s beyond its own deadline", spent)
		}
		first.Wait()
	})
}

func TestDrainingAsksNobody(t *testing.T) {
	t.Parallel()
	var db part
	h := newHealth(map[string]telemetry.Check{"postgres": db.check})
	h.SetDraining()
	if got := h.Report(t.Context()); got.Status != telemetry.Draining || db.asked.Load() != 0 {
		t.Errorf("got %+v after %d checks", got, db.asked.Load())
	}
	if err := h.Ready(t.Context()); fault.From(err) == nil || fault.From(err).Detail != "shutting down" {
		t.Errorf("got %v", err)
	}
}

func TestAPanicInACheckIsItsResult(t *testing.T) {
	t.Parallel()
	h := newHealth(map[string]telemetry.Check{"kafka": func(context.Context) error { panic("nil client") }})
	if got := h.Report(t.Context()).Checks["kafka"].Error; got != "panic: nil client" {
		t.Errorf("got %q", got)
	}
}

func TestNothingToCheckIsReady(t *testing.T) {
	t.Parallel()
	if err := newHealth(nil).Ready(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestOnlyChangesAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var db, cache part
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
