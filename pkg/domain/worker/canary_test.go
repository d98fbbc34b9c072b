package worker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/catalogtest"
)

// samples are fake samples, of which every attempt is begun and recorded.
type samples struct {
	*fixture
	attempt  backfill.SampleAttempt
	beginErr error
	endErr   error

	begun     int
	keep      time.Duration
	state     backfill.SampleState
	outcome   backfill.SampleOutcome
	postponed string // attempt, delay, and whether it counts
}

// newSamples returns a worker with a sample of an image that has a present rendition as JPEG in two sizes.
func newSamples(t *testing.T) *samples {
	t.Helper()
	s := &samples{fixture: newFixture(t)}
	s.attempt = backfill.SampleAttempt{
		ID: "sample-1", BackfillID: 5, ImageID: 2, ProductID: 1, Number: 1, Prefix: "canary/5/2-x/",
		SourceURL: "https://example.com/a.jpg", SourceSHA256: "ab", MadeBy: s.pipe.Hash(),
		Renditions: []catalog.Rendition{
			{Name: "full", Format: pipeline.JPEG, Width: 30, Height: 20, Bytes: 10, Key: "products/1/2/1-x/full.jpg", Default: true},
			{Name: "gone", Format: pipeline.JPEG, Width: 7, Height: 5, Bytes: 3, Key: "products/1/2/1-x/gone.jpg"},
		},
	}
	s.read = func(key string, limit int64) ([]byte, error) {
		if key != "products/1/2/1-x/full.jpg" || limit != 10 {
			t.Errorf("read %d bytes of %s", limit, key)
		}
		return []byte("0123456789"), nil
	}
	render := s.render
	s.render = func(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
		out, err := render(ctx, source, spec)
		out.CPU = 1500 * time.Millisecond
		return out, err
	}
	s.compare = func(files []media.Comparison) ([]media.Score, error) {
		found := make([]media.Score, len(files))
		for i, f := range files {
			found[i] = media.Score{Value: float64(60 + len(f.Body)), OK: true}
		}
		return found, nil
	}
	s.deps.Samples = s
	s.reg = prometheus.NewRegistry()
	s.Worker = worker.New(s.deps, workerConfig(), s.reg)
	return s
}

func (s *samples) BeginSample(_ context.Context, id string, budget, keep time.Duration) (backfill.SampleAttempt, error) {
	if id != "sample-1" || budget < time.Minute {
		return backfill.SampleAttempt{}, fmt.Errorf("began %s for %s", id, budget)
	}
	if len(s.objects) > 0 {
		return backfill.SampleAttempt{}, errors.New("objects were stored before the deletion was scheduled")
	}
	s.begun++
	s.keep = keep
	return s.attempt, s.beginErr
}

func (s *samples) EndSample(_ context.Context, a backfill.SampleAttempt, state backfill.SampleState,
	o backfill.SampleOutcome,
) error {
	if a.Prefix != s.attempt.Prefix {
		return fmt.Errorf("ended %+v", a)
	}
	s.state, s.outcome = state, o
	return s.endErr
}

func (s *samples) PostponeSample(ctx context.Context, a backfill.SampleAttempt, delay time.Duration, counts bool) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.postponed = fmt.Sprintf("%s%s for %s, counts %v", a.ID, a.Prefix, delay, counts)
	return s.endErr
}

func (s *samples) message() event.Message {
	return event.New("sample-1", "1", event.ImageCanary{
		ProductID: 1, ImageID: 2, SourceURL: "https://example.com/a.jpg", PipelineHash: s.pipe.Hash(), BackfillID: 5,
	})
}

func (s *samples) handle(t *testing.T) {
	t.Helper()
	if err := s.Handle(t.Context(), s.message()); err != nil {
		t.Fatal(err)
	}
}

func TestHandleSample(t *testing.T) {
	t.Parallel()
	t.Run("renditions_are_stored_and_compared", testSampleIsCompared)
	t.Run("changed_source_is_not_rendered", testSampleChanged)
	t.Run("image_without_renditions_is_not_scored", testSampleWithoutRenditions)
	t.Run("outcome_follows_the_class_of_the_code", testSampleOutcomes)
	t.Run("files_that_cannot_be_compared_have_no_score", testSampleNotComparable)
	t.Run("missing_rendition_is_not_compared", testSampleMissingRendition)
	t.Run("ended_sample_is_skipped_and_an_error_delivers_again", testSampleErrors)
	t.Run("stopped_attempt_is_given_back", testSampleStopped)
	t.Run("outcomes_are_counted_apart", testSampleMetrics)
}

func testSampleIsCompared(t *testing.T) {
	t.Parallel()
	s := newSamples(t)
	compare := s.compare
	s.compare = func(files []media.Comparison) ([]media.Score, error) {
		if len(files) != 2 || files[0].Rendition.Width != 1600 || files[1].Rendition.Width != 1600 {
			t.Errorf("compared %+v", files)
		}
		return compare(files)
	}
	if err := worker.Check(s.message()); err != nil || worker.OrderingKey(s.message()) != "2" {
		t.Errorf("check: %v, ordering key %q", err, worker.OrderingKey(s.message()))
	}
	s.handle(t)
	want := backfill.SampleOutcome{
		BytesBefore: 13, BytesAfter: 12, Scored: true, ScoreBefore: 70, ScoreAfter: 64, CPUSeconds: 1.5,
		Example: backfill.SampleFiles{
			KeyBefore: "products/1/2/1-x/full.jpg", KeyAfter: "canary/5/2-x/full.jpg", BytesBefore: 10, BytesAfter: 4,
			ScoreBefore: 70, ScoreAfter: 64,
		},
	}
	if s.state != backfill.SampleDone || s.outcome != want || s.keep != time.Hour {
		t.Errorf("got %s with %+v, kept for %s, want %+v", s.state, s.outcome, s.keep, want)
	}
	objects := map[string]string{
		"canary/5/2-x/full.jpg": "image/jpeg; no-store", "canary/5/2-x/full.webp": "image/webp; no-store",
	}
	if !maps.Equal(s.objects, objects) || len(s.calls) != 0 {
		t.Errorf("got objects %v, called %v", s.objects, s.calls)
	}
}

func testSampleChanged(t *testing.T) {
	t.Parallel()
	s := newSamples(t)
	s.attempt.SourceSHA256 = "cd"
	s.failRender(errors.New("unexpected"))
	s.handle(t)
	if s.state != backfill.SampleChanged || s.outcome != (backfill.SampleOutcome{}) || len(s.objects) != 0 {
		t.Errorf("got %s with %+v", s.state, s.outcome)
	}
}

func testSampleWithoutRenditions(t *testing.T) {
	t.Parallel()
	s := newSamples(t)
	s.attempt.SourceSHA256, s.attempt.Renditions = "", nil
	s.handle(t)
	want := backfill.SampleOutcome{
		BytesAfter: 12, CPUSeconds: 1.5, Example: backfill.SampleFiles{KeyAfter: "canary/5/2-x/full.jpg", BytesAfter: 4},
	}
	if s.state != backfill.SampleDone || s.outcome != want {
		t.Errorf("got %s with %+v, want %+v", s.state, s.outcome, want)
	}
}

func testSampleOutcomes(t *testing.T) {
	t.Parallel()
	for code, class := range media.Codes() {
		for number := 1; number <= 3; number++ {
			s := newSamples(t)
			s.attempt.Number = number
			s.fetch = func(context.Context, string) (worker.Download, error) {
				return worker.Download{}, media.Fail(code, "test", nil)
			}
			s.handle(t)
			if class == media.Permanent || class == media.Transient && number == 3 {
				if s.state != backfill.SampleFailed || s.outcome.Code != code || s.postponed != "" {
					t.Errorf("%s in attempt %d: got %s with %+v, %s", code, number, s.state, s.outcome, s.postponed)
				}
				continue
			}
			if s.state != "" || !strings.HasSuffix(s.postponed, fmt.Sprint("counts ", class == media.Transient)) {
				t.Errorf("%s in attempt %d: got %s, postponed %q", code, number, s.state, s.postponed)
			}
		}
	}
}

func testSampleNotComparable(t *testing.T) {
	t.Parallel()
	for name, compare := range map[string]func(files []media.Comparison) ([]media.Score, error){
		"damaged": func(files []media.Comparison) ([]media.Score, error) { return make([]media.Score, len(files)), nil },
		"crashed": func([]media.Comparison) ([]media.Score, error) {
			return nil, media.Fail(media.CodecCrashed, "test", nil)
		},
	} {
		s := newSamples(t)
		s.attempt.MadeBy = "unknown"
		s.compare = compare
		s.handle(t)
		if o := s.outcome; s.state != backfill.SampleDone || o.Scored || o.BytesBefore != 13 || o.Example.KeyBefore == "" {
			t.Errorf("%s: got %s with %+v", name, s.state, o)
		}
	}
	lost := func([]media.Comparison) ([]media.Score, error) {
		return nil, media.Fail(media.CodecUnavailable, "test", nil)
	}
	s := newSamples(t)
	s.compare = lost
	s.handle(t)
	if s.state != "" || !strings.HasSuffix(s.postponed, "counts true") { // it has stored objects
		t.Errorf("without a codec: got %s, postponed %q", s.state, s.postponed)
	}
	s = newSamples(t)
	s.compare, s.attempt.Number = lost, 3
	s.handle(t)
	if s.state != backfill.SampleFailed || s.outcome.Code != media.CodecUnavailable || s.postponed != "" {
		t.Errorf("at last: got %s with %+v, postponed %q", s.state, s.outcome, s.postponed)
	}
}

func testSampleMissingRendition(t *testing.T) {
	t.Parallel()
	s := newSamples(t)
	s.read = func(string, int64) ([]byte, error) { return nil, fault.New(fault.NotFound, "object_not_found", "no") }
	s.handle(t)
	if o := s.outcome; s.state != backfill.SampleDone || o.Scored || o.BytesAfter != 12 || o.Example.KeyBefore != "" {
		t.Errorf("got %s with %+v", s.state, o)
	}
}

func testSampleErrors(t *testing.T) {
	t.Parallel()
	s := newSamples(t)
	s.beginErr = catalog.ErrDone
	s.handle(t)
	if s.state != "" || len(s.objects) != 0 {
		t.Errorf("an ended sample has got %s", s.state)
	}
	s = newSamples(t)
	s.endErr = catalog.ErrSuperseded
	s.handle(t)
	down := fault.New(fault.Unavailable, "database_unavailable", "down")
	for _, at := range []string{"begin", "end", "postpone"} {
		s := newSamples(t)
		switch at {
		case "begin":
			s.beginErr = down
		case "postpone":
			s.failPut(errors.New("down"))
			fallthrough
		default:
			s.endErr = down
		}
		if err := s.Handle(t.Context(), s.message()); !errors.Is(err, down) {
			t.Errorf("%s: got %v, want the error", at, err)
		}
	}
	bad := s.message()
	bad.Body = []byte(`{"product_id":1}`)
	if worker.Check(bad) == nil || s.Handle(t.Context(), bad) == nil {
		t.Error("a malformed sample is accepted")
	}
}

func testSampleStopped(t *testing.T) {
	t.Parallel()
	s := newSamples(t)
	ctx, stop := context.WithCancel(t.Context())
	s.fetch = func(ctx context.Context, _ string) (worker.Download, error) {
		stop()
		return worker.Download{}, ctx.Err()
	}
	if err := s.Handle(ctx, s.message()); err != nil || s.postponed != "sample-1canary/5/2-x/ for 0s, counts false" {
		t.Errorf("got %v, postponed %q", err, s.postponed)
	}
}

func testSampleMetrics(t *testing.T) {
	t.Parallel()
	s := newSamples(t)
	s.handle(t)
	clear(s.objects)
	s.attempt.SourceSHA256 = "cd"
	s.handle(t)
	want := `# HELP vitrine_worker_canary_outcomes_total Handled samples of canaries by outcome and error code (empty if ready).
# TYPE vitrine_worker_canary_outcomes_total counter
vitrine_worker_canary_outcomes_total{code="",outcome="changed"} 1
vitrine_worker_canary_outcomes_total{code="",outcome="ready"} 1
`
	if err := testutil.GatherAndCompare(s.reg, strings.NewReader(want), "vitrine_worker_canary_outcomes_total"); err != nil {
		t.Error(err)
	}
	for _, other := range []string{"vitrine_worker_outcomes_total", "vitrine_worker_backfill_outcomes_total"} {
		if got := catalogtest.Metric(t, s.reg, other); got != 0 {
			t.Errorf("%s counts %v", other, got)
		}
	}
}
