package backfill_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/test/catalogtest"
)

const target = "target"

// fakeImages are images with the ids from 1 to last, and the jobs that a walk gives them.
type fakeImages struct {
	*memory
	last    catalog.ImageID
	done    map[catalog.ImageID]bool
	jobs    map[catalog.ImageID]bool
	busy    int
	rows    []int  // Limit.Rows of each search
	skip    []bool // BackfillRequest.SkipMissing of each request
	err     error  // of every request, or those of errOf
	errOf   catalog.ImageID
	lostFor []time.Duration
}

func (f *fakeImages) Candidates(_ context.Context, b backfill.Backfill, _ map[string]string, limit backfill.Limit,
) (backfill.Candidates, error) {
	f.rows = append(f.rows, limit.Rows)
	c := backfill.Candidates{Busy: f.busy}
	for id := b.Cursor + 1; id <= f.last; id++ {
		if !f.done[id] && !f.jobs[id] {
			c.Images = append(c.Images, backfill.ImageRef{ProductID: 1, ImageID: id})
		}
		if len(c.Images) == limit.Images || id == b.Cursor+catalog.ImageID(limit.Rows) {
			c.Next = id
			break
		}
	}
	return c, nil
}

func (f *fakeImages) LooseJobs(_ context.Context, _ int64, lost time.Duration, _ int) ([]backfill.ImageRef, error) {
	f.lostFor = append(f.lostFor, lost)
	var refs []backfill.ImageRef
	for id := range f.jobs {
		if lost == 0 {
			refs = append(refs, backfill.ImageRef{ProductID: 1, ImageID: id})
		}
	}
	return refs, nil
}

func (f *fakeImages) Extent(context.Context) (catalog.ProductID, catalog.ImageID, error) {
	return 1, f.last, nil
}

func (f *fakeImages) Sample(context.Context, backfill.Backfill, map[string]string, []int64) (backfill.Sample, error) {
	return backfill.Sample{}, nil
}

func (f *fakeImages) Outputs(context.Context) (map[string]string, error) {
	return map[string]string{}, nil
}

func (f *fakeImages) RequestBackfill(_ context.Context, _ catalog.ProductID, id catalog.ImageID, r catalog.BackfillRequest,
) error {
	if f.err != nil && (f.errOf == 0 || f.errOf == id) {
		return f.err
	}
	f.skip = append(f.skip, r.SkipMissing)
	f.jobs[id] = true
	f.outstanding = len(f.jobs)
	f.record(nil, catalog.BackfillEvent{BackfillID: r.BackfillID, ImageID: id, Kind: catalog.BackfillRequested})
	return nil
}

func (f *fakeImages) RecordPipeline(context.Context) (string, error) { return "", nil }

func (f *fakeImages) DropBackfill(_ context.Context, _ catalog.ProductID, id catalog.ImageID, backfillID int64) error {
	f.end(backfillID, id, catalog.BackfillDropped, "")
	return nil
}

// end ends a job.
func (f *fakeImages) end(backfillID int64, id catalog.ImageID, kind catalog.BackfillEventKind, code media.Code) {
	delete(f.jobs, id)
	f.done[id] = kind != catalog.BackfillDropped
	f.outstanding = len(f.jobs)
	f.record(nil, catalog.BackfillEvent{BackfillID: backfillID, ImageID: id, Kind: kind, Code: code})
}

// walk is a walker over fake images with an approved backfill.
type walk struct {
	*testing.T
	*fakeImages
	walker *backfill.Walker
	reg    *prometheus.Registry
	name   string
	id     int64
}

// newWalk returns a walk of that many images, whose target is in force.
func newWalk(t *testing.T, images catalog.ImageID, pace func(*backfill.Pace)) *walk {
	t.Helper()
	w := &walk{T: t, reg: prometheus.NewRegistry(), fakeImages: &fakeImages{
		memory: newMemory(), last: images, done: map[catalog.ImageID]bool{}, jobs: map[catalog.ImageID]bool{},
	}}
	w.inForce = []string{target}
	w.walker = backfill.NewWalker(backfill.WalkerDeps{
		Walks: w.memory, List: w.ListBackfills, Images: w.fakeImages, Catalog: w.fakeImages, Now: time.Now, Log: zap.NewNop(),
		Canaries: w.memory, PublicURL: func(key string) string { return "https://img/" + key },
	}, backfill.Config{Interval: time.Second, Lease: time.Minute, Settle: 30 * time.Second, LostAfter: time.Hour,
		CanaryTimeout: canaryTimeout}, w.reg)
	b := backfill.Backfill{Pipeline: "p", TargetHash: target, State: backfill.Approved, Pace: backfill.DefaultPace()}
	pace(&b.Pace)
	b, err := w.ProposeBackfill(t.Context(), b, 10)
	if err != nil {
		t.Fatal(err)
	}
	w.name, w.id = b.Name(), b.ID
	return w
}

// step makes a step a second after the last one, and returns the backfill.
func (w *walk) step() backfill.Backfill {
	w.Helper()
	w.now = w.now.Add(time.Second)
	if err := w.walker.Step(w.Context()); err != nil {
		w.Fatal(err)
	}
	return w.current()
}

func (w *walk) current() backfill.Backfill {
	w.Helper()
	list, err := w.ListBackfills(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return list[0]
}

// endAll ends all jobs.
func (w *walk) endAll(kind catalog.BackfillEventKind, code media.Code) {
	for id := range w.jobs {
		w.end(w.id, id, kind, code)
	}
}

func (w *walk) wantState(when string, want backfill.State) {
	w.Helper()
	if got := w.current(); got.State != want {
		w.Errorf("%s: it is %s (%s), want %s", when, got.State, got.Reason, want)
	}
}

func (w *walk) set(fn func(*backfill.Backfill)) {
	w.Helper()
	edit := func(b *backfill.Backfill, _ time.Time) error { fn(b); return nil }
	if _, err := w.EditBackfill(w.Context(), w.name, edit); err != nil {
		w.Fatal(err)
	}
}

func TestWalker(t *testing.T) {
	t.Parallel()
	t.Run("starts_when_every_api_has_the_target_in_force", testWalkerStart)
	t.Run("requests_nothing_before_the_start_is_saved", testWalkerStartNotSaved)
	t.Run("rate_and_jobs_in_flight_are_bounded", testWalkerPace)
	t.Run("completes_after_a_pass_that_found_nothing", testWalkerComplete)
	t.Run("busy_images_keep_it_running", testWalkerBusy)
	t.Run("suspension_drops_jobs_and_resume_requests_them_again", testWalkerSuspend)
	t.Run("image_of_an_unsaved_step_is_not_forgotten", testWalkerUnsavedStep)
	t.Run("requests_and_drops_are_no_progress", testWalkerProgress)
	t.Run("closed_outside_its_windows", testWalkerWindows)
	t.Run("failures_suspend_until_it_is_resumed", testWalkerThreshold)
	t.Run("too_many_failures_at_the_end_fail_it", testWalkerFails)
	t.Run("another_target_supersedes", testWalkerSuperseded)
	t.Run("image_that_changed_meanwhile_is_looked_at_again", testWalkerChanged)
	t.Run("error_keeps_the_position", testWalkerError)
	t.Run("error_of_one_image_stops_no_other", testWalkerImageError)
	t.Run("requests_say_what_becomes_of_images_without_an_original", testWalkerOnMissing)
	t.Run("search_widens_where_candidates_are_rare", testWalkerRows)
	t.Run("gauges_are_those_of_the_running_backfill", testWalkerGauges)
}

func testWalkerStart(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 10, func(*backfill.Pace) {})
	for name, inForce := range map[string][]string{"none": nil, "the_old_one": {"old"}, "both": {"old", target}} {
		w.inForce = inForce
		w.step()
		w.wantState(name, backfill.Approved)
	}
	w.inForce = []string{target}
	w.set(func(b *backfill.Backfill) { b.Suspended = backfill.ByOperator })
	w.step()
	w.wantState("suspended", backfill.Approved)
	w.set(func(b *backfill.Backfill) { b.Suspended = backfill.NotSuspended })
	if b := w.step(); b.State != backfill.Running || !b.Open || b.Pass != 1 || b.StartedAt.IsZero() {
		t.Errorf("got %+v", b)
	}
	w.inForce = []string{"old", target} // an api with another file has started
	if b := w.step(); b.State != backfill.Running || b.Open {
		t.Errorf("got %s, open %v, want running and closed", b.State, b.Open)
	}
}

func testWalkerStartNotSaved(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 10, func(*backfill.Pace) {})
	w.inForce = nil
	w.step()
	w.step() // earns credit
	w.inForce = []string{target}
	w.onInForce = func() { // an operator suspends it between two statements of the step
		w.onInForce = nil
		w.set(func(b *backfill.Backfill) { b.Suspended = backfill.ByOperator })
	}
	w.step()
	w.wantState("suspended meanwhile", backfill.Approved)
	if len(w.jobs)+len(w.events) != 0 {
		t.Errorf("%d jobs and %d events of a backfill that has not started", len(w.jobs), len(w.events))
	}
}

func testWalkerPace(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 1000, func(p *backfill.Pace) { p.MaxInFlight, p.Rate = 25, 10 })
	for i, want := range []int{0, 10, 20, 25, 25} {
		if w.step(); len(w.jobs) != want {
			t.Errorf("after %d seconds: %d jobs, want %d", i, len(w.jobs), want)
		}
	}
	w.endAll(catalog.BackfillDone, "")
	w.now = w.now.Add(time.Hour) // a pause earns no more than one second's images
	if w.step(); len(w.jobs) != 10 {
		t.Errorf("after an hour: %d jobs, want 10", len(w.jobs))
	}
	slow := newWalk(t, 10, func(p *backfill.Pace) { p.Rate = 0.25 })
	for range 10 {
		slow.step()
	}
	if len(slow.jobs) != 2 {
		t.Errorf("one image each four seconds: %d after nine, want 2", len(slow.jobs))
	}
}

func testWalkerComplete(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 15, func(p *backfill.Pace) { p.Rate = 100 })
	w.step()
	w.step()
	if b := w.current(); len(w.jobs) != 15 || !b.Resting {
		t.Fatalf("%d jobs, want all", len(w.jobs))
	}
	for range 60 {
		w.step()
	}
	w.wantState("with jobs", backfill.Running)
	w.endAll(catalog.BackfillDone, "")
	b := w.step() // begins the closing pass
	if b.State != backfill.Running || b.Pass != 2 {
		t.Errorf("got %s in pass %d, want the second pass", b.State, b.Pass)
	}
	if b = w.step(); b.State != backfill.Complete || b.Done != 15 || b.Requested != 15 || b.Skipped != 0 || b.Total() != 15 {
		t.Errorf("got %+v", b)
	}
	empty := newWalk(t, 0, func(*backfill.Pace) {})
	for range 30 {
		empty.step()
		empty.wantState("a transaction could be open that began before the start", backfill.Running)
	}
	for range 3 {
		empty.step()
	}
	empty.wantState("after a pass that began later", backfill.Complete)
}

func testWalkerBusy(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 0, func(*backfill.Pace) {})
	w.busy = 1
	for range 200 {
		w.step()
	}
	b := w.current()
	if b.State != backfill.Running || b.Pass < 2 || b.Pass > 8 {
		t.Errorf("got %s in pass %d, want passes with pauses of 30 s", b.State, b.Pass)
	}
	w.busy = 0
	for range 35 {
		w.step()
	}
	w.wantState("idle", backfill.Complete)
}

func testWalkerSuspend(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 10, func(p *backfill.Pace) { p.Rate = 100 })
	w.step()
	w.step()
	w.end(w.id, 1, catalog.BackfillDone, "")
	w.set(func(b *backfill.Backfill) { b.Suspended = backfill.ByOperator })
	if b := w.step(); b.Open || len(w.jobs) != 0 {
		t.Errorf("open %v with %d jobs, want closed without", b.Open, len(w.jobs))
	}
	if b := w.step(); b.Requested != 1 || b.Done != 1 || b.Skipped != 0 {
		t.Errorf("got %d requested, %d done, %d skipped, want 1, 1, 0", b.Requested, b.Done, b.Skipped)
	}
	w.set(func(b *backfill.Backfill) { b.Suspended = backfill.NotSuspended })
	for range 40 {
		w.step()
	}
	if len(w.jobs) != 9 || w.jobs[1] {
		t.Errorf("%d jobs after the resume, want those of the 9 others", len(w.jobs))
	}
}

// A step of the closing pass requests images and is not saved. The pass goes by them, since they have jobs, and finds
// nothing else. Then the jobs are dropped.
func testWalkerUnsavedStep(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 3, func(*backfill.Pace) {})
	w.step()
	w.step()
	if len(w.jobs) != 3 {
		t.Fatalf("%d jobs, want 3", len(w.jobs))
	}
	w.set(func(b *backfill.Backfill) {
		b.Pass, b.Found, b.Resting, b.PassStartedAt = 2, 0, true, b.StartedAt.Add(time.Hour)
		b.Suspended = backfill.ByOperator
	})
	w.step()
	w.set(func(b *backfill.Backfill) { b.Suspended = backfill.NotSuspended })
	w.now = w.now.Add(2 * time.Hour)
	for range 5 {
		w.step()
	}
	w.wantState("after the drop", backfill.Running)
	if len(w.jobs) != 3 {
		t.Errorf("%d jobs, want 3 again", len(w.jobs))
	}
}

// Jobs that are requested and dropped again and again look like none to the alert; a window that opens has made no silence.
func testWalkerProgress(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 3, func(*backfill.Pace) {})
	started := w.step().ProgressedAt
	w.step()
	for id := range w.jobs {
		w.end(w.id, id, catalog.BackfillDropped, "")
	}
	if b := w.step(); !b.ProgressedAt.Equal(started) {
		t.Errorf("after requests and drops: progress at %s, want that of the start, %s", b.ProgressedAt, started)
	}
	for len(w.jobs) == 0 { // until the next pass
		w.step()
	}
	w.endAll(catalog.BackfillDone, "")
	if b := w.step(); !b.ProgressedAt.Equal(w.now) {
		t.Errorf("after outcomes: progress at %s, want now, %s", b.ProgressedAt, w.now)
	}
	w.set(func(b *backfill.Backfill) { b.Suspended = backfill.ByOperator })
	w.step()
	w.set(func(b *backfill.Backfill) { b.Suspended = backfill.NotSuspended })
	w.now = w.now.Add(time.Hour)
	if b := w.step(); !b.ProgressedAt.Equal(w.now) {
		t.Errorf("after a suspension: progress at %s, want now, %s", b.ProgressedAt, w.now)
	}
}

func testWalkerWindows(t *testing.T) {
	t.Parallel()
	night, err := backfill.ParseWindow("13:30-13:31")
	if err != nil {
		t.Fatal(err)
	}
	w := newWalk(t, 10, func(p *backfill.Pace) { // the clock is at 12:00 UTC, 13:00 in Berlin
		p.Rate, p.Windows, p.TimeZone = 100, []backfill.Window{night}, "Europe/Berlin"
	})
	w.step()
	if b := w.step(); b.State != backfill.Running || b.Open || len(w.jobs) != 0 {
		t.Errorf("before: open %v with %d jobs", b.Open, len(w.jobs))
	}
	w.now = w.now.Add(30 * time.Minute)
	if b := w.step(); !b.Open || len(w.jobs) != 10 {
		t.Errorf("within: open %v with %d jobs, want 10", b.Open, len(w.jobs))
	}
	w.now = w.now.Add(time.Minute)
	if b := w.step(); b.Open || len(w.jobs) != 0 {
		t.Errorf("after: open %v with %d jobs", b.Open, len(w.jobs))
	}
}

func testWalkerThreshold(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 200, func(p *backfill.Pace) { p.Rate, p.FailureThreshold = 30, 50 })
	w.step()
	w.step()
	w.endAll(catalog.BackfillFailed, media.Timeout)
	w.step()
	if b := w.current(); b.Suspended != backfill.ByFailures || b.Open || b.Failed != 30 || b.Failures[media.Timeout] != 30 {
		t.Errorf("got %+v", b)
	}
	m := backfill.Manager{By: backfill.CLI, ManagerDeps: backfill.ManagerDeps{Backfills: w.memory}}
	if _, err := m.Resume(t.Context(), w.name); err != nil {
		t.Fatal(err)
	}
	w.step()
	if b := w.step(); b.Suspended != backfill.NotSuspended || len(w.jobs) == 0 {
		t.Errorf("%q after the resume, with %d jobs", b.Suspended, len(w.jobs))
	}
	w.endAll(catalog.BackfillDone, "")
	w.step()
	if b := w.step(); b.Suspended != backfill.NotSuspended {
		t.Error("failures before the resume count again")
	}
}

func testWalkerFails(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 3, func(p *backfill.Pace) { p.Rate = 30 })
	w.step()
	w.step()
	w.endAll(catalog.BackfillFailed, media.Timeout)
	for range 65 {
		w.step()
	}
	w.wantState("all have failed", backfill.Failed)
}

func testWalkerSuperseded(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 100, func(*backfill.Pace) {})
	w.step()
	w.step()
	w.inForce = []string{"new"}
	b := w.step()
	if b.State != backfill.Superseded || b.Open || b.EndedAt.IsZero() || len(w.jobs) != 0 {
		t.Errorf("got %+v with %d jobs", b, len(w.jobs))
	}
	w.inForce = []string{target}
	w.step()
	w.wantState("the target is in force again", backfill.Superseded)
}

func testWalkerChanged(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 3, func(*backfill.Pace) {})
	w.err = catalog.ErrDone
	w.step()
	w.step()
	if b := w.current(); !b.Resting || b.Found != 3 {
		t.Errorf("got %+v, want the end of a pass that is followed by another", b)
	}
	w.err = nil
	for range 35 {
		w.step()
	}
	if len(w.jobs) != 3 {
		t.Errorf("%d jobs, want 3", len(w.jobs))
	}
}

func testWalkerError(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 3, func(*backfill.Pace) {})
	w.step()
	w.err = fault.New(fault.Unavailable, "down", "down")
	w.now = w.now.Add(time.Second)
	if err := w.walker.Step(t.Context()); !errors.Is(err, w.err) {
		t.Errorf("got %v", err)
	}
	if b := w.current(); b.Cursor != 0 || b.Resting || b.State != backfill.Running {
		t.Errorf("got %+v, want its position unchanged", b)
	}
	w.err = nil
	if w.step(); len(w.jobs) != 3 {
		t.Errorf("%d jobs, want 3", len(w.jobs))
	}
}

func testWalkerImageError(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 3, func(*backfill.Pace) {})
	w.err, w.errOf = errors.New("a row that cannot be read"), 2
	w.step()
	if w.step(); len(w.jobs) != 2 || w.jobs[2] {
		t.Errorf("jobs %v, want those of 1 and 3", w.jobs)
	}
	if got := catalogtest.Metric(t, w.reg, "vitrine_backfill_errors_total"); got != 1 {
		t.Errorf("%v errors are counted, want 1", got)
	}
	w.err = nil
	for id := range w.jobs {
		w.end(w.id, id, catalog.BackfillDone, "")
	}
	for range 35 {
		w.step()
	}
	if b := w.current(); !w.jobs[2] || b.State != backfill.Running {
		t.Errorf("jobs %v of %+v, want one of image 2", w.jobs, b)
	}
}

func testWalkerOnMissing(t *testing.T) {
	t.Parallel()
	for onMissing, want := range map[backfill.OnMissing]bool{
		"": false, backfill.FetchMissing: false, backfill.SkipMissing: true,
	} {
		w := newWalk(t, 1, func(*backfill.Pace) {})
		w.set(func(b *backfill.Backfill) { b.OnMissing = onMissing })
		w.step()
		w.step()
		if len(w.skip) != 1 || w.skip[0] != want {
			t.Errorf("%q: got %v, want %v", onMissing, w.skip, want)
		}
	}
}

func testWalkerRows(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 20_000, func(p *backfill.Pace) { p.Rate = 3 })
	for id := range catalog.ImageID(20_000) {
		w.done[id] = id > 10 && id < 19_990
	}
	w.step()
	if w.step(); len(w.jobs) != 3 || !slices.Equal(w.rows, []int{200}) {
		t.Errorf("jobs %v after searches of %v images, want three after one search", w.jobs, w.rows)
	}
	for range 2 {
		w.step()
	}
	w.rows = nil
	if w.step(); len(w.jobs) != 12 || !slices.Equal(w.rows, []int{200, 800, 3200, 6000, 6000, 6000}) {
		t.Errorf("%d jobs after searches of %v images", len(w.jobs), w.rows)
	}
}

func testWalkerGauges(t *testing.T) {
	t.Parallel()
	w := newWalk(t, 30, func(p *backfill.Pace) { p.Rate = 20 })
	w.step()
	w.step()
	w.end(w.id, 1, catalog.BackfillFailed, media.Timeout)
	w.step()
	if err := w.walker.Measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{
		"vitrine_backfill_open": 1, "vitrine_backfill_suspended_by_failures": 0, "vitrine_backfill_requested_total": 30,
	} {
		if got := catalogtest.Metric(t, w.reg, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	w.set(func(b *backfill.Backfill) { b.Suspended, b.Open = backfill.ByFailures, false })
	if err := w.walker.Measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if catalogtest.Metric(t, w.reg, "vitrine_backfill_suspended_by_failures") != 1 ||
		catalogtest.Metric(t, w.reg, "vitrine_backfill_silence_seconds") != 0 {
		t.Error("the suspension is not shown")
	}
}
