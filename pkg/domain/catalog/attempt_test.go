package catalog_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

func TestFinish(t *testing.T) {
	t.Parallel()

	t.Run("renditions_are_published_and_deletion_is_cancelled", testFinishRenditionsArePublishedAndDeletionIsCancelled)
	t.Run("second_finish_is_superseded", testFinishSecondFinishIsSuperseded)
	t.Run("two_images_keep_both_results", testFinishTwoImagesKeepBothResults)
	t.Run("first_attempt_is_superseded_by_second_begin", testFinishFirstAttemptIsSupersededBySecondBegin)
	t.Run("started_deletion_needs_new_attempt", testFinishStartedDeletionNeedsNewAttempt)
	t.Run("replaced_objects_stay_for_the_grace", testFinishReplacedObjectsStayForTheGrace)
}

func testFinishRenditionsArePublishedAndDeletionIsCancelled(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 2)
	a := h.begin(t, p, 1)
	if h.store.deletions[a.Prefix] == nil {
		t.Fatal("the attempt has no scheduled deletion: after a crash its objects would be orphans")
	}
	if err := h.Finish(t.Context(), a, result(a)); err != nil {
		t.Fatal(err)
	}
	got := h.product(t, p.ID)
	img := got.Images[1]
	if img.Status != catalog.Ready || img.JobState != catalog.Idle || img.JobID != "" || img.Attempts != 1 || img.Width != 10 {
		t.Errorf("got %+v", img)
	}
	if want := []string{a.Prefix + "full.jpg"}; !slices.Equal(got.Compressed, want) {
		t.Errorf("got %v, want %v", got.Compressed, want)
	}
	if got.Version != 2 || len(h.store.sent(event.TypeProductChanged)) != 2 {
		t.Errorf("got version %d, want 2 and an event of it", got.Version)
	}
	if h.store.deletions[a.Prefix] != nil {
		t.Error("the deletion is still scheduled: visible objects would be deleted")
	}
	if h.cache.tombstones[p.ID] != 2 {
		t.Errorf("the cache was invalidated to version %d, want 2", h.cache.tombstones[p.ID])
	}
}

func testFinishSecondFinishIsSuperseded(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	if err := h.Finish(t.Context(), a, result(a)); err != nil {
		t.Fatal(err)
	}
	if err := h.Finish(t.Context(), a, result(a)); !errors.Is(err, catalog.ErrSuperseded) {
		t.Errorf("got %v, want superseded", err)
	}
	if got := h.product(t, p.ID).Version; got != 2 {
		t.Errorf("got version %d, want 2", got)
	}
}

func testFinishTwoImagesKeepBothResults(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 2)
	a, b := h.begin(t, p, 0), h.begin(t, p, 1)
	for _, at := range []catalog.Attempt{b, a} {
		if err := h.Finish(t.Context(), at, result(at)); err != nil {
			t.Fatal(err)
		}
	}
	got := h.product(t, p.ID)
	if want := []string{a.Prefix + "full.jpg", b.Prefix + "full.jpg"}; !slices.Equal(got.Compressed, want) {
		t.Errorf("got %v, want %v", got.Compressed, want)
	}
}

func testFinishFirstAttemptIsSupersededBySecondBegin(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	first := h.begin(t, p, 0)
	second := h.begin(t, p, 0) // a second attempt of the same job
	if first.Prefix == second.Prefix {
		t.Fatal("two attempts share a prefix")
	}
	if err := h.Finish(t.Context(), first, result(first)); !errors.Is(err, catalog.ErrSuperseded) {
		t.Errorf("got %v, want superseded", err)
	}
	if err := h.Finish(t.Context(), second, result(second)); err != nil {
		t.Error(err)
	}
	if h.store.deletions[first.Prefix] == nil {
		t.Error("the superseded attempt's deletion is not scheduled: its objects would stay")
	}
}

func testFinishStartedDeletionNeedsNewAttempt(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	h.store.deletions[a.Prefix].started = true
	if err := h.Finish(t.Context(), a, result(a)); !errors.Is(err, catalog.ErrDeletionStarted) {
		t.Errorf("got %v, want deletion started", err)
	}
	b := h.begin(t, p, 0)
	if err := h.Finish(t.Context(), b, result(b)); err != nil {
		t.Error(err)
	}
}

func testFinishReplacedObjectsStayForTheGrace(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	old := h.begin(t, p, 0)
	if err := h.Finish(t.Context(), old, result(old)); err != nil {
		t.Fatal(err)
	}
	h.requeue(t, p.ID, 0)
	a := h.begin(t, p, 0)
	if got := h.product(t, p.ID).Images[0]; got.Status != catalog.Ready || len(got.Renditions) != 2 {
		t.Errorf("got %+v, want it ready while it is reprocessed", got)
	}
	if err := h.Finish(t.Context(), a, result(a)); err != nil {
		t.Fatal(err)
	}
	if in := h.store.deletions[old.Prefix]; in == nil || !in.due.Equal(h.store.now.Add(time.Hour)) {
		t.Errorf("the deletion of the old objects is %+v, want due in an hour", in)
	}
}

func TestFinishOfUnknownOutcome(t *testing.T) {
	t.Parallel()

	t.Run("committed_finish_is_confirmed", testFinishOfUnknownOutcomeCommittedFinishIsConfirmed)
	t.Run("ended_context_does_not_prevent_confirmation", testFinishOfUnknownOutcomeEndedContextDoesNotPreventConfirmation)
	t.Run("rolled_back_finish_stays_unknown", testFinishOfUnknownOutcomeRolledBackFinishStaysUnknown)
}

func testFinishOfUnknownOutcomeCommittedFinishIsConfirmed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	h.store.afterCommit = func() error { return catalog.ErrOutcomeUnknown }
	if err := h.Finish(t.Context(), a, result(a)); err != nil {
		t.Errorf("got %v, want none: the outcome was committed", err)
	}
	if h.cache.tombstones[p.ID] != 2 {
		t.Error("the cache was not invalidated")
	}
}

func testFinishOfUnknownOutcomeEndedContextDoesNotPreventConfirmation(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	ctx, cancel := context.WithCancel(t.Context())
	h.store.afterCommit = func() error { cancel(); return catalog.ErrOutcomeUnknown }
	if err := h.Finish(ctx, a, result(a)); err != nil {
		t.Errorf("got %v, want none: the outcome was committed", err)
	}
}

func testFinishOfUnknownOutcomeRolledBackFinishStaysUnknown(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	h.store.afterCommit = func() error {
		h.store.products[p.ID].Images[0].JobState = catalog.Processing // as after a rollback
		return catalog.ErrOutcomeUnknown
	}
	if err := h.Finish(t.Context(), a, result(a)); !errors.Is(err, catalog.ErrOutcomeUnknown) {
		t.Errorf("got %v, want unknown", err)
	}
}

func TestBegin(t *testing.T) {
	t.Parallel()

	t.Run("other_job_is_done", testBeginOtherJobIsDone)
	t.Run("deleted_product_is_done", testBeginDeletedProductIsDone)
	t.Run("unreported_attempts_are_isolated_then_fail", testBeginUnreportedAttemptsAreIsolatedThenFail)
	t.Run("released_attempts_are_not_counted", testBeginReleasedAttemptsAreNotCounted)
}

func testBeginOtherJobIsDone(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	for name, r := range map[string]catalog.Job{
		"another job":     {ProductID: p.ID, ImageID: p.Images[0].ID, JobID: "other"},
		"no job":          {ProductID: p.ID, ImageID: p.Images[0].ID},
		"another image":   {ProductID: p.ID, ImageID: 99, JobID: p.Images[0].JobID},
		"another product": {ProductID: 99, ImageID: p.Images[0].ID, JobID: p.Images[0].JobID},
	} {
		if _, err := h.Begin(t.Context(), r, budget); !errors.Is(err, catalog.ErrDone) {
			t.Errorf("%s: got %v, want done", name, err)
		}
	}
	a := h.begin(t, p, 0)
	if err := h.Finish(t.Context(), a, result(a)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Begin(t.Context(), a.Job, budget); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("a duplicate of a finished request: got %v, want done", err)
	}
}

func testBeginDeletedProductIsDone(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	h.store.change(p.ID, func(p *catalog.Product) { p.Deleted = true })
	if _, err := h.Begin(t.Context(), a.Job, budget); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("got %v, want done", err)
	}
	if err := h.Finish(t.Context(), a, result(a)); !errors.Is(err, catalog.ErrSuperseded) {
		t.Errorf("got %v, want superseded", err)
	}
}

func testBeginUnreportedAttemptsAreIsolatedThenFail(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	r := h.job(t, p.ID, 0)
	for n := 1; n < catalog.MaxUnreportedAttempts; n++ {
		a, err := h.Begin(t.Context(), r, budget)
		if err != nil {
			t.Fatal(err)
		}
		if want := n >= catalog.IsolateFrom; a.Isolated != want {
			t.Errorf("begin %d: isolated is %v, want %v", n, a.Isolated, want)
		}
	}
	if _, err := h.Begin(t.Context(), r, budget); !errors.Is(err, catalog.ErrGivenUp) {
		t.Errorf("got %v, want given up", err)
	}
	img := h.product(t, p.ID).Images[0]
	if img.Status != catalog.Failed || img.ErrorCode != media.WorkerCrashed || img.JobState != catalog.Idle {
		t.Errorf("got %+v, want failed as worker_crashed", img)
	}
	if len(h.store.sent(event.TypeImageDead)) != 1 {
		t.Error("no dead event")
	}
}

func testBeginReleasedAttemptsAreNotCounted(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	r := h.job(t, p.ID, 0)
	for range 2 * catalog.MaxUnreportedAttempts {
		a, err := h.Begin(t.Context(), r, budget)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Release(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.product(t, p.ID); got.Version != 1 || got.Images[0].UnreportedAttempts != 0 || got.Images[0].JobID != r.JobID {
		t.Errorf("got version %d, image %+v", got.Version, got.Images[0])
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	t.Run("attempt_is_counted_and_new_job_is_delayed", testRetryAttemptIsCountedAndNewJobIsDelayed)
	t.Run("retry_after_of_source_is_bounded", testRetryRetryAfterOfSourceIsBounded)
}

func testRetryAttemptIsCountedAndNewJobIsDelayed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	for n, want := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second} {
		a := h.begin(t, p, 0)
		if err := h.Retry(t.Context(), a, sourceTimeout(), policy()); err != nil {
			t.Fatal(err)
		}
		img := h.product(t, p.ID).Images[0]
		if img.Attempts != n+1 || img.JobID == a.JobID || img.JobState != catalog.Queued || img.Status != catalog.Pending {
			t.Errorf("after %d: %+v", n+1, img)
		}
		if got := img.NotBefore.Sub(h.store.now); got != want/2 || !img.ReleasedAt.IsZero() { // the jitter of the harness is 0.5
			t.Errorf("after %d: due in %s, released at %s, want %s and not released", n+1, got, img.ReleasedAt, want/2)
		}
	}
	a := h.begin(t, p, 0)
	if err := h.Retry(t.Context(), a, sourceTimeout(), policy()); !errors.Is(err, catalog.ErrGivenUp) {
		t.Errorf("got %v, want given up", err)
	}
	img := h.product(t, p.ID).Images[0]
	if img.Status != catalog.Failed || img.Attempts != 5 || img.ErrorCode != media.Timeout {
		t.Errorf("after the last attempt: %+v, want failed", img)
	}
}

func testRetryRetryAfterOfSourceIsBounded(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	busy := &media.Failure{Code: media.SourceUnavailable, RetryAfter: 24 * time.Hour}
	if err := h.Retry(t.Context(), h.begin(t, p, 0), busy, policy()); err != nil {
		t.Fatal(err)
	}
	if got := h.product(t, p.ID).Images[0].DueAt.Sub(h.store.now); got != 10*time.Minute {
		t.Errorf("due in %s, want maxBackoff", got)
	}
}

func TestDefer(t *testing.T) {
	t.Parallel()
	t.Run("no_attempt_is_counted_and_no_version_changes", testDeferNoAttemptIsCountedAndNoVersionChanges)
	t.Run("outage_of_the_network_ages_no_request", testDeferOutageAgesNoRequest)
	t.Run("long_deferral_is_given_up", testDeferLongDeferralIsGivenUp)
	t.Run("backlog_fails_nothing", testDeferBacklogFailsNothing)
	t.Run("busy_host_fails_nothing_and_takes_the_job", testDeferBusyHostFailsNothingAndTakesTheJob)
	t.Run("delay_grows_with_the_age", testDeferDelayGrowsWithTheAge)
}

func testDeferNoAttemptIsCountedAndNoVersionChanges(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	for range 20 {
		if err := h.Defer(t.Context(), h.begin(t, p, 0), storageFailed(), policy(), time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.product(t, p.ID); got.Version != 1 || got.Images[0].Attempts != 0 || got.Images[0].UnreportedAttempts != 0 {
		t.Errorf("got version %d, %+v", got.Version, got.Images[0])
	}
}

func testDeferLongDeferralIsGivenUp(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	if err := h.Defer(t.Context(), h.begin(t, p, 0), storageFailed(), policy(), time.Second); err != nil {
		t.Fatal(err)
	}
	h.store.now = h.product(t, p.ID).Images[0].NotBefore
	a := h.begin(t, p, 0)
	h.store.now = h.store.now.Add(25 * time.Hour) // the attempt itself lasted so long
	if err := h.Defer(t.Context(), a, storageFailed(), policy(), time.Second); !errors.Is(err, catalog.ErrGivenUp) {
		t.Errorf("got %v, want given up", err)
	}
	if img := h.product(t, p.ID).Images[0]; img.Status != catalog.Failed || img.ErrorCode != media.StorageFailed {
		t.Errorf("got %+v, want failed", img)
	}
}

func testDeferOutageAgesNoRequest(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	h.store.now = h.store.now.Add(1000 * time.Hour)
	for _, code := range []media.Code{media.ResolverUnavailable, media.EgressUnavailable} {
		a := h.begin(t, p, 0)
		if a.UserID != p.UserID {
			t.Errorf("the attempt's user is %d, want %d", a.UserID, p.UserID)
		}
		if err := h.Defer(t.Context(), a, media.Fail(code, "down", nil), policy(), time.Second); err != nil {
			t.Errorf("%s: %v", code, err)
		}
	}
	if img := h.product(t, p.ID).Images[0]; img.Status != catalog.Pending || img.Attempts != 0 || !img.DeferredSince.IsZero() {
		t.Errorf("got %+v, want pending", img)
	}
}

// testDeferBacklogFailsNothing lets a job wait for a day before each of three attempts that a fault of our own ends.
func testDeferBacklogFailsNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	for range 3 {
		h.store.now = h.store.now.Add(25 * time.Hour)
		if err := h.Defer(t.Context(), h.begin(t, p, 0), storageFailed(), policy(), time.Second); err != nil {
			t.Fatal(err)
		}
		if got := h.product(t, p.ID).Images[0].NotBefore.Sub(h.store.now); got > time.Second {
			t.Errorf("due in %s, want at most the shortest delay: only queues made the request old", got)
		}
	}
}

func testDeferBusyHostFailsNothingAndTakesTheJob(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	busy := hostBusy()
	busy.Host = "cdn.example"
	for range 3 {
		a := h.begin(t, p, 0)
		h.store.now = h.store.now.Add(25 * time.Hour)
		if err := h.Defer(t.Context(), a, busy, policy(), time.Second); err != nil {
			t.Fatal(err)
		}
	}
	img := h.product(t, p.ID).Images[0]
	if img.Host != "cdn.example" || !img.DeferredSince.IsZero() || img.NotBefore.Sub(h.store.now) > time.Second {
		t.Errorf("got %+v, want a job of cdn.example that is due in a second", img)
	}
}

func testDeferDelayGrowsWithTheAge(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	for _, row := range []struct{ attempt, want time.Duration }{
		{0, 750 * time.Millisecond}, {4 * time.Second, 750 * time.Millisecond}, // minDelay, with jitter 0.5
		{8 * time.Minute, 45 * time.Second}, {20 * time.Hour, 450 * time.Second}, // about an eighth of the age, then maxBackoff
	} {
		a := h.begin(t, p, 0)
		h.store.now = h.store.now.Add(row.attempt)
		if err := h.Defer(t.Context(), a, storageFailed(), policy(), time.Second); err != nil {
			t.Fatal(err)
		}
		got := h.product(t, p.ID).Images[0].NotBefore.Sub(h.store.now)
		if got < row.want || got > row.want+time.Second {
			t.Errorf("after an attempt of %s: due in %s, want %s", row.attempt, got, row.want)
		}
	}
}

func TestPostpone(t *testing.T) {
	t.Parallel()

	t.Run("old_request_is_never_given_up", testPostponeOldRequestIsNeverGivenUp)
	t.Run("job_is_replaced_once", testPostponeJobIsReplacedOnce)
	t.Run("busy_host_waits_for_the_scheduler", testPostponeBusyHostWaitsForTheScheduler)
	t.Run("delay_of_fault_grows_with_the_age", testPostponeDelayOfFaultGrowsWithTheAge)
	t.Run("busy_host_ages_no_request", testPostponeBusyHostAgesNoRequest)
	t.Run("unknown_product_is_superseded", testPostponeUnknownProductIsSuperseded)
	t.Run("crashed_attempt_is_superseded_and_its_begin_is_kept", testPostponeCrashedAttemptIsSupersededAndItsBeginIsKept)
}

func testPostponeOldRequestIsNeverGivenUp(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	h.store.now = h.store.now.Add(1000 * time.Hour) // as after an outage of Kafka
	waiting := h.job(t, p.ID, 0)
	if err := h.Postpone(t.Context(), waiting, hostBusy(), policy(), time.Second); err != nil {
		t.Fatal(err)
	}
	if err := h.Retry(t.Context(), h.begin(t, p, 0), sourceTimeout(), policy()); err != nil {
		t.Errorf("a first try: %v", err)
	}
	if img := h.product(t, p.ID).Images[0]; img.Status != catalog.Pending || img.Attempts != 1 {
		t.Errorf("got %+v, want pending", img)
	}
}

func testPostponeJobIsReplacedOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	waiting := h.job(t, p.ID, 0)
	if err := h.Postpone(t.Context(), waiting, hostBusy(), policy(), time.Second); err != nil {
		t.Fatal(err)
	}
	if err := h.Postpone(t.Context(), waiting, hostBusy(), policy(), time.Second); !errors.Is(err, catalog.ErrSuperseded) {
		t.Errorf("got %v, want superseded", err)
	}
	h.store.now = h.store.now.Add(time.Second)
	h.store.releaseDue(t)
	if n := len(h.store.sent(event.TypeImageRequested)); n != 2 {
		t.Errorf("got %d requests, want 2", n)
	}
}

func testPostponeBusyHostWaitsForTheScheduler(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p, err := h.Create(t.Context(), input(url(0)), "trace")
	if err != nil {
		t.Fatal(err)
	}
	r := h.job(t, p.ID, 0)
	h.store.now = h.store.now.Add(40 * time.Second)
	if err := h.Postpone(t.Context(), r, hostBusy(), policy(), time.Second); err != nil {
		t.Fatal(err)
	}
	if n := len(h.store.sent(event.TypeImageRequested)); n != 1 {
		t.Errorf("got %d requests, want 1: a postponed job sends nothing", n)
	}
	got := h.product(t, p.ID)
	if img := got.Images[0]; img.NotBefore.Sub(h.store.now) != 750*time.Millisecond || !img.ReleasedAt.IsZero() {
		t.Errorf("got %+v, want due after the shortest delay", img)
	}
	if got.Version != p.Version || got.Images[0].Attempts != 0 {
		t.Errorf("got version %d and %d attempts, want no visible change", got.Version, got.Images[0].Attempts)
	}
	h.store.now = h.store.now.Add(time.Second)
	h.store.releaseDue(t)
	sent := h.store.sent(event.TypeImageRequested)
	if last := sent[len(sent)-1]; len(sent) != 2 || last.ID != got.Images[0].JobID || last.Traceparent != "trace" {
		t.Errorf("got %d requests, the last %s with trace %q", len(sent), last.ID, last.Traceparent)
	}
}

func testPostponeDelayOfFaultGrowsWithTheAge(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	unknown := media.Fail(media.PipelineUnknown, "the pipeline cannot be loaded", nil)
	for _, want := range []time.Duration{750 * time.Millisecond, 3750 * time.Millisecond} {
		if err := h.Postpone(t.Context(), h.job(t, p.ID, 0), unknown, policy(), time.Second); err != nil {
			t.Fatal(err)
		}
		if got := h.product(t, p.ID).Images[0].NotBefore.Sub(h.store.now); got != want {
			t.Errorf("due in %s, want %s", got, want)
		}
		h.store.now = h.store.now.Add(40 * time.Second)
	}
}

func testPostponeBusyHostAgesNoRequest(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	if err := h.Defer(t.Context(), h.begin(t, p, 0), storageFailed(), policy(), time.Second); err != nil {
		t.Fatal(err)
	}
	for range 3 { // each time after a day in a queue
		h.store.now = h.store.now.Add(25 * time.Hour)
		if err := h.Postpone(t.Context(), h.job(t, p.ID, 0), hostBusy(), policy(), time.Second); err != nil {
			t.Fatal(err)
		}
	}
	h.store.now = h.store.now.Add(time.Second)
	if err := h.Defer(t.Context(), h.begin(t, p, 0), storageFailed(), policy(), time.Second); err != nil {
		t.Errorf("got %v, want another deferral: the time in queues does not count", err)
	}
}

func testPostponeUnknownProductIsSuperseded(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := catalog.Job{ProductID: 404, ImageID: 1, JobID: "x"}
	if err := h.Postpone(t.Context(), r, hostBusy(), policy(), time.Second); !errors.Is(err, catalog.ErrSuperseded) {
		t.Errorf("got %v, want superseded", err)
	}
}

func testPostponeCrashedAttemptIsSupersededAndItsBeginIsKept(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	crashed := h.begin(t, p, 0)
	if err := h.Postpone(t.Context(), crashed.Job, hostBusy(), policy(), time.Second); err != nil {
		t.Fatal(err)
	}
	if err := h.Finish(t.Context(), crashed, result(crashed)); !errors.Is(err, catalog.ErrSuperseded) {
		t.Errorf("got %v, want superseded", err)
	}
	if a := h.begin(t, p, 0); !a.Isolated {
		t.Error("the second begin without an outcome must be isolated")
	}
}

func TestFail(t *testing.T) {
	t.Parallel()
	t.Run("code_is_visible_and_one_dead_event_is_sent", testFailCodeIsVisibleAndOneDeadEventIsSent)
	t.Run("ready_image_stays_ready", testFailReadyImageStaysReady)
}

func testFailCodeIsVisibleAndOneDeadEventIsSent(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	if err := h.Fail(t.Context(), a, httpNotFound()); err != nil {
		t.Fatal(err)
	}
	if err := h.Fail(t.Context(), a, httpNotFound()); !errors.Is(err, catalog.ErrSuperseded) {
		t.Errorf("got %v, want superseded", err)
	}
	got := h.product(t, p.ID)
	if got.ImageStatus() != catalog.AllFailed || got.Images[0].ErrorCode != media.HTTPStatus {
		t.Errorf("got %+v", got.Images[0])
	}
	dead := h.store.sent(event.TypeImageDead)
	if len(dead) != 1 {
		t.Fatalf("got %d dead events, want 1", len(dead))
	}
	d, err := event.Decode[event.ImageDead](dead[0].Message)
	if err != nil || d.FencingToken != a.FencingToken || d.Code != "http_status" {
		t.Errorf("got %+v, %v", d, err)
	}
}

func testFailReadyImageStaysReady(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	if err := h.Finish(t.Context(), a, result(a)); err != nil {
		t.Fatal(err)
	}
	h.requeue(t, p.ID, 0)
	if err := h.Fail(t.Context(), h.begin(t, p, 0), httpNotFound()); err != nil {
		t.Fatal(err)
	}
	got := h.product(t, p.ID)
	if img := got.Images[0]; img.Status != catalog.Ready || img.ReprocessError != media.HTTPStatus || img.ErrorCode != "" {
		t.Errorf("got %+v", img)
	}
	if !slices.Equal(got.Compressed, []string{a.Prefix + "full.jpg"}) {
		t.Errorf("got %v, want the old rendition", got.Compressed)
	}
}

func TestRepublish(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	id, start := p.Images[0].ID, h.store.now
	republish := func(before time.Time) error { return h.Republish(t.Context(), p.ID, id, before, 5*time.Minute) }

	if err := republish(start.Add(time.Hour)); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("before its time: got %v, want done", err)
	}
	h.store.now = start.Add(6 * time.Hour)
	if err := republish(start); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("while it waits in Kafka: got %v, want done", err)
	}
	if err := republish(start.Add(1)); err != nil {
		t.Errorf("passed over: %v", err)
	}
	if got := h.product(t, p.ID).Images[0].ReleasedAt; !got.Equal(h.store.now) {
		t.Errorf("released at %s, want %s", got, h.store.now)
	}
	if err := republish(h.store.now.Add(time.Hour)); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("again at once: got %v, want done", err)
	}
	requests := h.store.sent(event.TypeImageRequested)
	if len(requests) != 1 || requests[0].ID != p.Images[0].JobID {
		t.Errorf("got %d requests, want one: a republished job keeps its id", len(requests))
	}
	if err := h.Retry(t.Context(), h.begin(t, p, 0), sourceTimeout(), policy()); err != nil {
		t.Fatal(err)
	}
	h.store.now = h.store.now.Add(time.Hour)
	if err := republish(h.store.now); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("while it waits for the scheduler: got %v, want done", err)
	}
	if err := h.Republish(t.Context(), 99, id, start, time.Minute); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v, want not found", err)
	}
}

func TestBeginPrefix(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	if !strings.HasPrefix(a.Prefix, "products/1/1/1-") || !strings.HasSuffix(a.Prefix, "/") || len(a.Prefix) < 40 {
		t.Errorf("got %q, want products/<product>/<image>/<fencing token>-<random>/", a.Prefix)
	}
}
