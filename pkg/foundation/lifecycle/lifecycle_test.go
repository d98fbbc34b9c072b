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

// diary notes what happens, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// part takes up to become ready and down to stop, and notes both.
func (d *diary) part(name string, up, down time.Duration) lifecycle.Part {
	ready := make(chan struct{})
	return lifecycle.Part{
		Name: name,
		Run: func(ctx context.Context) error {
			<-time.After(up)
			d.note(name + " up")
			close(ready)
			<-ctx.Done()
			<-time.After(down)
			d.note(name + " down")
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

// failing ends with err after a while, without being told to.
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

func TestPartsStartInOrderAndStopInReverse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var d diary
		time.AfterFunc(time.Minute, cancel)
		err := lifecycle.Run(ctx, 10*time.Second,
			d.part("a", 3*time.Second, time.Second),
			d.part("b", 2*time.Second, 4*time.Second),
			d.part("c", time.Second, 2*time.Second),
		)
		if err != nil {
			t.Fatalf("a clean stop gave %v", err)
		}
		equal(t, d.read(), []string{"a up", "b up", "c up", "c down", "b down", "a down"})
	})
}

func TestAPartThatFailsStopsTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		err := lifecycle.Run(t.Context(), time.Minute,
			d.part("store", 0, 0), failing("relay", time.Hour, errBroken), d.part("http", 0, 0))
		if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "relay: broken") {
			t.Errorf("got %v, want the relay's error by name", err)
		}
		equal(t, d.read(), []string{"store up", "http up", "http down", "store down"})
	})
}

func TestAPartThatReturnsNilEarlyIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		err := lifecycle.Run(t.Context(), time.Minute, d.part("http", 0, 0), failing("relay", time.Second, nil))
		if !errors.Is(err, lifecycle.ErrEnded) || !strings.Contains(err.Error(), "relay: ") {
			t.Errorf("got %v, want ErrEnded of relay", err)
		}
		equal(t, d.read(), []string{"http up", "http down"})
	})
}

func TestAPanicIsThePartsError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		err := lifecycle.Run(t.Context(), time.Minute, d.part("http", 0, 0),
			lifecycle.Part{Name: "relay", Run: func(context.Context) error { panic("nil map") }})
		if err == nil || !strings.Contains(err.Error(), "relay: panic: nil map") ||
			!strings.Contains(err.Error(), "lifecycle_test.go") {
			t.Errorf("got %v, want the panic with its stack", err)
		}
	})
}

func TestWhatIsNotReadyStopsTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d diary
		broken := d.part("cache", 0, 0)
		broken.Ready = func(context.Context) error { return errBroken }
		err := lifecycle.Run(t.Context(), time.Minute, d.part("store", 0, 0), broken, d.part("http", 0, 0))
		if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "cache: not ready: broken") {
			t.Errorf("got %v, want the readiness error by name", err)
		}
		if slices.Contains(d.read(), "http up") {
			t.Errorf("http was started after cache had failed: %q", d.read())
		}
		if got := d.read(); got[len(got)-1] != "store down" {
			t.Errorf("store was not stopped last: %q", got)
		}
	})
}

func TestAPartThatDiesBeforeItIsReadyIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dying := failing("cache", time.Second, errBroken)
		dying.Ready = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		err := lifecycle.Run(t.Context(), time.Minute, dying)
		if err == nil || err.Error() != "cache: broken" {
			t.Errorf("got %v, want only the part's own error", err)
		}
	})
}

func TestTheEndDuringTheStartIsACleanStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var d diary
		slow := d.part("store", 0, 0)
		slow.Ready = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		if err := lifecycle.Run(ctx, time.Minute, slow, d.part("http", 0, 0)); err != nil {
			t.Errorf("got %v, want nil", err)
		}
		equal(t, d.read(), []string{"store up", "store down"})
	})
}

func TestNothingStartsUnderAnEndedContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var d diary
	if err := lifecycle.Run(ctx, time.Minute, d.part("store", 0, 0)); err != nil {
		t.Errorf("got %v, want nil", err)
	}
	equal(t, d.read(), nil)
}

func TestOneDeadlineForAllAndTheLateAreNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		began := time.Now()
		var d diary
		hanging := make(chan struct{})
		err := lifecycle.Run(ctx, 10*time.Second,
			d.part("store", 0, 0),
			lifecycle.Part{Name: "worker", Run: func(context.Context) error { <-hanging; return nil }},
			d.part("http", 0, 6*time.Second),
		)
		if got, want := time.Since(began), time.Minute+10*time.Second; got != want {
			t.Errorf("stopping ended after %s, want %s", got, want)
		}
		if !errors.Is(err, lifecycle.ErrTimeout) || !strings.Contains(err.Error(), "worker: was still running") {
			t.Errorf("got %v, want the worker to be named", err)
		}
		if strings.Contains(err.Error(), "http") {
			t.Errorf("http stopped in time and is blamed: %v", err)
		}
		synctest.Wait()
		if !slices.Contains(d.read(), "store down") {
			t.Errorf("store was not even told to stop: %q", d.read())
		}
		close(hanging)
	})
}

func TestErrorsWhileStoppingAreJoined(t *testing.T) {
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

func TestPartsKeepTheValuesButNotTheEndOfTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "id"))
		var d diary
		first := lifecycle.Part{Name: "first", Run: func(own context.Context) error {
			if own.Value(key{}) != "id" {
				t.Error("the context's values are lost")
			}
			<-own.Done()
			d.note("first told")
			return nil
		}}
		time.AfterFunc(time.Second, cancel)
		if err := lifecycle.Run(ctx, time.Minute, first, d.part("second", 0, time.Second)); err != nil {
			t.Fatal(err)
		}
		equal(t, d.read(), []string{"second up", "second down", "first told"})
	})
}
