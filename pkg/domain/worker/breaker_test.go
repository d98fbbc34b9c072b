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
	"vitrine.io/pkg/test/catalogtest"
	"vitrine.io/pkg/test/port"
)

// dependencies are the targets of probes, with configured results, and a Pauser that records its calls and their times.
type dependencies struct {
	mu     sync.Mutex
	errs   map[string]error
	hangs  map[string]bool
	calls  []string // "pause 2s": the method and the time since start
	paused bool
	start  time.Time
}

func (deps *dependencies) probe(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		deps.mu.Lock()
		err, hangs := deps.errs[name], deps.hangs[name]
		deps.mu.Unlock()
		if hangs {
			<-ctx.Done()
			return ctx.Err()
		}
		return err
	}
}

func (deps *dependencies) setErr(name string, err error) {
	deps.mu.Lock()
	defer deps.mu.Unlock()
	deps.errs[name] = err
}

func (deps *dependencies) Pause()  { deps.record("pause", true) }
func (deps *dependencies) Resume() { deps.record("resume", false) }

func (deps *dependencies) record(call string, paused bool) {
	deps.mu.Lock()
	defer deps.mu.Unlock()
	deps.paused = paused
	deps.calls = append(deps.calls, fmt.Sprintf("%s %s", call, time.Since(deps.start)))
}

func (deps *dependencies) isPaused() bool {
	deps.mu.Lock()
	defer deps.mu.Unlock()
	return deps.paused
}

func breakerConfig() worker.BreakerConfig {
	return worker.BreakerConfig{Interval: 2 * time.Second, Timeout: 5 * time.Second, Faults: 3, MaxPause: 10 * time.Second}
}

var errDown = fault.New(fault.Unavailable, "storage_unavailable", "down")

// runBreakers runs breakers in fake time during the call of do.
func runBreakers(t *testing.T, do func(deps *dependencies, c *worker.Breakers, reg *prometheus.Registry)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		deps := &dependencies{errs: map[string]error{}, hangs: map[string]bool{}, start: time.Now()}
		reg := prometheus.NewRegistry()
		c := worker.NewBreakers(breakerConfig(), reg, zap.NewNop(),
			worker.Probe{Dependency: worker.DependencyPostgres, Check: deps.probe(worker.DependencyPostgres)},
			worker.Probe{Dependency: worker.DependencyS3, Check: deps.probe(worker.DependencyS3)})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx, deps) }()
		synctest.Wait()
		do(deps, c, reg)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// advance advances the fake time by d and waits until all goroutines are blocked.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (deps *dependencies) wantCalls(t *testing.T, calls ...string) {
	t.Helper()
	deps.mu.Lock()
	defer deps.mu.Unlock()
	if !slices.Equal(deps.calls, calls) {
		t.Errorf("got %q, want %q", deps.calls, calls)
	}
}

func TestBreakers(t *testing.T) {
	t.Parallel()
	t.Run("failed_probe_opens", testBreakersFailedProbeOpens)
	t.Run("failed_probe_opens_a_half_open_one", testBreakersFailedProbeOpensAHalfOpenOne)
	t.Run("intake_resumes_when_all_are_closed", testBreakersIntakeResumesWhenAllAreClosed)
	t.Run("hanging_probe_delays_no_other", testBreakersHangingProbeDelaysNoOther)
	t.Run("consecutive_faults_open_for_longer_each_time", testBreakersConsecutiveFaultsOpenForLongerEachTime)
	t.Run("unknown_dependency_is_ignored", testBreakersUnknownDependencyIsIgnored)
}

func testBreakersFailedProbeOpens(t *testing.T) {
	t.Parallel()
	runBreakers(t, func(deps *dependencies, _ *worker.Breakers, reg *prometheus.Registry) {
		advance(time.Second)
		deps.setErr(worker.DependencyS3, errDown)
		advance(6 * time.Second)
		if got := catalogtest.Metric(t, reg, "vitrine_worker_breaker_open"); got != 1 {
			t.Errorf("%v breakers are open, want one", got)
		}
		deps.setErr(worker.DependencyS3, nil)
		advance(6 * time.Second)
		deps.wantCalls(t, "pause 2s", "resume 8s")
		if got := catalogtest.Metric(t, reg, "vitrine_worker_breaker_open"); got != 0 {
			t.Errorf("%v breakers are open, want none", got)
		}
	})
}

func testBreakersFailedProbeOpensAHalfOpenOne(t *testing.T) {
	t.Parallel()
	runBreakers(t, func(deps *dependencies, _ *worker.Breakers, reg *prometheus.Registry) {
		deps.setErr(worker.DependencyS3, errDown)
		advance(3 * time.Second)
		deps.setErr(worker.DependencyS3, nil)
		advance(2 * time.Second) // no operation has closed it since
		deps.setErr(worker.DependencyS3, errDown)
		advance(2 * time.Second)
		deps.wantCalls(t, "pause 2s", "resume 4s", "pause 6s")
		if got := catalogtest.Metric(t, reg, "vitrine_worker_breaker_opened_total"); got != 2 {
			t.Errorf("counted %v openings, want two", got)
		}
	})
}

func testBreakersIntakeResumesWhenAllAreClosed(t *testing.T) {
	t.Parallel()
	runBreakers(t, func(deps *dependencies, _ *worker.Breakers, reg *prometheus.Registry) {
		deps.setErr(worker.DependencyS3, errDown)
		deps.setErr(worker.DependencyPostgres, errDown)
		advance(3 * time.Second)
		deps.setErr(worker.DependencyS3, nil)
		advance(2 * time.Second)
		deps.setErr(worker.DependencyPostgres, nil)
		advance(2 * time.Second)
		deps.wantCalls(t, "pause 2s", "resume 6s")
		if got := catalogtest.Metric(t, reg, "vitrine_worker_breaker_opened_total"); got != 2 {
			t.Errorf("counted %v openings, want two", got)
		}
	})
}

func testBreakersHangingProbeDelaysNoOther(t *testing.T) {
	t.Parallel()
	runBreakers(t, func(deps *dependencies, _ *worker.Breakers, _ *prometheus.Registry) {
		deps.mu.Lock()
		deps.hangs[worker.DependencyPostgres] = true
		deps.mu.Unlock()
		advance(3 * time.Second)
		deps.setErr(worker.DependencyS3, errDown)
		advance(2 * time.Second)
		deps.wantCalls(t, "pause 4s") // because of S3: the probe of Postgres has not timed out
		deps.setErr(worker.DependencyS3, nil)
		advance(3 * time.Second)
		deps.wantCalls(t, "pause 4s", "resume 6s", "pause 7s") // the probe of Postgres times out after five seconds
		deps.mu.Lock()
		deps.hangs[worker.DependencyPostgres] = false // the next probe succeeds, an interval later
		deps.mu.Unlock()
		advance(2 * time.Second)
		deps.wantCalls(t, "pause 4s", "resume 6s", "pause 7s", "resume 9s")
		deps.mu.Lock()
		deps.hangs[worker.DependencyPostgres] = true
		deps.mu.Unlock()
		advance(10 * time.Second)
		deps.mu.Lock()
		deps.hangs[worker.DependencyPostgres] = false
		deps.mu.Unlock()
		advance(10 * time.Second)
		if deps.isPaused() {
			t.Error("still paused with all dependencies available")
		}
	})
}

func testBreakersConsecutiveFaultsOpenForLongerEachTime(t *testing.T) {
	t.Parallel()
	runBreakers(t, func(deps *dependencies, c *worker.Breakers, _ *prometheus.Registry) {
		advance(time.Second)
		fail := func(n int) {
			for range n {
				c.Report(worker.DependencyS3, errDown)
			}
			synctest.Wait()
		}
		fail(2)
		c.Report(worker.DependencyS3, nil) // not consecutive
		fail(2)
		deps.wantCalls(t)
		fail(3)                   // the first opens it; the others come from attempts that were running
		advance(4 * time.Second)  // at 4 s the pause of 2 s is over and a probe succeeds
		fail(1)                   // half open: the first fault opens it
		advance(5 * time.Second)  // the pause is 4 s now: until 9 s, and the next probe is at 10 s
		advance(10 * time.Second) // that is at 20 s
		fail(1)                   // 8 s: until 28 s
		advance(10 * time.Second)
		fail(1) // the maximum of 10 s: until 40 s
		advance(11 * time.Second)
		c.Report(worker.DependencyS3, nil)
		fail(2)
		deps.wantCalls(t, "pause 1s", "resume 4s", "pause 5s", "resume 10s", "pause 20s", "resume 28s", "pause 30s", "resume 40s")
		fail(1) // the third consecutive fault; the pause is short, because the breaker had closed
		advance(4 * time.Second)
		if deps.isPaused() {
			t.Error("a breaker that had closed opens for a long pause")
		}
	})
}

func testBreakersUnknownDependencyIsIgnored(t *testing.T) {
	t.Parallel()
	runBreakers(t, func(deps *dependencies, c *worker.Breakers, _ *prometheus.Registry) {
		for range 10 {
			c.Report("unknown", errDown)
			c.Trip("unknown", errDown)
		}
		synctest.Wait()
		deps.wantCalls(t)
	})
}

// openBreakers returns the dependencies of the open breakers.
func openBreakers(t *testing.T, reg *prometheus.Registry) string {
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

// TestBreakersObserve checks which results of a worker's operations open a breaker.
func TestBreakersObserve(t *testing.T) {
	t.Parallel()
	stopped := fmt.Errorf("put: %w", context.Canceled)
	for name, row := range map[string]struct {
		dependency string
		set        func(w *fixture, err error)
		err        error
		opens      bool
	}{
		"store_is_down":             {worker.DependencyS3, (*fixture).failPut, errDown, true},
		"store_hangs":               {worker.DependencyS3, (*fixture).failPut, context.DeadlineExceeded, true},
		"stopped_during_an_upload":  {worker.DependencyS3, (*fixture).failPut, stopped, false},
		"unclassified_error":        {worker.DependencyS3, (*fixture).failPut, errors.New("bad prefix"), false},
		"codec_unavailable":         {worker.DependencyCodec, (*fixture).failRender, media.Fail(media.CodecUnavailable, "no", nil), true},
		"codec_crashed":             {worker.DependencyCodec, (*fixture).failRender, media.Fail(media.CodecCrashed, "no", nil), false},
		"stopped_during_rendering":  {worker.DependencyCodec, (*fixture).failRender, context.Canceled, false},
		"database_is_down":          {worker.DependencyPostgres, (*fixture).failRecord, errDown, true},
		"superseded_outcome":        {worker.DependencyPostgres, (*fixture).failRecord, catalog.ErrSuperseded, false},
		"database_is_down_at_begin": {worker.DependencyPostgres, (*fixture).failBegin, errDown, true},
		"done_job":                  {worker.DependencyPostgres, (*fixture).failBegin, catalog.ErrDone, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t)
			reg := prometheus.NewRegistry()
			healthy := func(context.Context) error { return nil }
			cfg := breakerConfig()
			cfg.Faults = 1
			c := worker.NewBreakers(cfg, reg, zap.NewNop(), worker.Probe{Dependency: worker.DependencyPostgres, Check: healthy},
				worker.Probe{Dependency: worker.DependencyS3, Check: healthy},
				worker.Probe{Dependency: worker.DependencyCodec, Check: healthy})
			w.useBreakers(c)
			if err := w.Handle(t.Context(), w.message()); err != nil || openBreakers(t, reg) != "" {
				t.Fatalf("an image without a fault: got %v, open: %q", err, openBreakers(t, reg))
			}
			row.set(w, row.err)
			_ = w.Handle(t.Context(), w.message())
			if got, want := openBreakers(t, reg), row.dependency; row.opens && got != want || !row.opens && got != "" {
				t.Errorf("open: %q; want %s to be open: %v", got, want, row.opens)
			}
			if slices.Contains(w.calls, "retry") != (name == "codec_crashed") {
				t.Errorf("called %v: a deferrable failure counts no attempt", w.calls)
			}
		})
	}
}

// TestBreakersWithObjectStore stops and starts an object store.
func TestBreakersWithObjectStore(t *testing.T) {
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
		Endpoint: "http://" + addr, Region: "us-east-1", Bucket: "images", AccessKey: "a", SecretKey: "b", PathStyle: true,
		CreateBucket: true, AttemptTimeout: time.Second, MaxAttempts: 1,
	}, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	if err := bucket.EnsureBucket(t.Context()); err != nil {
		t.Fatal(err)
	}
	deps := &dependencies{start: time.Now()}
	cfg := breakerConfig()
	cfg.Interval = 20 * time.Millisecond
	c := worker.NewBreakers(cfg, prometheus.NewRegistry(), zap.NewNop(),
		worker.Probe{Dependency: worker.DependencyS3, Check: bucket.Ping})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx, deps) }()
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
		for deps.isPaused() != paused {
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

func TestBreakerConfigValidate(t *testing.T) {
	t.Parallel()
	if wrong := breakerConfig().Validate(); wrong != nil {
		t.Errorf("got %v", wrong)
	}
	if wrong := (worker.BreakerConfig{MaxPause: -1}).Validate(); len(wrong) != 4 {
		t.Errorf("got %v, want all four", wrong)
	}
}
