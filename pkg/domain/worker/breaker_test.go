package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/platform/devstack"
	"vitrine.io/pkg/test/port"
)

// mains is what circuits are about: a dependency that answers probes as it is told, and a gate that notes when it was moved.
type mains struct {
	mu      sync.Mutex
	answers map[string]error
	hangs   map[string]bool
	probes  int
	moves   []string
	paused  bool
	began   time.Time
}

func (m *mains) ask(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		m.mu.Lock()
		m.probes++
		err, hangs := m.answers[name], m.hangs[name]
		m.mu.Unlock()
		if hangs {
			<-ctx.Done()
			return ctx.Err()
		}
		return err
	}
}

func (m *mains) say(name string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers[name] = err
}

func (m *mains) Pause()  { m.move("pause", true) }
func (m *mains) Resume() { m.move("resume", false) }

func (m *mains) move(what string, paused bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused = paused
	m.moves = append(m.moves, fmt.Sprintf("%s %s", what, time.Since(m.began)))
}

func (m *mains) isPaused() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.paused
}

func breakerConfig() worker.BreakerConfig {
	return worker.BreakerConfig{Interval: 2 * time.Second, Timeout: 5 * time.Second, Faults: 3, MaxPause: 10 * time.Second}
}

var errDown = fault.New(fault.Unavailable, "storage_unavailable", "down")

// wired runs circuits in pretended time while do is called, and ends them.
func wired(t *testing.T, do func(m *mains, c *worker.Breakers, reg *prometheus.Registry)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &mains{answers: map[string]error{}, hangs: map[string]bool{}, began: time.Now()}
		reg := prometheus.NewRegistry()
		c := worker.NewBreakers(breakerConfig(), reg, zap.NewNop(),
			worker.Probe{Dependency: worker.Postgres, Check: m.ask(worker.Postgres)},
			worker.Probe{Dependency: worker.S3, Check: m.ask(worker.S3)})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx, m) }()
		synctest.Wait()
		do(m, c, reg)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// after lets pretended time go by.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (m *mains) want(t *testing.T, moves ...string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Equal(m.moves, moves) {
		t.Errorf("got %q, want %q", m.moves, moves)
	}
}

func TestCircuits(t *testing.T) {
	t.Parallel()

	t.Run("a probe that fails opens at once, one that succeeds lets requests come again", func(t *testing.T) {
		t.Parallel()
		wired(t, func(m *mains, _ *worker.Breakers, reg *prometheus.Registry) {
			after(time.Second)
			m.say(worker.S3, errDown)
			after(6 * time.Second)
			if got := metric(t, reg, "vitrine_worker_breaker_open"); got != 1 {
				t.Errorf("%v circuits shown as open, want one", got)
			}
			m.say(worker.S3, nil)
			after(6 * time.Second)
			m.want(t, "pause 2s", "resume 8s")
			if got := metric(t, reg, "vitrine_worker_breaker_open"); got != 0 {
				t.Errorf("%v circuits shown as open, want none", got)
			}
		})
	})

	t.Run("a probe that fails while requests are on trial opens again", func(t *testing.T) {
		t.Parallel()
		wired(t, func(m *mains, _ *worker.Breakers, reg *prometheus.Registry) {
			m.say(worker.S3, errDown)
			after(3 * time.Second)
			m.say(worker.S3, nil)
			after(2 * time.Second) // no work has come since that could close it
			m.say(worker.S3, errDown)
			after(2 * time.Second)
			m.want(t, "pause 2s", "resume 4s", "pause 6s")
			if got := metric(t, reg, "vitrine_worker_breaker_opened_total"); got != 2 {
				t.Errorf("counted %v openings, want two", got)
			}
		})
	})

	t.Run("requests come again when the last circuit has closed", func(t *testing.T) {
		t.Parallel()
		wired(t, func(m *mains, _ *worker.Breakers, reg *prometheus.Registry) {
			m.say(worker.S3, errDown)
			m.say(worker.Postgres, errDown)
			after(3 * time.Second)
			m.say(worker.S3, nil)
			after(2 * time.Second)
			m.say(worker.Postgres, nil)
			after(2 * time.Second)
			m.want(t, "pause 2s", "resume 6s")
			if got := metric(t, reg, "vitrine_worker_breaker_opened_total"); got != 2 {
				t.Errorf("counted %v openings, want two", got)
			}
		})
	})

	t.Run("a dependency that hangs is away, and delays nobody else's probe", func(t *testing.T) {
		t.Parallel()
		wired(t, func(m *mains, _ *worker.Breakers, _ *prometheus.Registry) {
			m.mu.Lock()
			m.hangs[worker.Postgres] = true
			m.mu.Unlock()
			after(3 * time.Second)
			m.say(worker.S3, errDown)
			after(2 * time.Second)
			m.want(t, "pause 4s") // of S3: Postgres is still waited for
			m.say(worker.S3, nil)
			after(3 * time.Second)
			m.want(t, "pause 4s", "resume 6s", "pause 7s") // five seconds after it was asked, it counts as away
			m.mu.Lock()
			m.hangs[worker.Postgres] = false // it answers the next probe, which comes an interval later and not at once
			m.mu.Unlock()
			after(2 * time.Second)
			m.want(t, "pause 4s", "resume 6s", "pause 7s", "resume 9s")
			m.mu.Lock()
			m.hangs[worker.Postgres] = true
			m.mu.Unlock()
			after(10 * time.Second)
			m.mu.Lock()
			m.hangs[worker.Postgres] = false
			m.mu.Unlock()
			after(10 * time.Second)
			if m.isPaused() {
				t.Error("still paused with all back")
			}
		})
	})

	t.Run("work's faults in a row open it although probes succeed, for longer each time", func(t *testing.T) {
		t.Parallel()
		wired(t, func(m *mains, c *worker.Breakers, _ *prometheus.Registry) {
			after(time.Second)
			fail := func(n int) {
				for range n {
					c.Report(worker.S3, errDown)
				}
				synctest.Wait()
			}
			fail(2)
			c.Report(worker.S3, nil) // not in a row
			fail(2)
			m.want(t)
			fail(3)                 // one opens it, the rest are of pictures that were in hand
			after(4 * time.Second)  // at 4 s the pause of 2 s is over and a probe succeeds
			fail(1)                 // on trial, the first is enough
			after(5 * time.Second)  // the pause is 4 s now: until 9 s, and the next probe is at 10 s
			after(10 * time.Second) // that is at 20 s
			fail(1)                 // 8 s: until 28 s
			after(10 * time.Second)
			fail(1) // 10 s is the most: until 40 s
			after(11 * time.Second)
			c.Report(worker.S3, nil)
			fail(2)
			m.want(t, "pause 1s", "resume 4s", "pause 5s", "resume 10s", "pause 20s", "resume 28s", "pause 30s", "resume 40s")
			fail(1) // in a row again: it had closed, and the pause is short again
			after(4 * time.Second)
			if m.isPaused() {
				t.Error("a circuit that had closed opens for long")
			}
		})
	})

	t.Run("nobody is asked about what no circuit is for", func(t *testing.T) {
		t.Parallel()
		wired(t, func(m *mains, c *worker.Breakers, _ *prometheus.Registry) {
			for range 10 {
				c.Report("tea", errDown)
			}
			synctest.Wait()
			m.want(t)
		})
	})
}

// openCircuits returns what the open circuits are of.
func openCircuits(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "vitrine_worker_breaker_open" && m.GetGauge().GetValue() == 1 {
				found = append(found, m.GetLabel()[0].GetValue())
			}
		}
	}
	return strings.Join(found, " ")
}

// TestWatched holds real work's outcomes against what the circuits make of them.
func TestWatched(t *testing.T) {
	t.Parallel()
	stopped := fmt.Errorf("put: %w", context.Canceled)
	for what, row := range map[string]struct {
		dependency string
		set        func(w *world, err error)
		err        error
		opens      bool
	}{
		"a store that is down":     {worker.S3, (*world).failPut, errDown, true},
		"a store that hangs":       {worker.S3, (*world).failPut, context.DeadlineExceeded, true},
		"a stop during an upload":  {worker.S3, (*world).failPut, stopped, false},
		"a defect of ours":         {worker.S3, (*world).failPut, errors.New("bad prefix"), false},
		"no codec":                 {worker.Encoder, (*world).failRender, media.Fail(media.CodecUnavailable, "no", nil), true},
		"a picture that kills it":  {worker.Encoder, (*world).failRender, media.Fail(media.CodecCrashed, "no", nil), false},
		"a stop during a picture":  {worker.Encoder, (*world).failRender, context.Canceled, false},
		"a database that is down":  {worker.Postgres, (*world).failSettle, errDown, true},
		"an outcome overtaken":     {worker.Postgres, (*world).failSettle, catalog.ErrSuperseded, false},
		"a database down at Begin": {worker.Postgres, (*world).failBegin, errDown, true},
		"a request that is done":   {worker.Postgres, (*world).failBegin, catalog.ErrDone, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			reg := prometheus.NewRegistry()
			never := func(context.Context) error { return nil }
			cfg := breakerConfig()
			cfg.Faults = 1
			c := worker.NewBreakers(cfg, reg, zap.NewNop(), worker.Probe{Dependency: worker.Postgres, Check: never},
				worker.Probe{Dependency: worker.S3, Check: never}, worker.Probe{Dependency: worker.Encoder, Check: never})
			w.watch(c)
			if err := w.Handle(t.Context(), w.message()); err != nil || metric(t, reg, "vitrine_worker_breaker_open") != 0 {
				t.Fatalf("a picture that was made: got %v", err)
			}
			row.set(w, row.err)
			_ = w.Handle(t.Context(), w.message())
			if got, want := openCircuits(t, reg), row.dependency; row.opens && got != want || !row.opens && got != "" {
				t.Errorf("the circuit of %q is open; %s opens: %v", got, want, row.opens)
			}
			if slices.Contains(w.told, "retry") != (what == "a picture that kills it") {
				t.Errorf("told %v: a fault of ours spends no attempt", w.told)
			}
		})
	}
}

// TestACircuitOfARealStore stops and starts an object store.
func TestACircuitOfARealStore(t *testing.T) {
	t.Parallel()
	start := func(addr string) *devstack.S3 {
		server, err := devstack.StartS3(devstack.S3Config{Dir: t.TempDir(), Addr: addr})
		if err != nil {
			t.Fatal(err)
		}
		return server
	}
	addr := port.Addr(t)
	server := start(addr)
	bucket, err := blob.New(blob.Config{
		Endpoint: "http://" + addr, Region: "us-east-1", Bucket: "pictures", AccessKey: "a", SecretKey: "b", PathStyle: true,
		CreateBucket: true, AttemptTimeout: time.Second, MaxAttempts: 1,
	}, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	if err := bucket.EnsureBucket(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := &mains{began: time.Now()}
	cfg := breakerConfig()
	cfg.Interval = 20 * time.Millisecond
	c := worker.NewBreakers(cfg, prometheus.NewRegistry(), zap.NewNop(),
		worker.Probe{Dependency: worker.S3, Check: bucket.Ping})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx, m) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	await := func(paused bool) {
		t.Helper()
		limit, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for m.isPaused() != paused {
			select {
			case <-limit.Done():
				t.Fatalf("paused: %v, want %v", !paused, paused)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	await(true)
	server = start(addr)
	defer func() { _ = server.Close() }()
	if err := bucket.EnsureBucket(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(false)
}

func TestBreakerConfig(t *testing.T) {
	t.Parallel()
	if wrong := breakerConfig().Validate(); wrong != nil {
		t.Errorf("got %v", wrong)
	}
	if wrong := (worker.BreakerConfig{MaxPause: -1}).Validate(); len(wrong) != 4 {
		t.Errorf("got %v, want all four", wrong)
	}
}
