package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// BackfillParts are an implementation of the stores of package backfill, without backfills.
type BackfillParts struct {
	Backfills backfill.Backfills
	Walks     backfill.Walks
	Pipelines catalog.Pipelines
	Canaries  backfill.Canaries
	Record    func(tb testing.TB, events ...catalog.BackfillEvent) // writes events
}

// RunBackfills runs the suite of backfills. Every subtest opens stores of its own.
func RunBackfills(t *testing.T, open func(t *testing.T) BackfillParts) {
	for _, test := range []struct {
		name string
		run  func(f *backfills)
	}{
		{"proposal_is_read_back", proposalIsReadBack},
		{"proposals_are_numbered_and_the_last_one_counts", lastProposalCounts},
		{"generation_of_a_resource_has_one_backfill", oneBackfillOfGeneration},
		{"ended_ones_are_kept_up_to_a_limit", endedAreKept},
		{"edit_is_all_or_nothing", backfillEditIsAtomic},
		{"walk_belongs_to_one_process", walkBelongsToOne},
		{"edit_ends_the_lease", editEndsLease},
		{"one_backfill_runs", oneBackfillRuns},
		{"events_are_counted_once", eventsAreCountedOnce},
		{"canary_is_read_back", canaryIsReadBack},
		{"canary_starts_with_its_samples_or_not_at_all", canaryStartIsAtomic},
		{"samples_are_sent_up_to_a_limit_and_again_when_lost", samplesAreSentUpToLimit},
		{"samples_are_work_until_they_are_dropped", samplesAreWork},
		{"ended_one_has_work_until_its_events_are_counted", endedOneHasWork},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(&backfills{T: t, BackfillParts: open(t)})
		})
	}
}

// backfills is a test of backfills.
type backfills struct {
	*testing.T
	BackfillParts
}

func (f *backfills) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// draft returns a backfill of the pipeline with that name. Every field that a proposal may have is set.
func (f *backfills) draft(name string) backfill.Backfill {
	f.Helper()
	p := pipeline.Default()
	f.must(f.Pipelines.SavePipeline(f.Context(), p.Hash(), p.Document()))
	night, err := backfill.ParseWindow("mon,sat 22:00-06:00")
	f.must(err)
	return backfill.Backfill{
		Pipeline: name, ManagedBy: backfill.CLI, TargetHash: p.Hash(), TargetOutput: p.Spec.OutputHash(),
		Selection: backfill.Selection{Kind: backfill.ByHand, Codes: []media.Code{media.TooLarge}, Selector: backfill.Selector{
			Status: catalog.Failed, Code: media.Timeout, UserID: 3, OutputHash: "output",
			RequestedBefore: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		}},
		OnMissing: backfill.SkipMissing, State: backfill.Proposed,
		Pace: backfill.Pace{
			MaxInFlight: 7, Rate: 2.5, Windows: []backfill.Window{night}, TimeZone: "Europe/Berlin", FailureThreshold: 12.5,
		},
		Plan: backfill.Plan{
			Sampled: 9, Images: backfill.Estimate{Value: 10, Error: 1},
			NoOriginal: backfill.Estimate{Value: 5, Error: 0.5}, SourceBytes: backfill.Estimate{Value: 20, Error: 2},
			StoredBytes: backfill.Estimate{Value: 30, Error: 3}, Seconds: 4, PlannedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		},
	}
}

func (f *backfills) propose(b backfill.Backfill, keep int) backfill.Backfill {
	f.Helper()
	b, err := f.Backfills.ProposeBackfill(f.Context(), b, keep)
	f.must(err)
	return b
}

func (f *backfills) list() []backfill.Backfill {
	f.Helper()
	list, err := f.Backfills.ListBackfills(f.Context())
	f.must(err)
	return list
}

// set edits a backfill.
func (f *backfills) set(b backfill.Backfill, fn func(b *backfill.Backfill)) backfill.Backfill {
	f.Helper()
	edit := func(b *backfill.Backfill, _ time.Time) error { fn(b); return nil }
	b, err := f.Backfills.EditBackfill(f.Context(), b.Name(), edit)
	f.must(err)
	return b
}

// approved proposes a backfill and approves it.
func (f *backfills) approved(name string) backfill.Backfill {
	f.Helper()
	return f.set(f.propose(f.draft(name), 10), func(b *backfill.Backfill) { b.State = backfill.Approved })
}

// acquire acquires a walk, for an hour.
func (f *backfills) acquire() backfill.Walk {
	f.Helper()
	w, acquired, err := f.Walks.AcquireWalk(f.Context(), time.Hour)
	f.must(err)
	if !acquired {
		f.Fatal("no walk is due")
	}
	return w
}

// save saves a walk and reports if that did not have the result.
func (f *backfills) save(w backfill.Walk, wait time.Duration, want bool) {
	f.Helper()
	saved, err := f.Walks.SaveWalk(f.Context(), w, wait)
	f.must(err)
	if saved != want {
		f.Errorf("saved is %v, want %v", saved, want)
	}
}

// wantNoWalk reports a walk that is due.
func (f *backfills) wantNoWalk(when string) {
	f.Helper()
	if w, acquired, err := f.Walks.AcquireWalk(f.Context(), time.Hour); acquired || err != nil {
		f.Errorf("%s: got %s, %v, %v, want none", when, w.Name(), acquired, err)
	}
}

func (f *backfills) same(got, want backfill.Backfill, what string) {
	f.Helper()
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		f.Errorf("%s: got\n%+v, want\n%+v", what, got, want)
	}
}

func proposalIsReadBack(f *backfills) {
	draft := f.draft("default")
	b := f.propose(draft, 10)
	if b.ID == 0 || b.CreatedAt.IsZero() || b.Name() != "default-1" {
		f.Errorf("got %s with id %d of %s", b.Name(), b.ID, b.CreatedAt)
	}
	draft.ID, draft.Number, draft.CreatedAt, draft.Failures = b.ID, 1, b.CreatedAt, b.Failures
	f.same(b, draft, "the proposal")
	f.same(f.list()[0], b, "the proposal in the list")
	b = f.set(b, func(b *backfill.Backfill) {
		b.State, b.Reason, b.Suspended, b.ApprovedHash = backfill.Approved, "reason", backfill.ByFailures, "hash"
		b.Pass, b.Cursor, b.Found, b.Resting, b.Credit = 2, 3, 4, true, 5.5
		b.Requested, b.Done, b.Skipped, b.Failed, b.JudgedDone, b.JudgedFailed = 6, 7, 8, 9, 10, 11
		b.Failures = map[media.Code]int64{media.Timeout: 9}
		b.MaxInFlight, b.Rate, b.Windows = 1, 1, nil
		b.StartedAt, b.SteppedAt, b.EndedAt = b.CreatedAt, b.CreatedAt, b.CreatedAt
	})
	f.same(f.list()[0], b, "every field")
	_, err := f.Backfills.EditBackfill(f.Context(), "default-2", func(*backfill.Backfill, time.Time) error { return nil })
	if !fault.Is(err, fault.NotFound) {
		f.Errorf("another name: got %v, want not found", err)
	}
}

func lastProposalCounts(f *backfills) {
	f.propose(f.draft("a"), 10)
	f.propose(f.draft("b"), 10)
	f.propose(f.draft("a"), 10)
	states := map[string]backfill.State{}
	for _, b := range f.list() {
		states[b.Name()] = b.State
	}
	want := map[string]backfill.State{"a-1": backfill.Superseded, "a-2": backfill.Proposed, "b-1": backfill.Proposed}
	if fmt.Sprint(states) != fmt.Sprint(want) {
		f.Errorf("got %v, want %v", states, want)
	}
	if first := f.list()[0].Name(); first != "a-2" {
		f.Errorf("the newest is %s, want a-2", first)
	}
}

func oneBackfillOfGeneration(f *backfills) {
	draft := f.draft("a")
	draft.ManagedBy, draft.ResourceUID, draft.Generation = backfill.Resource, "uid", 2
	f.propose(draft, 10)
	if _, err := f.Backfills.ProposeBackfill(f.Context(), draft, 10); !fault.Is(err, fault.Conflict) {
		f.Errorf("got %v, want a conflict", err)
	}
	if got := f.list()[0].State; got != backfill.Proposed {
		f.Errorf("the first is %s, want still proposed", got)
	}
	draft.Generation = 3
	f.propose(draft, 10)
}

func endedAreKept(f *backfills) {
	for range 6 {
		f.propose(f.draft("a"), 3)
	}
	f.approved("b")
	var names []string
	for _, b := range f.list() {
		names = append(names, b.Name())
	}
	if got := fmt.Sprint(names); got != "[b-1 a-6 a-5 a-4 a-3]" {
		f.Errorf("got %s", got)
	}
}

func backfillEditIsAtomic(f *backfills) {
	b := f.propose(f.draft("a"), 10)
	failure := errors.New("no")
	_, err := f.Backfills.EditBackfill(f.Context(), b.Name(), func(b *backfill.Backfill, _ time.Time) error {
		b.State = backfill.Cancelled
		return failure
	})
	if !errors.Is(err, failure) {
		f.Errorf("got %v", err)
	}
	f.same(f.list()[0], b, "after the error")
}

func walkBelongsToOne(f *backfills) {
	f.propose(f.draft("proposed"), 10)
	f.wantNoWalk("proposed only")
	b := f.approved("a")
	w := f.acquire()
	if w.ID != b.ID || w.Now.Before(b.CreatedAt) || w.Outstanding != 0 || w.OtherRunning {
		f.Errorf("got %+v", w)
	}
	f.wantNoWalk("during the lease")
	w.Cursor = 5
	f.save(w, 0, true)
	again := f.acquire()
	if again.Cursor != 5 {
		f.Errorf("the cursor is %d, want 5", again.Cursor)
	}
	w.Cursor = 6 // of the lease that has ended
	f.save(w, 0, false)
	f.save(again, time.Hour, true)
	f.wantNoWalk("before the next step")
	if got := f.list()[0].Cursor; got != 5 {
		f.Errorf("the cursor is %d, want that of the holder of the lease", got)
	}
}

func editEndsLease(f *backfills) {
	b := f.approved("a")
	w := f.acquire()
	f.set(b, func(b *backfill.Backfill) { b.Suspended = backfill.ByOperator })
	w.State = backfill.Running
	f.save(w, time.Hour, false)
	if w = f.acquire(); w.Suspended != backfill.ByOperator || w.State != backfill.Approved {
		f.Errorf("got %s, %q: the walk has overwritten the edit", w.State, w.Suspended)
	}
	b = f.propose(f.draft("b"), 10)
	f.must(f.startCanary(b, 1, nil))
	w = f.acquire()
	f.propose(f.draft("b"), 10) // supersedes it
	f.save(w, time.Hour, false)
	if b = f.list()[1]; b.Name() != "b-1" || b.State != backfill.Superseded {
		f.Errorf("got %s, %s: the walk has overwritten a later proposal", b.Name(), b.State)
	}
}

func oneBackfillRuns(f *backfills) {
	f.approved("a")
	f.approved("b")
	first, second := f.acquire(), f.acquire()
	first.State, second.State = backfill.Running, backfill.Running
	f.save(first, 0, true)
	f.save(second, 0, false)
	running := 0
	for _, b := range f.list() {
		if b.State == backfill.Running {
			running++
		}
	}
	if running != 1 {
		f.Errorf("%d backfills are running", running)
	}
}

func eventsAreCountedOnce(f *backfills) {
	b := f.approved("a")
	event := func(kind catalog.BackfillEventKind, code media.Code) catalog.BackfillEvent {
		return catalog.BackfillEvent{BackfillID: b.ID, ImageID: 1, Kind: kind, Code: code}
	}
	requested := event(catalog.BackfillRequested, "")
	f.Record(f, requested, requested, requested, requested, event(catalog.BackfillDropped, ""), event(catalog.BackfillDone, ""),
		event(catalog.BackfillFailed, media.Timeout))
	other := event(catalog.BackfillDone, "")
	other.BackfillID = b.ID + 1
	f.Record(f, other)
	for range 2 {
		w := f.acquire()
		// Three are left of four requests. One is neither done nor failed, and has no job: a client took it over.
		if w.Requested != 3 || w.Done != 1 || w.Failed != 1 || w.Failures[media.Timeout] != 1 || w.Skipped != 1 ||
			w.ProgressedAt.IsZero() {
			f.Errorf("got %+v", w.Backfill)
		}
		f.save(w, 0, true)
	}
}

func endedOneHasWork(f *backfills) {
	b := f.approved("a")
	f.set(b, func(b *backfill.Backfill) { b.State = backfill.Cancelled })
	f.wantNoWalk("cancelled")
	f.Record(f, catalog.BackfillEvent{BackfillID: b.ID, ImageID: 1, Kind: catalog.BackfillDone})
	if w := f.acquire(); w.Done != 1 {
		f.Errorf("got %+v", w.Backfill)
	}
	f.wantNoWalk("counted")
}
