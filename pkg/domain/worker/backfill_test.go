package worker_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/slots"
	"vitrine.io/pkg/test/catalogtest"
)

// backfill returns the job of a backfill for image 2 of product 1.
func (w *fixture) backfill() event.Message {
	return event.New("job-1", "1", event.ImageBackfill{
		ProductID: 1, ImageID: 2, SourceURL: "https://example.com/a.jpg", PipelineHash: w.pipe.Hash(), BackfillID: 5,
	})
}

func TestHandleBackfill(t *testing.T) {
	t.Parallel()
	t.Run("job_is_handled_as_others_are", testBackfillIsHandled)
	t.Run("outcomes_are_counted_apart", testBackfillOutcomes)
	t.Run("half_of_a_hosts_slots_stay_free", testBackfillHostSlots)
}

func testBackfillIsHandled(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	var job catalog.Job
	begin := w.begin
	w.begin = func(ctx context.Context, j catalog.Job) (catalog.Attempt, error) {
		job = j
		return begin(ctx, j)
	}
	m := w.backfill()
	if err := worker.Check(m); err != nil || worker.OrderingKey(m) != worker.OrderingKey(w.message()) {
		t.Errorf("check: %v, ordering key %q", err, worker.OrderingKey(m))
	}
	if err := w.Handle(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if job != (catalog.Job{ProductID: 1, ImageID: 2, JobID: "job-1", BackfillID: 5}) {
		t.Errorf("began %+v", job)
	}
	if w.result.OutputHash != w.pipe.Spec.OutputHash() || len(w.result.Renditions) != 3 {
		t.Errorf("finished with %+v", w.result)
	}
	m.Body = []byte(`{"product_id":1,"image_id":2,"pipeline_hash":"h"}`)
	if err := worker.Check(m); err == nil {
		t.Error("a job without its backfill is accepted")
	}
}

func testBackfillOutcomes(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	if err := w.Handle(t.Context(), w.backfill()); err != nil {
		t.Fatal(err)
	}
	w.fetch = func(context.Context, string) (worker.Download, error) {
		return worker.Download{}, media.Fail(media.HTTPStatus, "404", nil)
	}
	if err := w.Handle(t.Context(), w.backfill()); err != nil {
		t.Fatal(err)
	}
	want := `# HELP vitrine_worker_backfill_outcomes_total Handled jobs of backfills by outcome and error code (empty if ready).
# TYPE vitrine_worker_backfill_outcomes_total counter
vitrine_worker_backfill_outcomes_total{code="",outcome="ready"} 1
vitrine_worker_backfill_outcomes_total{code="http_status",outcome="failed"} 1
`
	if err := testutil.GatherAndCompare(w.reg, strings.NewReader(want), "vitrine_worker_backfill_outcomes_total"); err != nil {
		t.Error(err)
	}
	if got := catalogtest.Metric(t, w.reg, "vitrine_worker_outcomes_total"); got != 0 {
		t.Errorf("%v outcomes are counted with those of others", got)
	}
}

func testBackfillHostSlots(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.pipe.Spec.Fetch.PerHost = 4
	w.deps.Hosts = slots.New[string]()
	w.Worker = worker.New(w.deps, workerConfig(), prometheus.NewRegistry())
	for range 2 {
		if _, ok := w.deps.Hosts.TryAcquire("example.com", 4); !ok {
			t.Fatal("no slot")
		}
	}
	if err := w.Handle(t.Context(), w.backfill()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"postpone"}; !slices.Equal(w.calls, want) || w.postponed.BackfillID != 5 {
		t.Errorf("called %v, want the job postponed while half of the slots are in use", w.calls)
	}
	if err := w.Handle(t.Context(), w.message()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"postpone", "begin", "finish"}; !slices.Equal(w.calls, want) {
		t.Errorf("called %v, want the other job processed", w.calls)
	}
}
