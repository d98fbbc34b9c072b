package rediscache

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"vitrine.io/pkg/test/port"
)

const patience = 200 * time.Millisecond

// airport is a gather whose flights land when the test lets them, each with the keys it carried as answers.
type airport struct {
	*batcher
	departed chan []string
	land     chan struct{}
}

type answer struct {
	text string
	err  error
}

func newAirport() *airport {
	a := &airport{departed: make(chan []string, 100), land: make(chan struct{})}
	a.batcher = &batcher{now: time.Now, timeout: patience, ask: func(crew []*pendingGet) {
		var keys []string
		for _, q := range crew {
			keys = append(keys, q.key)
		}
		a.departed <- keys
		<-a.land
		for _, q := range crew {
			q.answer = redis.NewStringResult("value of "+q.key, nil)
		}
	}}
	return a
}

// wants asks for a key in the background.
func (a *airport) wants(ctx context.Context, key string) <-chan answer {
	got := make(chan answer, 1)
	go func() {
		reply, err := a.get(ctx, key, nil, time.Now())
		if err != nil {
			got <- answer{err: err}
			return
		}
		got <- answer{text: reply.Val()}
	}()
	synctest.Wait()
	return got
}

func wantAnswer(t *testing.T, got <-chan answer, want string) {
	t.Helper()
	if a := <-got; a.err != nil || a.text != want {
		t.Errorf("got %q, %v, want %q", a.text, a.err, want)
	}
}

func wantDeparture(t *testing.T, a *airport, want ...string) {
	t.Helper()
	if got := <-a.departed; !slices.Equal(got, want) {
		t.Errorf("a flight took %v, want %v", got, want)
	}
}

func TestWhoAsksDuringAFlightFliesTogetherAfterIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAirport()
		first := a.wants(t.Context(), "a")
		wantDeparture(t, a, "a")
		second, third := a.wants(t.Context(), "b"), a.wants(t.Context(), "b")
		fourth := a.wants(t.Context(), "c")
		if len(a.departed) > 0 {
			t.Error("a second flight left while the first was under way")
		}
		a.land <- struct{}{}
		wantAnswer(t, first, "value of a")
		wantDeparture(t, a, "b", "b", "c")
		a.land <- struct{}{}
		wantAnswer(t, second, "value of b")
		wantAnswer(t, third, "value of b")
		wantAnswer(t, fourth, "value of c")

		alone := a.wants(t.Context(), "d") // nobody is left: the next one flies at once
		wantDeparture(t, a, "d")
		a.land <- struct{}{}
		wantAnswer(t, alone, "value of d")
	})
}

func TestAFlightTakesNoMoreThanItsSeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAirport()
		all := []<-chan answer{a.wants(t.Context(), "first")}
		<-a.departed
		for i := range 2*maxBatchKeys + 1 {
			all = append(all, a.wants(t.Context(), strconv.Itoa(i)))
		}
		for _, want := range []int{maxBatchKeys, maxBatchKeys, 1} {
			a.land <- struct{}{}
			if got := len(<-a.departed); got != want {
				t.Errorf("a flight took %d, want %d", got, want)
			}
		}
		a.land <- struct{}{}
		for i, got := range all {
			want := "first"
			if i > 0 {
				want = strconv.Itoa(i - 1)
			}
			wantAnswer(t, got, "value of "+want)
		}
	})
}

func TestWhoHasWaitedTooLongIsLeftBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAirport()
		first := a.wants(t.Context(), "first")
		<-a.departed
		late, alsoLate := a.wants(t.Context(), "late"), a.wants(t.Context(), "late, too")
		<-time.After(patience + time.Nanosecond)
		punctual := a.wants(t.Context(), "punctual")
		a.land <- struct{}{}
		wantAnswer(t, first, "value of first")
		wantDeparture(t, a, "punctual")
		for _, got := range []<-chan answer{late, alsoLate} {
			if got := <-got; !errors.Is(got.err, errBatcherBusy) {
				t.Errorf("got %q, %v, want errLeftBehind", got.text, got.err)
			}
		}
		a.land <- struct{}{}
		wantAnswer(t, punctual, "value of punctual")

		first = a.wants(t.Context(), "first")
		<-a.departed
		late = a.wants(t.Context(), "late")
		<-time.After(patience + time.Nanosecond)
		a.land <- struct{}{}
		wantAnswer(t, first, "value of first")
		if got := <-late; !errors.Is(got.err, errBatcherBusy) {
			t.Errorf("with nobody else: got %q, %v, want errLeftBehind", got.text, got.err)
		}
		alone := a.wants(t.Context(), "d")
		wantDeparture(t, a, "d")
		a.land <- struct{}{}
		wantAnswer(t, alone, "value of d")
	})
}

func TestWhoLeavesGivesTheSeatUpAndWhoIsOnBoardStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAirport()
		first := a.wants(t.Context(), "first")
		<-a.departed
		ctx, cancel := context.WithCancel(t.Context())
		gone, stays := a.wants(ctx, "gone"), a.wants(t.Context(), "stays")
		cancel()
		if got := <-gone; !errors.Is(got.err, context.Canceled) {
			t.Errorf("got %q, %v, want the context's error", got.text, got.err)
		}
		boarding, cancel := context.WithCancel(t.Context())
		onBoard := a.wants(boarding, "on board")
		a.land <- struct{}{}
		wantAnswer(t, first, "value of first")
		wantDeparture(t, a, "stays", "on board")
		cancel()
		synctest.Wait()
		a.land <- struct{}{}
		wantAnswer(t, stays, "value of stays")
		wantAnswer(t, onBoard, "value of on board")
	})
}

func TestAPanicOnBoardGroundsNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAirport()
		fine := a.ask
		crashing := make(chan struct{})
		a.ask = func([]*pendingGet) {
			<-crashing
			panic("on board")
		}
		crashed := make(chan any, 1)
		go func() {
			defer func() { crashed <- recover() }()
			_, _ = a.get(t.Context(), "first", nil, time.Now())
		}()
		synctest.Wait()
		second := a.wants(t.Context(), "second")
		a.ask = fine
		close(crashing)
		if <-crashed == nil {
			t.Error("the panic was swallowed")
		}
		wantDeparture(t, a, "second")
		a.land <- struct{}{}
		wantAnswer(t, second, "value of second")
	})
}

func TestWhatANodeRefusesIsAskedOfTheCluster(t *testing.T) {
	t.Parallel()
	live := miniredis.RunT(t)
	gone := redis.NewClient(&redis.Options{Addr: port.Addr(t), MaxRetries: -1}) // where nothing listens
	t.Cleanup(func() { _ = gone.Close() })
	cfg := Config{
		Addrs: []string{live.Addr()}, TTL: time.Minute, MissingTTL: time.Second, TombstoneTTL: time.Minute,
		Timeout: 10 * time.Second, DialTimeout: 5 * time.Second, IOTimeout: 5 * time.Second,
	}
	cache, err := New(cfg, "v1", time.Now, func() float64 { return 0.5 }, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close() })
	if err := live.Set("here", "a value"); err != nil {
		t.Fatal(err)
	}
	crew := []*pendingGet{{key: "here", node: gone}, {key: "nowhere", node: gone}}
	cache.fetchBatch(crew)
	if got, err := crew[0].answer.Result(); err != nil || got != "a value" {
		t.Errorf("got %q, %v, want a value", got, err)
	}
	if _, err := crew[1].answer.Result(); !errors.Is(err, redis.Nil) {
		t.Errorf("got %v, want redis.Nil", err)
	}
}
