package backoff_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"vitrine.io/pkg/foundation/backoff"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// timed returns the result of a wait and its duration in fake time.
func timed(wait func() bool) (alive bool, elapsed time.Duration) {
	start := time.Now()
	alive = wait()
	return alive, time.Since(start)
}

func TestSleep(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sleep, deadline, elapsed time.Duration
		alive                    bool
	}{
		"lasts_its_duration":        {sleep: time.Second, deadline: time.Hour, elapsed: time.Second, alive: true},
		"ends_with_its_context":     {sleep: time.Hour, deadline: time.Second, elapsed: time.Second},
		"zero_does_not_wait":        {deadline: time.Hour, alive: true},
		"negative_does_not_wait":    {sleep: -time.Second, deadline: time.Hour, alive: true},
		"ended_context_is_reported": {deadline: -time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
				defer cancel()
				alive, elapsed := timed(func() bool { return backoff.Sleep(ctx, c.sleep) })
				if alive != c.alive || elapsed != c.elapsed {
					t.Errorf("got %v after %s, want %v after %s", alive, elapsed, c.alive, c.elapsed)
				}
			})
		})
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	t.Run("wake_ends_it_early", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			wake := make(chan struct{}, 1)
			time.AfterFunc(time.Second, func() { wake <- struct{}{} })
			alive, elapsed := timed(func() bool { return backoff.Wait(t.Context(), time.Hour, wake) })
			if !alive || elapsed != time.Second {
				t.Errorf("got %v after %s, want true after 1s", alive, elapsed)
			}
		})
	})
	t.Run("wake_after_the_end_of_the_context_is_no_success", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wake := make(chan struct{})
		close(wake)
		for range 50 { // select picks at random
			if backoff.Wait(ctx, time.Hour, wake) {
				t.Fatal("got true with an ended context")
			}
		}
	})
	t.Run("zero_leaves_the_wake_for_later", func(t *testing.T) {
		t.Parallel()
		wake := make(chan struct{}, 1)
		wake <- struct{}{}
		if !backoff.Wait(t.Context(), 0, wake) || len(wake) != 1 {
			t.Error("the wake was received")
		}
	})
}

func TestDouble(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		n                  int
		first, limit, want time.Duration
	}{
		"no_doubling":             {0, time.Second, time.Minute, time.Second},
		"negative_is_zero":        {-3, time.Second, time.Minute, time.Second},
		"doubles":                 {3, time.Second, time.Minute, 8 * time.Second},
		"reaches_the_limit":       {5, 2 * time.Second, 64 * time.Second, 64 * time.Second},
		"stays_at_the_limit":      {6, time.Second, time.Minute, time.Minute},
		"first_above_the_limit":   {0, time.Hour, time.Minute, time.Minute},
		"many_doublings":          {1000, time.Second, time.Minute, time.Minute},
		"does_not_overflow":       {62, 3, math.MaxInt64, math.MaxInt64},
		"zero_stays_zero":         {1000, 0, time.Minute, 0},
		"limit_between_doublings": {2, 3, 11, 11},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := backoff.Double(c.n, c.first, c.limit); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// spread draws 1000 durations. They must be between low and high, and reach the lowest and the highest tenth of that range.
func spread(t *testing.T, low, high time.Duration, draw func() time.Duration) {
	t.Helper()
	shortest, longest := high, low
	for range 1000 {
		d := draw()
		shortest, longest = min(shortest, d), max(longest, d)
	}
	if shortest < low || longest > high {
		t.Errorf("got %s to %s, want %s to %s", shortest, longest, low, high)
	}
	if margin := (high - low) / 10; shortest > low+margin || longest < high-margin {
		t.Errorf("got only %s to %s of %s to %s", shortest, longest, low, high)
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		failures int
		longest  time.Duration
	}{
		"first":                {0, 100 * time.Millisecond},
		"doubles":              {5, 3200 * time.Millisecond},
		"stays_at_the_limit":   {9, 30 * time.Second},
		"survives_a_long_time": {1000, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spread(t, c.longest/2, c.longest, func() time.Duration {
				return backoff.Delay(c.failures, 100*time.Millisecond, 30*time.Second)
			})
		})
	}
}

func TestJitter(t *testing.T) {
	t.Parallel()
	t.Run("stays_within_a_third", func(t *testing.T) {
		t.Parallel()
		spread(t, 2*time.Second, 4*time.Second, func() time.Duration { return backoff.Jitter(3 * time.Second) })
	})
	t.Run("zero_stays_zero", func(t *testing.T) {
		t.Parallel()
		if got := backoff.Jitter(0); got != 0 {
			t.Errorf("got %s", got)
		}
	})
}
