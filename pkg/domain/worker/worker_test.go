package worker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestHandle(t *testing.T) {
	t.Parallel()

	t.Run("makes a picture and stores what is equal once", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Fatal(err)
		}
		if want := []string{"begin", "finish"}; !slices.Equal(w.told, want) {
			t.Errorf("told %v, want %v", w.told, want)
		}
		want := map[string]string{"products/1/2/1-x/full.jpg": "image/jpeg", "products/1/2/1-x/full.webp": "image/webp"}
		if !maps.Equal(w.objects, want) {
			t.Errorf("got objects %v, want %v", w.objects, want)
		}
		r := w.result
		if r.Width != 30 || r.Height != 20 || r.SourceBytes != 6 || r.SourceSHA256 != "ab" || len(r.Renditions) != 3 {
			t.Fatalf("got %+v", r)
		}
		if card := r.Renditions[1]; card.Key != "products/1/2/1-x/full.jpg" || card.Default || card.Bytes != 4 {
			t.Errorf("the shared rendition is %+v", card)
		}
		if !r.Renditions[0].Default || r.Renditions[0].Score != 70.25 {
			t.Errorf("the default rendition is %+v", r.Renditions[0])
		}
	})

	t.Run("every code has the outcome of its class", func(t *testing.T) {
		t.Parallel()
		want := map[media.Class]string{media.Permanent: "fail", media.Transient: "retry", media.Deferrable: "defer"}
		for code, class := range media.Codes() {
			w := newWorld(t)
			w.fetch = func(context.Context, string) (worker.Download, error) {
				return worker.Download{}, media.Fail(code, "so it is", nil)
			}
			if err := w.Handle(t.Context(), w.message()); err != nil {
				t.Errorf("%s: %v", code, err)
			}
			if !slices.Equal(w.told, []string{"begin", want[class]}) || w.failure.Code != code {
				t.Errorf("%s: told %v with %v, want %s", code, w.told, w.failure, want[class])
			}
		}
	})

	t.Run("a store that takes nothing spends no attempt", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.put = func(context.Context, string) error { return errors.New("down") }
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Fatal(err)
		}
		if w.failure == nil || w.failure.Code != media.StorageFailed || w.told[1] != "defer" {
			t.Errorf("told %v with %v", w.told, w.failure)
		}
	})

	t.Run("an empty rendition is the codec's fault", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.render = func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
			return media.Rendered{Files: []media.EncodedFile{{Name: "full", Format: pipeline.JPEG}}}, nil
		}
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Fatal(err)
		}
		if w.failure == nil || w.failure.Code != media.CodecCrashed {
			t.Errorf("got %v, want codec_crashed", w.failure)
		}
	})

	t.Run("a request that is done is nothing to do", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.begin = func(context.Context, catalog.Job) (catalog.Attempt, error) {
			return catalog.Attempt{}, catalog.ErrDone
		}
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Error(err)
		}
		if len(w.objects) != 0 {
			t.Error("something was stored")
		}
	})

	t.Run("an attempt that was overtaken is nothing to do", func(t *testing.T) {
		t.Parallel()
		for _, verb := range []string{"finish", "retry"} {
			w := newWorld(t)
			w.settle = func(string) error { return fmt.Errorf("settle: %w", catalog.ErrSuperseded) }
			if verb == "retry" {
				w.fetch = func(context.Context, string) (worker.Download, error) {
					return worker.Download{}, media.Fail(media.Timeout, "slow", nil)
				}
			}
			if err := w.Handle(t.Context(), w.message()); err != nil {
				t.Errorf("%s: %v", verb, err)
			}
			if w.told[len(w.told)-1] != verb {
				t.Errorf("told %v, want %s last", w.told, verb)
			}
		}
	})

}

func TestHandleOutcomesThatResist(t *testing.T) {
	t.Parallel()

	t.Run("a picture that was given up counts and is told as failed", func(t *testing.T) {
		t.Parallel()
		for _, at := range []string{"begin", "retry"} {
			w := newWorld(t)
			w.fetch = func(context.Context, string) (worker.Download, error) {
				return worker.Download{}, media.Fail(media.Timeout, "slow", nil)
			}
			w.settle = func(string) error { return catalog.ErrGivenUp }
			code := "timeout"
			if at == "begin" {
				code = "worker_crashed"
				w.begin = func(context.Context, catalog.Job) (catalog.Attempt, error) {
					return catalog.Attempt{}, fmt.Errorf("begin: %w", catalog.ErrGivenUp)
				}
			}
			if err := w.Handle(t.Context(), w.message()); err != nil {
				t.Errorf("%s: %v", at, err)
			}
			told := w.logs.FilterMessage("image failed").All()
			if len(told) != 1 || told[0].ContextMap()["code"] != code || told[0].ContextMap()["duration"] == nil {
				t.Errorf("%s: told %v, want failed with %s", at, told, code)
			}
			want := fmt.Sprintf("# HELP vitrine_worker_outcomes_total Ended requests by outcome and error code (empty when ready).\n"+
				"# TYPE vitrine_worker_outcomes_total counter\n"+
				"vitrine_worker_outcomes_total{code=%q,outcome=\"failed\"} 1\n", code)
			if err := testutil.GatherAndCompare(w.reg, strings.NewReader(want), "vitrine_worker_outcomes_total"); err != nil {
				t.Errorf("%s: %v", at, err)
			}
		}
	})

	t.Run("a result is not wasted on a database that is away for a moment", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			tries := 0
			w.settle = func(string) error {
				if tries++; tries < 4 {
					return fault.New(fault.Unavailable, "database_unavailable", "down")
				}
				return nil
			}
			if err := w.Handle(t.Context(), w.message()); err != nil {
				t.Fatal(err)
			}
			if want := []string{"begin", "finish", "finish", "finish", "finish"}; !slices.Equal(w.told, want) {
				t.Errorf("told %v, want %v", w.told, want)
			}
			w.settle = func(string) error { return fault.New(fault.Unavailable, "database_unavailable", "down") }
			if err := w.Handle(t.Context(), w.message()); !fault.Is(err, fault.Unavailable) {
				t.Errorf("a database that stays away: got %v, want it to come again", err)
			}
		})
	})

	t.Run("comes again when the outcome could not be written", func(t *testing.T) {
		t.Parallel()
		for _, verb := range []string{"begin", "finish", "retry", "doomed"} {
			w := newWorld(t)
			down := errors.New("postgres is down")
			switch verb {
			case "begin":
				w.begin = func(context.Context, catalog.Job) (catalog.Attempt, error) { return catalog.Attempt{}, down }
			case "retry":
				w.fetch = func(context.Context, string) (worker.Download, error) {
					return worker.Download{}, media.Fail(media.Timeout, "slow", nil)
				}
			case "doomed":
				down = catalog.ErrDeletionStarted
			}
			w.settle = func(string) error { return down }
			if err := w.Handle(t.Context(), w.message()); !errors.Is(err, down) {
				t.Errorf("%s: got %v, want it to come again", verb, err)
			}
		}
	})

	t.Run("what cannot be read is an error", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		bad := event.Message{ID: "x", Type: event.TypeImageRequested, Version: 1, Body: []byte("{")}
		if w.Handle(t.Context(), bad) == nil || worker.Check(bad) == nil || worker.Check(w.message()) != nil {
			t.Error("a broken message must be refused, a good one taken")
		}
		if a, b := worker.OrderingKey(w.message()), worker.OrderingKey(bad); a != "2" || b != "" {
			t.Errorf("got %q and %q", a, b)
		}
	})
}

func TestHandlePipelines(t *testing.T) {
	t.Parallel()
	other := pipeline.Default()
	other.Spec.Renditions = other.Spec.Renditions[2:]

	t.Run("uses exactly the specification that was asked for, and remembers it", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.lookUp = func(hash string) ([]byte, error) {
			if hash != other.Hash() {
				t.Errorf("looked up %s", hash)
			}
			return other.Document(), nil
		}
		render := w.render
		w.render = func(ctx context.Context, body []byte, spec pipeline.Spec) (media.Rendered, error) {
			if len(spec.Renditions) != len(other.Spec.Renditions) {
				t.Errorf("rendered with %d renditions, want %d", len(spec.Renditions), len(other.Spec.Renditions))
			}
			return render(ctx, body, spec)
		}
		for range 2 {
			if err := w.Handle(t.Context(), w.messageFor(other.Hash())); err != nil {
				t.Fatal(err)
			}
		}
		if want := []string{"look up", "begin", "finish", "begin", "finish"}; !slices.Equal(w.told, want) {
			t.Errorf("told %v, want %v", w.told, want)
		}
	})

	t.Run("fetches and tries again as the one in force says, renders as the one that was asked for says", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		asked := w.pipe
		w.lookUp = func(string) ([]byte, error) { return asked.Document(), nil }
		render := w.render
		w.render = func(ctx context.Context, body []byte, spec pipeline.Spec) (media.Rendered, error) {
			if len(spec.Renditions) != len(asked.Spec.Renditions) || spec.Limits != asked.Spec.Limits {
				t.Errorf("rendered by %+v, want what was asked for", spec)
			}
			return render(ctx, body, spec)
		}
		w.pipe = other
		w.pipe.Spec.Limits.MaxBytes = 2048
		w.pipe.Spec.Fetch.MaxRedirects, w.pipe.Spec.Retry.MaxAttempts = 9, 77
		w.settle = func(verb string) error {
			if verb == "finish" {
				return media.Fail(media.Timeout, "slow", nil)
			}
			return nil
		}
		if err := w.Handle(t.Context(), w.messageFor(asked.Hash())); err != nil {
			t.Fatal(err)
		}
		if w.rules.MaxRedirects != 9 || w.policy.MaxAttempts != 77 || w.limit != int64(asked.Spec.Limits.MaxBytes) {
			t.Errorf("fetched by %+v up to %d bytes, tried again by %+v", w.rules, w.limit, w.policy)
		}
	})

	t.Run("one that is not on record, or cannot be read, is put off", func(t *testing.T) {
		t.Parallel()
		for _, document := range [][]byte{nil, []byte("kind: Other")} {
			w := newWorld(t)
			if document != nil {
				w.lookUp = func(string) ([]byte, error) { return document, nil }
			}
			if err := w.Handle(t.Context(), w.messageFor("unknown")); err != nil {
				t.Fatal(err)
			}
			codes := w.deferredFor()
			if w.told[len(w.told)-1] != "postpone" || !slices.Equal(codes, []any{string(media.PipelineUnknown)}) ||
				slices.Contains(w.told, "begin") {
				t.Errorf("told %v with %v", w.told, codes)
			}
		}
	})

	t.Run("failed_postpone_makes_the_request_come_again", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		down := errors.New("down")
		w.settle = func(string) error { return down }
		if err := w.Handle(t.Context(), w.messageFor("unknown")); !errors.Is(err, down) {
			t.Errorf("got %v, want the failure", err)
		}
		w.settle = func(string) error { return catalog.ErrSuperseded }
		if err := w.Handle(t.Context(), w.messageFor("unknown")); err != nil {
			t.Errorf("a superseded request: got %v, want none", err)
		}
	})

	t.Run("a store that is down makes the request come again", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.lookUp = func(string) ([]byte, error) { return nil, errors.New("down") }
		if err := w.Handle(t.Context(), w.messageFor("unknown")); err == nil {
			t.Error("got no error")
		}
	})

	t.Run("forgets when it has learned too many", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.lookUp = func(string) ([]byte, error) { return other.Document(), nil }
		for i := range 200 {
			if err := w.Handle(t.Context(), w.messageFor(fmt.Sprint("hash-", i))); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestHostSlots(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pipe.Spec.Fetch.PerHost = 1
	fetching, goOn := make(chan struct{}), make(chan struct{})
	w.fetch = func(context.Context, string) (worker.Download, error) {
		fetching <- struct{}{}
		<-goOn
		return worker.Download{Body: []byte("source")}, nil
	}
	first := make(chan error, 1)
	go func() { first <- w.Handle(t.Context(), w.message()) }()
	<-fetching
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"begin", "postpone"}; !slices.Equal(w.told, want) || w.postponed.JobID != "ticket" ||
		!slices.Equal(w.deferredFor(), []any{string(media.HostBusy)}) {
		t.Errorf("told %v with %v, want the second postponed before it begins", w.told, w.deferredFor())
	}
	if w.wait != time.Second {
		t.Errorf("put off by %s, want the short wait", w.wait)
	}
	rendering, finish := make(chan struct{}), make(chan struct{})
	render := w.render
	w.render = func(ctx context.Context, body []byte, spec pipeline.Spec) (media.Rendered, error) {
		rendering <- struct{}{}
		<-finish
		return render(ctx, body, spec)
	}
	close(goOn)
	<-rendering // the source is here: the host may be asked again
	second := make(chan error, 1)
	go func() { second <- w.Handle(t.Context(), w.message()) }()
	<-fetching
	<-rendering
	close(finish)
	for _, ended := range []chan error{first, second} {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// A limit that another spelling gets around is none; and it is no limit of other hosts.
func TestHostSlotsAreOfTheHostHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pipe.Spec.Fetch.PerHost = 2
	fetching, goOn := make(chan struct{}), make(chan struct{})
	w.fetch = func(context.Context, string) (worker.Download, error) {
		fetching <- struct{}{}
		<-goOn
		return worker.Download{Body: []byte("source")}, nil
	}
	handle := func(url string) error {
		return w.Handle(t.Context(), event.New("ticket", "1", event.ImageRequested{
			ProductID: 1, ImageID: 2, SourceURL: url, PipelineHash: w.pipe.Hash(),
		}))
	}
	var all sync.WaitGroup
	begin := func(url string) {
		all.Go(func() {
			if err := handle(url); err != nil {
				t.Error(err)
			}
		})
		<-fetching
	}
	begin("https://example.com/1.jpg")
	begin("http://example.com/2.jpg")
	for i, url := range []string{
		"https://example.com/3.jpg", "https://EXAMPLE.com/", "https://example.com./", "https://example.com:443/",
		"http://x@example.com/",
	} {
		if err := handle(url); err != nil || len(w.told) != 3+i || w.told[2+i] != "postpone" {
			t.Errorf("%s: told %v (%v), want it postponed", url, w.told, err)
		}
	}
	begin("https://www.example.com/")
	close(goOn)
	all.Wait()
}

// The memory of a source is others' as soon as it has been rendered, and never before, however that ended.
func TestTheSourceIsDroppedWhenItHasBeenRendered(t *testing.T) {
	t.Parallel()
	broken := func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
		return media.Rendered{}, media.Fail(media.Corrupt, "damaged", nil)
	}
	cases := map[string]struct {
		render func(context.Context, []byte, pipeline.Spec) (media.Rendered, error)
		told   string
	}{
		"well":     {nil, "finish"},
		"badly":    {broken, "fail"},
		"by panic": {func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) { panic("codec") }, "begin"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var dropped atomic.Int32
			w.fetch = func(context.Context, string) (worker.Download, error) {
				return worker.Download{Body: []byte("source"), Release: func() { dropped.Add(1) }}, nil
			}
			render := w.render
			if c.render != nil {
				render = c.render
			}
			w.render = func(ctx context.Context, body []byte, spec pipeline.Spec) (media.Rendered, error) {
				if string(body) != "source" || dropped.Load() != 0 {
					t.Errorf("got %q to render, dropped %d times", body, dropped.Load())
				}
				return render(ctx, body, spec)
			}
			w.put = func(context.Context, string) error {
				if dropped.Load() == 0 {
					t.Error("renditions are stored while the source is kept")
				}
				return nil
			}
			func() {
				defer func() { _ = recover() }()
				if err := w.Handle(t.Context(), w.message()); err != nil {
					t.Error(err)
				}
			}()
			if dropped.Load() == 0 || w.told[len(w.told)-1] != c.told {
				t.Errorf("dropped %d times, told %v, want %s last", dropped.Load(), w.told, c.told)
			}
			if c.told == "finish" && w.result.SourceBytes != 6 {
				t.Errorf("the result speaks of %d bytes, want 6", w.result.SourceBytes)
			}
		})
	}
}

func TestStop(t *testing.T) {
	t.Parallel()

	t.Run("work in hand is released and comes again", func(t *testing.T) {
		t.Parallel()
		for _, at := range []string{"fetch", "render", "put"} {
			w := newWorld(t)
			ctx, stop := context.WithCancel(t.Context())
			switch at {
			case "fetch":
				w.fetch = func(ctx context.Context, _ string) (worker.Download, error) {
					stop()
					return worker.Download{}, ctx.Err()
				}
			case "render":
				w.render = func(ctx context.Context, _ []byte, _ pipeline.Spec) (media.Rendered, error) {
					stop()
					return media.Rendered{}, ctx.Err()
				}
			case "put":
				w.put = func(ctx context.Context, _ string) error { stop(); return ctx.Err() }
			}
			err := w.Handle(ctx, w.message())
			if !errors.Is(err, context.Canceled) || !slices.Equal(w.told, []string{"begin", "release"}) {
				t.Errorf("%s: got %v, told %v", at, err, w.told)
			}
			stop()
		}
	})

	t.Run("what is certain is still written", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w.fetch = func(context.Context, string) (worker.Download, error) {
			stop()
			return worker.Download{}, media.Fail(media.HTTPStatus, "404", nil)
		}
		if err := w.Handle(ctx, w.message()); err != nil || w.told[1] != "fail" {
			t.Errorf("got %v, told %v", err, w.told)
		}
	})

	t.Run("a release that cannot be written comes again all the same", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		ctx, stop := context.WithCancel(t.Context())
		w.fetch = func(ctx context.Context, _ string) (worker.Download, error) {
			stop()
			return worker.Download{}, ctx.Err()
		}
		w.settle = func(string) error { return errors.New("down") }
		if err := w.Handle(ctx, w.message()); err == nil {
			t.Error("got no error")
		}
		stop()
	})

	t.Run("a database that does not answer holds a stop up for two tries at most", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			ctx, stop := context.WithCancel(t.Context())
			var told time.Time
			hang := func(ctx context.Context, verb string) error {
				if verb == "finish" && told.IsZero() {
					told = time.Now()
					stop()
				}
				<-ctx.Done()
				return fault.Wrap(ctx.Err(), fault.Unavailable, "database_unavailable", "down")
			}
			w.deps.Catalog = hangingCatalog{w, hang}
			w.Worker = worker.New(w.deps, worldConfig(), prometheus.NewRegistry())
			if err := w.Handle(ctx, w.message()); err == nil {
				t.Error("what is neither finished nor released has to come again")
			}
			// cmd/worker counts on this when it compares the settings with the rebalance timeout.
			if took, most := time.Since(told), 2*worldConfig().OutcomeTimeout; took > most {
				t.Errorf("ended %s after the stop, want at most %s", took, most)
			}
		})
	})

	t.Run("an attempt that runs out of time is put off", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.render = func(ctx context.Context, _ []byte, _ pipeline.Spec) (media.Rendered, error) {
				<-ctx.Done() // no child becomes free
				return media.Rendered{}, ctx.Err()
			}
			if err := w.Handle(t.Context(), w.message()); err != nil {
				t.Fatal(err)
			}
			if w.failure == nil || w.failure.Code != media.CodecUnavailable || w.told[1] != "defer" {
				t.Errorf("told %v with %v", w.told, w.failure)
			}
		})
	})
}

func TestAlone(t *testing.T) {
	t.Parallel()

	t.Run("nothing runs beside a picture that has killed before", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		var mu sync.Mutex
		running, most, alone := 0, 0, false
		begin := w.begin
		w.begin = func(ctx context.Context, r catalog.Job) (catalog.Attempt, error) {
			a, err := begin(ctx, r)
			a.Isolated = r.ImageID == 99
			if a.Isolated {
				a.SourceURL = "alone"
			}
			return a, err
		}
		w.fetch = func(_ context.Context, url string) (worker.Download, error) {
			mu.Lock()
			running++
			if alone = alone || url == "alone"; alone {
				most = max(most, running)
			}
			mu.Unlock()
			for range 20 {
				runtime.Gosched() // stay long enough to be met
			}
			defer func() { mu.Lock(); running--; alone = alone && url != "alone"; mu.Unlock() }()
			return worker.Download{Body: []byte("source")}, nil
		}
		var all sync.WaitGroup
		for i := range 40 {
			m := event.New(fmt.Sprint("t", i), "1", event.ImageRequested{
				ProductID: 1, ImageID: int64(1 + 98*(i%2)), SourceURL: fmt.Sprintf("https://h%d/", i), PipelineHash: w.pipe.Hash(),
			})
			all.Go(func() {
				if err := w.Handle(t.Context(), m); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if most != 1 {
			t.Errorf("%d ran while one should have been alone", most)
		}
	})

	t.Run("it is released when its turn does not come", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			goOn := make(chan struct{})
			w.fetch = func(context.Context, string) (worker.Download, error) {
				<-goOn
				return worker.Download{Body: []byte("source")}, nil
			}
			go func() { _ = w.Handle(t.Context(), w.message()) }()
			synctest.Wait()
			begin := w.begin
			w.begin = func(ctx context.Context, r catalog.Job) (catalog.Attempt, error) {
				a, err := begin(ctx, r)
				a.Isolated = true
				return a, err
			}
			if err := w.Handle(t.Context(), w.message()); err == nil {
				t.Error("a released request has to come again")
			}
			if w.told[len(w.told)-1] != "release" {
				t.Errorf("told %v, want a release", w.told)
			}
			close(goOn)
			synctest.Wait()
		})
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.message()
	m.Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if err := w.Handle(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(w.reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("got %v, %v", problems, err)
	}
	n, err := testutil.GatherAndCount(w.reg, "vitrine_worker_stage_duration_seconds", "vitrine_worker_outcomes_total")
	if err != nil || n != 6 { // five stages, one outcome
		t.Errorf("got %d series, %v, want 6", n, err)
	}
	for _, message := range []string{"download done", "image compressed", "image ready"} {
		found := w.logs.FilterMessage(message).All()
		if len(found) != 1 {
			t.Fatalf("%q is logged %d times, want once", message, len(found))
		}
		fields := found[0].ContextMap()
		if fields["product_id"] != int64(1) || fields["image_id"] != int64(2) || fields["event_id"] != "ticket" ||
			fields["duration"] == nil || fields["trace_id"] != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("%q has fields %v", message, fields)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	if got := len(worker.Config{Concurrency: -1}.Validate()); got != 5 {
		t.Errorf("got %d wrong fields, want 5", got)
	}
	cfg := worker.Config{Concurrency: 1, StoreBudget: 1, OutcomeTimeout: 1, DeferWait: 1, BusyWait: 1}
	if got := cfg.Validate(); got != nil {
		t.Errorf("got %v, want none", got)
	}
}
