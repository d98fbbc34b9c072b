package lifecycle_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"vitrine.io/pkg/foundation/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBroken = errors.New("broken")

// recorder records the starts and stops of parts, in order.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

func (r *recorder) events() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

// part returns a part that needs up to become ready and down to stop, and records both.
func (r *recorder) part(name string, up, down time.Duration) lifecycle.Part {
	ready := make(chan struct{})
	return lifecycle.Part{
		Name: name,
		Run: func(ctx context.Context) error {
			<-time.After(up)
			r.add(name + " up")
			close(ready)
			<-ctx.Done()
			<-time.After(down)
			r.add(name + " down")
			return ctx.Err()
		},
		Ready: func(ctx context.Context) error {
			select {
			case <-ready:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
}

// failing returns a part that returns err after a while, without being stopped.
func failing(name string, after time.Duration, err error) lifecycle.Part {
	return lifecycle.Part{Name: name, Run: func(context.Context) error {
		<-time.After(after)
		return err
	}}
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	t.Run("parts_stop_in_reverse_order", testRunPartsStopInReverseOrder)
	t.Run("failed_part_stops_the_others", testRunFailedPartStopsTheOthers)
	t.Run("early_return_is_an_error", testRunEarlyReturnIsAnError)
	t.Run("panic_is_the_error_of_the_part", testRunPanicIsTheErrorOfThePart)
	t.Run("part_not_ready_stops_the_start", testRunPartNotReadyStopsTheStart)
	t.Run("failure_before_ready_is_reported_once", testRunFailureBeforeReadyIsReportedOnce)
	t.Run("context_ends_during_the_start", testRunContextEndsDuringTheStart)
	t.Run("ended_context_starts_no_part", testRunEndedContextStartsNoPart)
	t.Run("parts_share_one_deadline", testRunPartsShareOneDeadline)
	t.Run("errors_of_stopping_are_joined", testRunErrorsOfStoppingAreJoined)
	t.Run("parts_have_the_values_of_the_context", testRunPartsHaveTheValuesOfTheContext)
}

func testRunPartsStopInReverseOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var rec recorder
		time.AfterFunc(time.Minute, cancel)
		err := lifecycle.Run(ctx, 10*time.Second,
			rec.part("a", 3*time.Second, time.Second),
			rec.part("b", 2*time.Second, 4*time.Second),
			rec.part("c", time.Second, 2*time.Second),
		)
		if err != nil {
			t.Fatalf("a clean stop gave %v", err)
		}
		equal(t, rec.events(), []string{"a up", "b up", "c up", "c down", "b down", "a down"})
	})
}

func testRunFailedPartStopsTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		err := lifecycle.Run(t.Context(), time.Minute,
			rec.part("store", 0, 0), failing("relay", time.Hour, errBroken), rec.part("http", 0, 0))
		if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "relay: broken") {
			t.Errorf("got %v, want the relay's error by name", err)
		}
		equal(t, rec.events(), []string{"store up", "http up", "http down", "store down"})
	})
}

func testRunEarlyReturnIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		err := lifecycle.Run(t.Context(), time.Minute, rec.part("http", 0, 0), failing("relay", time.Second, nil))
		if !errors.Is(err, lifecycle.ErrEnded) || !strings.Contains(err.Error(), "relay: ") {
			t.Errorf("got %v, want ErrEnded of relay", err)
		}
		equal(t, rec.events(), []string{"http up", "http down"})
	})
}

func testRunPanicIsTheErrorOfThePart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		err := lifecycle.Run(t.Context(), time.Minute, rec.part("http", 0, 0),
			lifecycle.Part{Name: "relay", Run: func(context.Context) error { panic("nil map") }})
		if err == nil || !strings.Contains(err.Error(), "relay: panic: nil map") ||
			!strings.Contains(err.Error(), "lifecycle_test.go") {
			t.Errorf("got %v, want the panic with its stack", err)
		}
	})
}

func testRunPartNotReadyStopsTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		broken := rec.part("cache", 0, 0)
		broken.Ready = func(context.Context) error { return errBroken }
		err := lifecycle.Run(t.Context(), time.Minute, rec.part("store", 0, 0), broken, rec.part("http", 0, 0))
		if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "cache: not ready: broken") {
			t.Errorf("got %v, want the readiness error by name", err)
		}
		if slices.Contains(rec.events(), "http up") {
			t.Errorf("http was started after cache had failed: %q", rec.events())
		}
		if got := rec.events(); got[len(got)-1] != "store down" {
			t.Errorf("store was not stopped last: %q", got)
		}
	})
}

func testRunFailureBeforeReadyIsReportedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failed := failing("cache", time.Second, errBroken)
		failed.Ready = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		err := lifecycle.Run(t.Context(), time.Minute, failed)
		if err == nil || err.Error() != "cache: broken" {
			t.Errorf("got %v, want only the part's own error", err)
		}
	})
}

func testRunContextEndsDuringTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var rec recorder
		slow := rec.part("store", 0, 0)
		slow.Ready = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		if err := lifecycle.Run(ctx, time.Minute, slow, rec.part("http", 0, 0)); err != nil {
			t.Errorf("got %v, want nil", err)
		}
		equal(t, rec.events(), []string{"store up", "store down"})
	})
}

func testRunEndedContextStartsNoPart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var rec recorder
	if err := lifecycle.Run(ctx, time.Minute, rec.part("store", 0, 0)); err != nil {
		t.Errorf("got %v, want nil", err)
	}
	equal(t, rec.events(), nil)
}

func testRunPartsShareOneDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		start := time.Now()
		var rec recorder
		hanging := make(chan struct{})
		err := lifecycle.Run(ctx, 10*time.Second,
			rec.part("store", 0, 0),
			lifecycle.Part{Name: "worker", Run: func(context.Context) error { <-hanging; return nil }},
			rec.part("http", 0, 6*time.Second),
		)
		if got, want := time.Since(start), time.Minute+10*time.Second; got != want {
			t.Errorf("stopping ended after %s, want %s", got, want)
		}
		if !errors.Is(err, lifecycle.ErrTimeout) || !strings.Contains(err.Error(), "worker: was still running") {
			t.Errorf("got %v, want the worker to be named", err)
		}
		if strings.Contains(err.Error(), "http") {
			t.Errorf("http stopped in time and is named: %v", err)
		}
		synctest.Wait()
		if !slices.Contains(rec.events(), "store down") {
			t.Errorf("store was not stopped: %q", rec.events())
		}
		close(hanging)
	})
}

func testRunErrorsOfStoppingAreJoined(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := lifecycle.Run(ctx, time.Minute,
			lifecycle.Closer("store", func() error { return errBroken }),
			lifecycle.Closer("cache", func() error { return errBroken }),
			lifecycle.Closer("queue", func() error { return nil }),
		)
		if err == nil || err.Error() != "cache: broken\nstore: broken" {
			t.Errorf("got %v, want both, in the order of stopping", err)
		}
	})
}

type key struct{}

func testRunPartsHaveTheValuesOfTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "id"))
		var rec recorder
		first := lifecycle.Part{Name: "first", Run: func(own context.Context) error {
			if own.Value(key{}) != "id" {
				t.Error("the context's values are lost")
			}
			<-own.Done()
			rec.add("first stopped")
			return nil
		}}
		time.AfterFunc(time.Second, cancel)
		if err := lifecycle.Run(ctx, time.Minute, first, rec.part("second", 0, time.Second)); err != nil {
			t.Fatal(err)
		}
		equal(t, rec.events(), []string{"second up", "second down", "first stopped"})
	})
}
