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
	t.Run("equal_files_are_stored_once", testHandleEqualFilesAreStoredOnce)
	t.Run("outcome_follows_the_class_of_the_code", testHandleOutcomeFollowsTheClassOfTheCode)
	t.Run("failed_upload_is_deferred", testHandleFailedUploadIsDeferred)
	t.Run("empty_file_is_codec_crashed", testHandleEmptyFileIsCodecCrashed)
	t.Run("done_job_is_skipped", testHandleDoneJobIsSkipped)
	t.Run("superseded_attempt_returns_nil", testHandleSupersededAttemptReturnsNil)
}

func testHandleEqualFilesAreStoredOnce(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"begin", "finish"}; !slices.Equal(w.calls, want) {
		t.Errorf("called %v, want %v", w.calls, want)
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
		t.Errorf("got the shared rendition %+v", card)
	}
	if !r.Renditions[0].Default || r.Renditions[0].Score != 70.25 {
		t.Errorf("got the default rendition %+v", r.Renditions[0])
	}
}

func testHandleOutcomeFollowsTheClassOfTheCode(t *testing.T) {
	t.Parallel()
	want := map[media.Class]string{media.Permanent: "fail", media.Transient: "retry", media.Deferrable: "defer"}
	for code, class := range media.Codes() {
		w := newFixture(t)
		w.fetch = func(context.Context, string) (worker.Download, error) {
			return worker.Download{}, media.Fail(code, "test", nil)
		}
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Errorf("%s: %v", code, err)
		}
		if !slices.Equal(w.calls, []string{"begin", want[class]}) || w.failure.Code != code {
			t.Errorf("%s: called %v with %v, want %s", code, w.calls, w.failure, want[class])
		}
	}
}

func testHandleFailedUploadIsDeferred(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.put = func(context.Context, string) error { return errors.New("down") }
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Fatal(err)
	}
	if w.failure == nil || w.failure.Code != media.StorageFailed || w.calls[1] != "defer" {
		t.Errorf("called %v with %v", w.calls, w.failure)
	}
}

func testHandleEmptyFileIsCodecCrashed(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.render = func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
		return media.Rendered{Files: []media.EncodedFile{{Name: "full", Format: pipeline.JPEG}}}, nil
	}
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Fatal(err)
	}
	if w.failure == nil || w.failure.Code != media.CodecCrashed {
		t.Errorf("got %v, want codec_crashed", w.failure)
	}
}

func testHandleDoneJobIsSkipped(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.begin = func(context.Context, catalog.Job) (catalog.Attempt, error) {
		return catalog.Attempt{}, catalog.ErrDone
	}
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Error(err)
	}
	if len(w.objects) != 0 {
		t.Error("something was stored")
	}
}

func testHandleSupersededAttemptReturnsNil(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"finish", "retry"} {
		w := newFixture(t)
		w.recordErr = func(string) error { return fmt.Errorf("record: %w", catalog.ErrSuperseded) }
		if step == "retry" {
			w.fetch = func(context.Context, string) (worker.Download, error) {
				return worker.Download{}, media.Fail(media.Timeout, "slow", nil)
			}
		}
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Errorf("%s: %v", step, err)
		}
		if w.calls[len(w.calls)-1] != step {
			t.Errorf("called %v, want %s last", w.calls, step)
		}
	}
}

func TestHandleErrors(t *testing.T) {
	t.Parallel()
	t.Run("given_up_image_is_logged_and_counted", testHandleErrorsGivenUpImageIsLoggedAndCounted)
	t.Run("finish_is_retried_during_an_outage", testHandleErrorsFinishIsRetriedDuringAnOutage)
	t.Run("unrecorded_outcome_is_an_error", testHandleErrorsUnrecordedOutcomeIsAnError)
	t.Run("malformed_message_is_an_error", testHandleErrorsMalformedMessageIsAnError)
}

func testHandleErrorsGivenUpImageIsLoggedAndCounted(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"begin", "retry"} {
		w := newFixture(t)
		w.fetch = func(context.Context, string) (worker.Download, error) {
			return worker.Download{}, media.Fail(media.Timeout, "slow", nil)
		}
		w.recordErr = func(string) error { return catalog.ErrGivenUp }
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
		logged := w.logs.FilterMessage("image failed").All()
		if len(logged) != 1 || logged[0].ContextMap()["code"] != code || logged[0].ContextMap()["duration"] == nil {
			t.Errorf("%s: logged %v, want failed with %s", at, logged, code)
		}
		want := fmt.Sprintf("# HELP vitrine_worker_outcomes_total Handled jobs by outcome and error code (empty if ready), "+
			"without those of backfills.\n"+
			"# TYPE vitrine_worker_outcomes_total counter\n"+
			"vitrine_worker_outcomes_total{code=%q,outcome=\"failed\"} 1\n", code)
		if err := testutil.GatherAndCompare(w.reg, strings.NewReader(want), "vitrine_worker_outcomes_total"); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
}

func testHandleErrorsFinishIsRetriedDuringAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		tries := 0
		w.recordErr = func(string) error {
			if tries++; tries < 4 {
				return fault.New(fault.Unavailable, "database_unavailable", "down")
			}
			return nil
		}
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Fatal(err)
		}
		if want := []string{"begin", "finish", "finish", "finish", "finish"}; !slices.Equal(w.calls, want) {
			t.Errorf("called %v, want %v", w.calls, want)
		}
		w.recordErr = func(string) error { return fault.New(fault.Unavailable, "database_unavailable", "down") }
		if err := w.Handle(t.Context(), w.message()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a longer outage: got %v, want the error", err)
		}
	})
}

func testHandleErrorsUnrecordedOutcomeIsAnError(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"begin", "finish", "retry", "deletion"} {
		w := newFixture(t)
		down := errors.New("postgres is down")
		switch step {
		case "begin":
			w.begin = func(context.Context, catalog.Job) (catalog.Attempt, error) { return catalog.Attempt{}, down }
		case "retry":
			w.fetch = func(context.Context, string) (worker.Download, error) {
				return worker.Download{}, media.Fail(media.Timeout, "slow", nil)
			}
		case "deletion":
			down = catalog.ErrDeletionStarted
		}
		w.recordErr = func(string) error { return down }
		if err := w.Handle(t.Context(), w.message()); !errors.Is(err, down) {
			t.Errorf("%s: got %v, want the error", step, err)
		}
	}
}

func testHandleErrorsMalformedMessageIsAnError(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	bad := event.Message{ID: "x", Type: event.TypeImageRequested, Version: 1, Body: []byte("{")}
	if w.Handle(t.Context(), bad) == nil || worker.Check(bad) == nil || worker.Check(w.message()) != nil {
		t.Error("want an error for a malformed message only")
	}
	if a, b := worker.OrderingKey(w.message()), worker.OrderingKey(bad); a != "2" || b != "" {
		t.Errorf("got %q and %q", a, b)
	}
}

func TestHandlePipeline(t *testing.T) {
	t.Parallel()
	t.Run("requested_specification_is_cached", testHandlePipelineRequestedSpecificationIsCached)
	t.Run("download_rules_are_those_in_force", testHandlePipelineDownloadRulesAreThoseInForce)
	t.Run("unknown_pipeline_is_postponed", testHandlePipelineUnknownPipelineIsPostponed)
	t.Run("failed_postpone_is_an_error", testHandlePipelineFailedPostponeIsAnError)
	t.Run("store_error_is_an_error", testHandlePipelineStoreErrorIsAnError)
	t.Run("cache_is_bounded", testHandlePipelineCacheIsBounded)
}

// otherPipeline returns a pipeline with fewer renditions than the default one.
func otherPipeline() pipeline.Pipeline {
	other := pipeline.Default()
	other.Spec.Renditions = other.Spec.Renditions[2:]
	return other
}

func testHandlePipelineRequestedSpecificationIsCached(t *testing.T) {
	t.Parallel()
	other := otherPipeline()
	w := newFixture(t)
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
	if want := []string{"pipeline", "begin", "finish", "begin", "finish"}; !slices.Equal(w.calls, want) {
		t.Errorf("called %v, want %v", w.calls, want)
	}
}

func testHandlePipelineDownloadRulesAreThoseInForce(t *testing.T) {
	t.Parallel()
	other := otherPipeline()
	w := newFixture(t)
	requested := w.pipe
	w.lookUp = func(string) ([]byte, error) { return requested.Document(), nil }
	render := w.render
	w.render = func(ctx context.Context, body []byte, spec pipeline.Spec) (media.Rendered, error) {
		if len(spec.Renditions) != len(requested.Spec.Renditions) || spec.Limits != requested.Spec.Limits {
			t.Errorf("rendered by %+v, want the requested specification", spec)
		}
		return render(ctx, body, spec)
	}
	w.pipe = other
	w.pipe.Spec.Limits.MaxBytes = 2048
	w.pipe.Spec.Fetch.MaxRedirects, w.pipe.Spec.Retry.MaxAttempts = 9, 77
	w.recordErr = func(method string) error {
		if method == "finish" {
			return media.Fail(media.Timeout, "slow", nil)
		}
		return nil
	}
	if err := w.Handle(t.Context(), w.messageFor(requested.Hash())); err != nil {
		t.Fatal(err)
	}
	if w.rules.MaxRedirects != 9 || w.policy.MaxAttempts != 77 || w.limit != int64(requested.Spec.Limits.MaxBytes) {
		t.Errorf("fetched by %+v up to %d bytes, retried by %+v", w.rules, w.limit, w.policy)
	}
}

func testHandlePipelineUnknownPipelineIsPostponed(t *testing.T) {
	t.Parallel()
	for _, document := range [][]byte{nil, []byte("kind: Other")} {
		w := newFixture(t)
		if document != nil {
			w.lookUp = func(string) ([]byte, error) { return document, nil }
		}
		if err := w.Handle(t.Context(), w.messageFor("unknown")); err != nil {
			t.Fatal(err)
		}
		codes := w.deferredFor()
		if w.calls[len(w.calls)-1] != "postpone" || !slices.Equal(codes, []any{string(media.PipelineUnknown)}) ||
			slices.Contains(w.calls, "begin") {
			t.Errorf("called %v with %v", w.calls, codes)
		}
	}
}

func testHandlePipelineFailedPostponeIsAnError(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	down := errors.New("down")
	w.recordErr = func(string) error { return down }
	if err := w.Handle(t.Context(), w.messageFor("unknown")); !errors.Is(err, down) {
		t.Errorf("got %v, want the failure", err)
	}
	w.recordErr = func(string) error { return catalog.ErrSuperseded }
	if err := w.Handle(t.Context(), w.messageFor("unknown")); err != nil {
		t.Errorf("a superseded request: got %v, want none", err)
	}
}

func testHandlePipelineStoreErrorIsAnError(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.lookUp = func(string) ([]byte, error) { return nil, errors.New("down") }
	if err := w.Handle(t.Context(), w.messageFor("unknown")); err == nil {
		t.Error("got no error")
	}
}

func testHandlePipelineCacheIsBounded(t *testing.T) {
	t.Parallel()
	other := otherPipeline()
	w := newFixture(t)
	w.lookUp = func(string) ([]byte, error) { return other.Document(), nil }
	for i := range 200 {
		if err := w.Handle(t.Context(), w.messageFor(fmt.Sprint("hash-", i))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHostSlot(t *testing.T) {
	t.Parallel()
	t.Run("download_above_the_limit_is_postponed", testHostSlotDownloadAboveTheLimitIsPostponed)
	t.Run("names_of_a_domain_share_the_limit", testHostSlotNamesOfADomainShareTheLimit)
	t.Run("job_waits_for_a_slot", testHostSlotJobWaitsForASlot)
}

func testHostSlotDownloadAboveTheLimitIsPostponed(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.pipe.Spec.Fetch.PerHost = 1
	fetching, proceed := make(chan struct{}), make(chan struct{})
	w.fetch = func(context.Context, string) (worker.Download, error) {
		fetching <- struct{}{}
		<-proceed
		return worker.Download{Body: []byte("source")}, nil
	}
	first := make(chan error, 1)
	go func() { first <- w.Handle(t.Context(), w.message()) }()
	<-fetching
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"begin", "postpone"}; !slices.Equal(w.calls, want) || w.postponed.JobID != "job-1" ||
		!slices.Equal(w.deferredFor(), []any{string(media.HostBusy)}) {
		t.Errorf("called %v with %v, want the second postponed before it begins", w.calls, w.deferredFor())
	}
	if w.wait != time.Second {
		t.Errorf("postponed by %s, want BusyDelay", w.wait)
	}
	rendering, finish := make(chan struct{}), make(chan struct{})
	render := w.render
	w.render = func(ctx context.Context, body []byte, spec pipeline.Spec) (media.Rendered, error) {
		rendering <- struct{}{}
		<-finish
		return render(ctx, body, spec)
	}
	close(proceed)
	<-rendering // the download has ended: the host slot is free
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

func testHostSlotNamesOfADomainShareTheLimit(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.pipe.Spec.Fetch.PerHost = 2
	fetching, proceed := make(chan struct{}), make(chan struct{})
	w.fetch = func(context.Context, string) (worker.Download, error) {
		fetching <- struct{}{}
		<-proceed
		return worker.Download{Body: []byte("source")}, nil
	}
	handle := func(url string) error {
		return w.Handle(t.Context(), event.New("job-1", "1", event.ImageRequested{
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
		"http://x@example.com/", "https://www.example.com/",
	} {
		if err := handle(url); err != nil || len(w.calls) != 3+i || w.calls[2+i] != "postpone" {
			t.Errorf("%s: called %v (%v), want it postponed", url, w.calls, err)
		}
	}
	begin("https://www.example.org/")
	close(proceed)
	all.Wait()
}

// The second job finds the only slot of its host in use, waits, and is processed without being postponed.
func testHostSlotJobWaitsForASlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		w.pipe.Spec.Fetch.PerHost = 1
		cfg := workerConfig()
		cfg.SlotWait = time.Minute
		w.Worker = worker.New(w.deps, cfg, prometheus.NewRegistry())
		w.fetch = func(context.Context, string) (worker.Download, error) {
			<-time.After(10 * time.Second)
			return worker.Download{Body: []byte("source")}, nil
		}
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := w.Handle(t.Context(), w.message()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		slices.Sort(w.calls)
		if want := []string{"begin", "begin", "begin", "finish", "finish", "finish"}; !slices.Equal(w.calls, want) {
			t.Errorf("called %v, want %v", w.calls, want)
		}
	})
}

// TestSourceIsDropped checks that the memory of a source is released after rendering and not before.
func TestSourceIsDropped(t *testing.T) {
	t.Parallel()
	broken := func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) {
		return media.Rendered{}, media.Fail(media.Corrupt, "damaged", nil)
	}
	cases := map[string]struct {
		render func(context.Context, []byte, pipeline.Spec) (media.Rendered, error)
		last   string // expected last call of the catalogue
	}{
		"rendered": {nil, "finish"},
		"failed":   {broken, "fail"},
		"panicked": {func(context.Context, []byte, pipeline.Spec) (media.Rendered, error) { panic("codec") }, "begin"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t)
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
					t.Error("renditions are stored before the source is dropped")
				}
				return nil
			}
			func() {
				defer func() { _ = recover() }()
				if err := w.Handle(t.Context(), w.message()); err != nil {
					t.Error(err)
				}
			}()
			if dropped.Load() == 0 || w.calls[len(w.calls)-1] != c.last {
				t.Errorf("dropped %d times, called %v, want %s last", dropped.Load(), w.calls, c.last)
			}
			if c.last == "finish" && w.result.SourceBytes != 6 {
				t.Errorf("the result has %d bytes, want 6", w.result.SourceBytes)
			}
		})
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	t.Run("running_attempt_is_released", testStopRunningAttemptIsReleased)
	t.Run("permanent_failure_is_recorded", testStopPermanentFailureIsRecorded)
	t.Run("failed_release_is_an_error", testStopFailedReleaseIsAnError)
	t.Run("hanging_database_delays_it_by_two_tries", testStopHangingDatabaseDelaysItByTwoTries)
	t.Run("attempt_out_of_time_is_deferred", testStopAttemptOutOfTimeIsDeferred)
}

func testStopRunningAttemptIsReleased(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"fetch", "render", "put"} {
		w := newFixture(t)
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
		if !errors.Is(err, context.Canceled) || !slices.Equal(w.calls, []string{"begin", "release"}) {
			t.Errorf("%s: got %v, called %v", at, err, w.calls)
		}
		stop()
	}
}

func testStopPermanentFailureIsRecorded(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	w.fetch = func(context.Context, string) (worker.Download, error) {
		stop()
		return worker.Download{}, media.Fail(media.HTTPStatus, "404", nil)
	}
	if err := w.Handle(ctx, w.message()); err != nil || w.calls[1] != "fail" {
		t.Errorf("got %v, called %v", err, w.calls)
	}
}

func testStopFailedReleaseIsAnError(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	ctx, stop := context.WithCancel(t.Context())
	w.fetch = func(ctx context.Context, _ string) (worker.Download, error) {
		stop()
		return worker.Download{}, ctx.Err()
	}
	w.recordErr = func(string) error { return errors.New("down") }
	if err := w.Handle(ctx, w.message()); err == nil {
		t.Error("got no error")
	}
	stop()
}

func testStopHangingDatabaseDelaysItByTwoTries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		ctx, stop := context.WithCancel(t.Context())
		var stopped time.Time
		hang := func(ctx context.Context, method string) error {
			if method == "finish" && stopped.IsZero() {
				stopped = time.Now()
				stop()
			}
			<-ctx.Done()
			return fault.Wrap(ctx.Err(), fault.Unavailable, "database_unavailable", "down")
		}
		w.deps.Catalog = hangingCatalog{w, hang}
		w.Worker = worker.New(w.deps, workerConfig(), prometheus.NewRegistry())
		if err := w.Handle(ctx, w.message()); err == nil {
			t.Error("got no error, want one: the attempt is neither finished nor released")
		}
		// cmd/worker depends on this when it compares the settings with the rebalance timeout.
		if elapsed, limit := time.Since(stopped), 2*workerConfig().OutcomeTimeout; elapsed > limit {
			t.Errorf("ended %s after the stop, want at most %s", elapsed, limit)
		}
	})
}

func testStopAttemptOutOfTimeIsDeferred(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		w.render = func(ctx context.Context, _ []byte, _ pipeline.Spec) (media.Rendered, error) {
			<-ctx.Done() // no codec process becomes free
			return media.Rendered{}, ctx.Err()
		}
		if err := w.Handle(t.Context(), w.message()); err != nil {
			t.Fatal(err)
		}
		if w.failure == nil || w.failure.Code != media.CodecUnavailable || w.calls[1] != "defer" {
			t.Errorf("called %v with %v", w.calls, w.failure)
		}
	})
}

func TestIsolation(t *testing.T) {
	t.Parallel()
	t.Run("no_other_attempt_runs", testIsolationNoOtherAttemptRuns)
	t.Run("attempt_that_waits_too_long_is_released", testIsolationAttemptThatWaitsTooLongIsReleased)
}

func testIsolationNoOtherAttemptRuns(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	var mu sync.Mutex
	running, maxRunning, isolated := 0, 0, false
	begin := w.begin
	w.begin = func(ctx context.Context, r catalog.Job) (catalog.Attempt, error) {
		a, err := begin(ctx, r)
		a.Isolated = r.ImageID == 99
		if a.Isolated {
			a.SourceURL = "isolated"
		}
		return a, err
	}
	w.fetch = func(_ context.Context, url string) (worker.Download, error) {
		mu.Lock()
		running++
		if isolated = isolated || url == "isolated"; isolated {
			maxRunning = max(maxRunning, running)
		}
		mu.Unlock()
		for range 20 {
			runtime.Gosched() // let other attempts start
		}
		defer func() { mu.Lock(); running--; isolated = isolated && url != "isolated"; mu.Unlock() }()
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
	if maxRunning != 1 {
		t.Errorf("%d attempts ran beside an isolated one", maxRunning)
	}
}

func testIsolationAttemptThatWaitsTooLongIsReleased(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newFixture(t)
		proceed := make(chan struct{})
		w.fetch = func(context.Context, string) (worker.Download, error) {
			<-proceed
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
			t.Error("got no error for a released request")
		}
		if w.calls[len(w.calls)-1] != "release" {
			t.Errorf("called %v, want a release", w.calls)
		}
		close(proceed)
		synctest.Wait()
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
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
		if fields["product_id"] != int64(1) || fields["image_id"] != int64(2) || fields["event_id"] != "job-1" ||
			fields["duration"] == nil || fields["trace_id"] != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("%q has fields %v", message, fields)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	if got := len(worker.Config{Concurrency: -1}.Validate()); got != 7 {
		t.Errorf("got %d wrong fields, want 7", got)
	}
	cfg := worker.Config{
		Concurrency: 1, StoreTimeout: 1, OutcomeTimeout: 1, DeferDelay: 1, SlotWait: 1, BusyDelay: 1, CanaryKeep: 1 + time.Second,
	}
	if got := cfg.Validate(); got != nil {
		t.Errorf("got %v, want none", got)
	}
	cfg.CanaryKeep--
	if got := cfg.Validate(); len(got) != 1 || got[0].Path != "CANARY_KEEP" {
		t.Errorf("got %v, want that the objects of a canary are kept too briefly", got)
	}
}
