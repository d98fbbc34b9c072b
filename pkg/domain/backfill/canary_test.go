package backfill_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

func TestCanary(t *testing.T) {
	t.Parallel()
	t.Run("report_has_all_outcomes_and_samples_are_dropped_after_it_is_saved", testCanaryReport)
	t.Run("step_that_was_not_saved_is_repeated", testCanaryUnsavedStep)
	t.Run("error_is_repeated_after_the_lease", testCanaryError)
	t.Run("samples_in_flight_are_bounded_and_lost_ones_sent_again", testCanaryInFlight)
	t.Run("samples_without_an_outcome_are_lost_in_the_end", testCanaryTimeout)
	t.Run("suspended_backfill_sends_none", testCanarySuspended)
	t.Run("approval_and_end_stop_it", testCanaryStopped)
	t.Run("start_checks_manager_state_and_number", testCanaryStart)
	t.Run("cpu_time_of_the_backfill_follows_from_it", testCanaryCPU)
	t.Run("image_without_renditions_is_an_example_without_a_url_before", testCanaryExample)
}

const canaryTimeout = 6 * time.Hour

// newCanary returns a walk of images with a proposed backfill that has a running canary of as many samples.
func newCanary(t *testing.T, images catalog.ImageID) *walk {
	t.Helper()
	w := newWalk(t, images, func(*backfill.Pace) {})
	w.set(func(b *backfill.Backfill) { b.State = backfill.Proposed })
	if _, err := w.manager(backfill.CLI).StartCanary(t.Context(), w.name, int(images)); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *walk) manager(by backfill.ManagedBy) backfill.Manager {
	return backfill.Manager{By: by, ManagerDeps: backfill.ManagerDeps{
		Backfills: w.memory, Images: w.fakeImages, Sampler: w.fakeImages, Canaries: w.memory,
	}}
}

// sent returns how many samples have been sent and have no outcome.
func (w *walk) sent() int {
	w.Helper()
	list, err := w.Samples(w.Context(), w.id)
	if err != nil {
		w.Fatal(err)
	}
	return len(slices.DeleteFunc(list, func(s backfill.CanarySample) bool { return s.State != backfill.SampleSent }))
}

// outcome returns the outcome of a sample with a gain of the score.
func sampleOutcome(image catalog.ImageID, gain float64) backfill.SampleOutcome {
	return backfill.SampleOutcome{
		BytesBefore: 100, BytesAfter: 90, Scored: true, ScoreBefore: 70, ScoreAfter: 70 + gain, CPUSeconds: 0.5,
		Example: backfill.SampleFiles{
			KeyBefore: fmt.Sprint("b", image), KeyAfter: fmt.Sprint("a", image), BytesBefore: 50, BytesAfter: 45,
			ScoreBefore: 70, ScoreAfter: 70 + gain,
		},
	}
}

func testCanaryReport(t *testing.T) {
	t.Parallel()
	w := newCanary(t, 10)
	if c := w.step().Canary; c.State != backfill.CanaryRunning || c.Samples != 10 || c.Done+c.Failed != 0 || w.sent() != 10 {
		t.Errorf("after the first step: %+v, %d sent", c, w.sent())
	}
	for id := catalog.ImageID(1); id <= 7; id++ {
		w.endSample(w.id, id, backfill.SampleDone, sampleOutcome(id, float64(id)))
	}
	w.endSample(w.id, 8, backfill.SampleChanged, backfill.SampleOutcome{})
	w.endSample(w.id, 9, backfill.SampleFailed, backfill.SampleOutcome{Code: media.HTTPStatus})
	if c := w.step().Canary; c.State != backfill.CanaryRunning || c.Done != 7 || c.Changed != 1 || c.Failed != 1 {
		t.Errorf("with one left: %+v", c)
	}
	unscored := sampleOutcome(10, 0)
	unscored.Scored, unscored.ScoreBefore = false, 1000
	w.endSample(w.id, 10, backfill.SampleDone, unscored)
	c := w.step().Canary
	if c.State != backfill.CanaryComplete || c.Done != 8 || c.Scored != 7 || c.BytesBefore != 800 || c.BytesAfter != 720 ||
		c.ScoreBefore != 70 || c.ScoreAfter != 74 || c.CPUSeconds != 4 || c.Failures[media.HTTPStatus] != 1 || c.EndedAt.IsZero() {
		t.Errorf("got %+v", c)
	}
	var examples []catalog.ImageID
	for _, e := range c.Examples {
		examples = append(examples, e.ImageID)
	}
	if !slices.Equal(examples, []catalog.ImageID{10, 1, 2, 3, 4}) {
		t.Errorf("the examples are %v, want those whose score gains least", examples)
	}
	want := backfill.CanaryExample{
		ImageID: 1, Before: "https://img/b1", After: "https://img/a1", BytesBefore: 50, BytesAfter: 45,
		ScoreBefore: 70, ScoreAfter: 71,
	}
	if c.Examples[1] != want {
		t.Errorf("an example is %+v, want %+v", c.Examples[1], want)
	}
	for range 3 {
		if again := w.step().Canary; again.Done != 8 || len(w.samples[w.id]) != 0 {
			t.Errorf("later: %+v, %d samples", again, len(w.samples[w.id]))
		}
	}
	if len(w.jobs)+len(w.events) != 0 {
		t.Errorf("%d jobs and %d events of a backfill that is not approved", len(w.jobs), len(w.events))
	}
}

func testCanaryUnsavedStep(t *testing.T) {
	t.Parallel()
	w := newCanary(t, 3)
	w.step()
	for id := catalog.ImageID(1); id <= 3; id++ {
		w.endSample(w.id, id, backfill.SampleDone, sampleOutcome(id, 1))
	}
	w.onInForce = func() { // an edit ends the lease: nothing of the step is saved
		w.onInForce = nil
		w.set(func(*backfill.Backfill) {})
	}
	w.now = w.now.Add(time.Second)
	if walk, acquired, err := w.AcquireWalk(t.Context(), time.Minute); !acquired || err != nil || !walk.Sampled {
		t.Fatalf("acquired %v, %v", acquired, err) // by a process that crashes
	}
	w.step()
	if c := w.current().Canary; c.State != backfill.CanaryRunning {
		t.Errorf("during the lease of another: %+v", c)
	}
	w.now = w.now.Add(time.Minute)
	for range 3 {
		w.step()
	}
	if c := w.current().Canary; c.State != backfill.CanaryComplete || c.Done != 3 || len(w.samples[w.id]) != 0 {
		t.Errorf("got %+v, %d samples", c, len(w.samples[w.id]))
	}
}

func testCanaryError(t *testing.T) {
	t.Parallel()
	w := newCanary(t, 2)
	w.sampleErr = errors.New("down")
	w.now = w.now.Add(time.Second)
	if err := w.walker.Step(t.Context()); !errors.Is(err, w.sampleErr) {
		t.Errorf("got %v", err)
	}
	w.sampleErr = nil
	w.step()
	for id := catalog.ImageID(1); id <= 2; id++ {
		w.endSample(w.id, id, backfill.SampleDone, sampleOutcome(id, 1))
	}
	if c := w.step().Canary; c.State != backfill.CanaryComplete {
		t.Errorf("got %+v", c)
	}
	w.sampleErr = errors.New("down")
	w.now = w.now.Add(time.Second)
	if err := w.walker.Step(t.Context()); !errors.Is(err, w.sampleErr) {
		t.Errorf("the drop: got %v", err)
	}
}

func testCanaryInFlight(t *testing.T) {
	t.Parallel()
	w := newCanary(t, 200)
	w.step()
	if w.step(); w.sent() != 50 {
		t.Errorf("%d samples are in flight, want 50", w.sent())
	}
	w.now = w.now.Add(2 * time.Hour) // they are lost
	w.endSample(w.id, 1, backfill.SampleDone, sampleOutcome(1, 1))
	if w.step(); w.sent() != 50 {
		t.Errorf("%d samples are in flight, want 49 again and another one", w.sent())
	}
	slow := newCanary(t, 20)
	slow.set(func(b *backfill.Backfill) { b.MaxInFlight = 3 })
	if slow.step(); slow.sent() != 3 {
		t.Errorf("%d samples are in flight, want those that the pace allows", slow.sent())
	}
}

func testCanaryTimeout(t *testing.T) {
	t.Parallel()
	w := newCanary(t, 3)
	w.step()
	w.endSample(w.id, 2, backfill.SampleDone, sampleOutcome(2, 1))
	w.now = w.now.Add(canaryTimeout)
	c := w.step().Canary
	if c.State != backfill.CanaryComplete || c.Done != 1 || c.Failed != 2 || c.Failures[backfill.SampleLost] != 2 {
		t.Errorf("got %+v", c)
	}
}

func testCanarySuspended(t *testing.T) {
	t.Parallel()
	w := newCanary(t, 3)
	w.set(func(b *backfill.Backfill) { b.Suspended = backfill.ByOperator })
	if w.step(); w.sent() != 0 {
		t.Errorf("%d samples were sent", w.sent())
	}
	w.now = w.now.Add(canaryTimeout - time.Minute)
	w.step()
	w.set(func(b *backfill.Backfill) { b.Suspended = backfill.NotSuspended })
	if w.step(); w.sent() != 3 {
		t.Errorf("%d samples were sent", w.sent())
	}
	w.now = w.now.Add(canaryTimeout - time.Minute)
	if c := w.step().Canary; c.State != backfill.CanaryRunning {
		t.Errorf("after the time of the suspension: got %+v", c)
	}
}

func testCanaryStopped(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(w *walk){
		"approved": func(w *walk) {
			if _, err := w.manager(backfill.CLI).Approve(t.Context(), w.name, target); err != nil {
				t.Error(err)
			}
		},
		"cancelled": func(w *walk) {
			if _, err := w.manager(backfill.CLI).Cancel(t.Context(), w.name); err != nil {
				t.Error(err)
			}
		},
		"superseded": func(w *walk) { w.set(func(b *backfill.Backfill) { b.State = backfill.Superseded }) },
	} {
		w := newCanary(t, 3)
		w.inForce = nil
		w.step()
		w.endSample(w.id, 2, backfill.SampleDone, sampleOutcome(2, 1))
		w.step()
		stop(w)
		w.step()
		w.step()
		c := w.current().Canary
		if c.State != backfill.CanaryStopped || c.Done != 1 || c.EndedAt.IsZero() || len(w.samples[w.id]) != 0 {
			t.Errorf("%s: got %+v, %d samples", name, c, len(w.samples[w.id]))
		}
	}
}

func testCanaryStart(t *testing.T) {
	t.Parallel()
	w := newCanary(t, 3)
	start := func(by backfill.ManagedBy, samples int) error {
		_, err := w.manager(by).StartCanary(t.Context(), w.name, samples)
		return err
	}
	if err := start(backfill.CLI, 3); !fault.Is(err, fault.Conflict) {
		t.Errorf("while one is running: %v", err)
	}
	w.set(func(b *backfill.Backfill) { b.Canary.State = backfill.CanaryComplete })
	for _, samples := range []int{0, backfill.MaxSamples + 1} {
		if err := start(backfill.CLI, samples); !fault.Is(err, fault.Invalid) || fault.From(err).Fields[0].Path != "samples" {
			t.Errorf("%d samples: %v", samples, err)
		}
	}
	if err := start(backfill.CLI, 2); err != nil || len(w.samples[w.id]) != 2 || w.current().Canary.Samples != 2 {
		t.Errorf("again: %v, %d samples", err, len(w.samples[w.id]))
	}
	w.set(func(b *backfill.Backfill) { b.Canary.State, b.ManagedBy = backfill.CanaryComplete, backfill.Resource })
	if err := start(backfill.CLI, 2); !fault.Is(err, fault.Conflict) {
		t.Errorf("of a resource: %v", err)
	}
	if err := start(backfill.Resource, 2); err != nil {
		t.Errorf("of a resource by its controller: %v", err)
	}
	w.set(func(b *backfill.Backfill) { b.State, b.ManagedBy = backfill.Running, backfill.CLI })
	if err := start(backfill.CLI, 2); !fault.Is(err, fault.Conflict) {
		t.Errorf("of a running backfill: %v", err)
	}
	w.set(func(b *backfill.Backfill) { b.State, b.Canary.State = backfill.Proposed, backfill.CanaryComplete })
	w.last = 0
	if err := start(backfill.CLI, 2); !fault.Is(err, fault.Conflict) {
		t.Errorf("without images: %v", err)
	}
}

func testCanaryCPU(t *testing.T) {
	t.Parallel()
	b := backfill.Backfill{Plan: backfill.Plan{Images: backfill.Estimate{Value: 1000, Error: 10}}}
	if _, ok := b.CPUSeconds(); ok {
		t.Error("it is known without a canary")
	}
	b.Canary = backfill.Canary{Done: 4, CPUSeconds: 2}
	if e, ok := b.CPUSeconds(); !ok || e != (backfill.Estimate{Value: 500, Error: 5}) {
		t.Errorf("got %+v, %v", e, ok)
	}
	b.OnMissing, b.Plan.NoOriginal = backfill.SkipMissing, backfill.Estimate{Value: 600}
	if e, _ := b.CPUSeconds(); e != (backfill.Estimate{Value: 200, Error: 5}) {
		t.Errorf("with skipped images: got %+v", e)
	}
}

func testCanaryExample(t *testing.T) {
	t.Parallel()
	w := newCanary(t, 1)
	w.step()
	w.endSample(w.id, 1, backfill.SampleDone, backfill.SampleOutcome{
		BytesAfter: 5, Example: backfill.SampleFiles{KeyAfter: "a", BytesAfter: 5},
	})
	c := w.step().Canary
	want := backfill.CanaryExample{ImageID: 1, After: "https://img/a", BytesAfter: 5}
	if len(c.Examples) != 1 || c.Examples[0] != want || c.ScoreAfter != 0 || c.Scored != 0 {
		t.Errorf("got %+v", c)
	}
}
