package catalog_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// reprocess reprocesses the product's i-th image.
func (h *harness) reprocess(t *testing.T, p catalog.Product, i int) catalog.Image {
	t.Helper()
	got, err := h.Reprocess(t.Context(), p.ID, p.Images[i].ID, "trace")
	if err != nil {
		t.Fatal(err)
	}
	return got.Images[i]
}

func TestReprocess(t *testing.T) {
	t.Parallel()

	t.Run("failed_image_is_queued_with_the_pipeline_in_force", testReprocessFailedImageIsQueuedWithThePipelineInForce)
	t.Run("ready_image_stays_visible_until_replaced", testReprocessReadyImageStaysVisibleUntilReplaced)
	t.Run("running_attempt_is_superseded", testReprocessRunningAttemptIsSuperseded)
	t.Run("unknown_outcome_is_not_confirmed_by_new_request", testReprocessUnknownOutcomeIsNotConfirmedByNewRequest)
	t.Run("unknown_image_is_not_found", testReprocessUnknownImageIsNotFound)
}

func testReprocessFailedImageIsQueuedWithThePipelineInForce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	h.store.now = h.store.now.Add(25 * time.Hour)
	if err := h.Fail(t.Context(), h.begin(t, p, 0), sourceTimeout()); err != nil {
		t.Fatal(err)
	}
	next := pipeline.Default()
	next.Spec.Renditions = next.Spec.Renditions[1:]
	h.Pipeline = func() *pipeline.Revision { return pipeline.NewRevision(next) }
	img := h.reprocess(t, p, 0)
	if img.Status != catalog.Pending || img.ErrorCode != "" || img.ErrorDetail != "" || img.Attempts != 0 ||
		img.PipelineHash != next.Hash() || !img.RequestedAt.Equal(h.store.now) {
		t.Errorf("got %+v, want a new request", img)
	}
	if _, err := h.store.Pipeline(t.Context(), next.Hash()); err != nil {
		t.Errorf("the pipeline is not saved: %v", err)
	}
	requests := h.store.sent(event.TypeImageRequested)
	if last := requests[len(requests)-1]; last.ID != img.JobID || last.Traceparent != "trace" {
		t.Errorf("got %+v, want the message of job %s", last.Message, img.JobID)
	}
	if got := h.product(t, p.ID); got.Version != 3 || got.Revision != 1 || h.cache.tombstones[p.ID] != 3 {
		t.Errorf("got version %d and revision %d, want 3 and 1", got.Version, got.Revision)
	}
	if err := h.Defer(t.Context(), h.begin(t, p, 0), sourceTimeout(), policy(), 0); err != nil {
		t.Errorf("got %v, want the age to count from the new request", err)
	}
}

func testReprocessReadyImageStaysVisibleUntilReplaced(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	old := h.complete(t, p, 0)
	if img := h.reprocess(t, p, 0); img.Status != catalog.Ready || len(img.Renditions) != 2 || img.JobState != catalog.Queued {
		t.Errorf("got %+v, want it ready and queued", img)
	}
	a := h.complete(t, p, 0)
	h.wantDeletion(t, old.Prefix)
	if got := h.product(t, p.ID).Compressed; !slices.Equal(got, []string{a.Prefix + "full.jpg"}) {
		t.Errorf("got %v, want the new one", got)
	}
}

func testReprocessRunningAttemptIsSuperseded(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	h.begin(t, p, 0) // the second begin without an outcome: the next would be isolated
	img := h.reprocess(t, p, 0)
	for name, err := range map[string]error{
		"finish":   h.Finish(t.Context(), a, result(a)),
		"retry":    h.Retry(t.Context(), a, sourceTimeout(), policy()),
		"postpone": h.Postpone(t.Context(), a.Job, hostBusy(), policy(), 0),
		"release":  h.Release(t.Context(), a),
	} {
		if !errors.Is(err, catalog.ErrSuperseded) {
			t.Errorf("%s: got %v, want superseded", name, err)
		}
	}
	if _, err := h.Begin(t.Context(), a.Job, budget); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("got %v, want done", err)
	}
	b := h.begin(t, p, 0)
	if b.JobID != img.JobID || b.Isolated || b.Number != 1 || b.FencingToken <= a.FencingToken {
		t.Errorf("got %+v, want a first attempt", b)
	}
	if h.store.deletions[a.Prefix] == nil {
		t.Error("the deletion of the first attempt's objects is not scheduled")
	}
}

func testReprocessUnknownOutcomeIsNotConfirmedByNewRequest(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	rolledBack := h.store.row(p.ID)
	h.store.afterCommit = func() error {
		h.store.afterCommit = func() error { return nil }
		// The COMMIT failed. Before confirmCommit reads the row, a client reprocesses the image.
		h.store.products[p.ID] = rolledBack
		h.store.mu.Unlock()
		defer h.store.mu.Lock()
		h.reprocess(t, p, 0)
		return catalog.ErrOutcomeUnknown
	}
	if err := h.Finish(t.Context(), a, result(a)); !errors.Is(err, catalog.ErrOutcomeUnknown) {
		t.Errorf("got %v, want unknown: the attempt was not committed", err)
	}
	if err := h.Finish(t.Context(), a, result(a)); !errors.Is(err, catalog.ErrSuperseded) {
		t.Errorf("got %v, want superseded", err)
	}
}

func testReprocessUnknownImageIsNotFound(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p, gone := h.create(t, 1), h.create(t, 1)
	if err := h.Delete(t.Context(), gone.ID, nil, ""); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		product catalog.ProductID
		image   catalog.ImageID
		code    string
	}{
		{99, 1, "product_not_found"}, {gone.ID, gone.Images[0].ID, "product_not_found"},
		{p.ID, gone.Images[0].ID, "image_not_found"},
	} {
		if _, err := h.Reprocess(t.Context(), row.product, row.image, ""); fault.CodeOf(err) != row.code {
			t.Errorf("image %d of product %d:  got %v, want %s", row.image, row.product, err, row.code)
		}
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	t.Run("dead_event_is_replayed_once", testReplayDeadEventIsReplayedOnce)
	t.Run("only_ready_image_with_reprocess_error_is_replayed", testReplayOnlyReadyImageWithReprocessErrorIsReplayed)
	t.Run("unknown_image_is_not_found", testReplayUnknownImageIsNotFound)
}

func testReplayDeadEventIsReplayedOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	if err := h.Fail(t.Context(), a, httpNotFound()); err != nil {
		t.Fatal(err)
	}
	dead, err := event.Decode[event.ImageDead](h.store.sent(event.TypeImageDead)[0].Message)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Replay(t.Context(), p.ID, a.ImageID, dead.FencingToken); err != nil {
		t.Fatal(err)
	}
	if img := h.product(t, p.ID).Images[0]; img.Status != catalog.Pending || img.JobState != catalog.Queued {
		t.Errorf("got %+v, want it queued", img)
	}
	if err := h.Replay(t.Context(), p.ID, a.ImageID, dead.FencingToken); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("queued: got %v, want done", err)
	}
	if err := h.Fail(t.Context(), h.begin(t, p, 0), httpNotFound()); err != nil {
		t.Fatal(err)
	}
	if err := h.Replay(t.Context(), p.ID, a.ImageID, dead.FencingToken); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("after another failure: got %v, want done", err)
	}
}

func testReplayOnlyReadyImageWithReprocessErrorIsReplayed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.complete(t, p, 0)
	if err := h.Replay(t.Context(), p.ID, a.ImageID, a.FencingToken); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("got %v, want done: the image is ready and has no reprocess error", err)
	}
	h.reprocess(t, p, 0)
	b := h.begin(t, p, 0)
	if err := h.Fail(t.Context(), b, httpNotFound()); err != nil {
		t.Fatal(err)
	}
	if err := h.Replay(t.Context(), p.ID, a.ImageID, b.FencingToken); err != nil {
		t.Error(err)
	}
	if img := h.product(t, p.ID).Images[0]; img.Status != catalog.Ready || img.ReprocessError != "" {
		t.Errorf("got %+v, want it ready and queued", img)
	}
}

func testReplayUnknownImageIsNotFound(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 0)
	if err := h.Replay(t.Context(), p.ID, 99, 1); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v, want not found", err)
	}
}

func TestReprocessIf(t *testing.T) {
	t.Parallel()
	t.Run("delay_postpones_job_and_age", testReprocessIfDelayPostponesJobAndAge)
	t.Run("queued_or_unmatched_image_is_done", testReprocessIfQueuedOrUnmatchedImageIsDone)
	t.Run("unsaved_pipeline_is_an_error", testReprocessIfUnsavedPipelineIsAnError)
}

func testReprocessIfDelayPostponesJobAndAge(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	if err := h.Fail(t.Context(), h.begin(t, p, 0), catalog.WorkerCrash()); err != nil {
		t.Fatal(err)
	}
	failed := catalog.Filter{Status: catalog.Failed}
	if err := h.ReprocessIf(t.Context(), p.ID, p.Images[0].ID, failed, 20*time.Hour); err != nil {
		t.Fatal(err)
	}
	img, due := h.product(t, p.ID).Images[0], h.store.now.Add(20*time.Hour)
	if !img.NotBefore.Equal(due) || !img.DueAt.Equal(due) || !img.ReleasedAt.IsZero() || img.Class != catalog.Bulk {
		t.Errorf("got %+v, want a bulk job that is due at %s", img, due)
	}
	if err := h.Republish(t.Context(), p.ID, img.ID, h.store.now.Add(1), time.Minute); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("got %v: a delayed job must not be republished before it is due", err)
	}
	h.store.now = due.Add(5 * time.Hour)
	if err := h.Defer(t.Context(), h.begin(t, p, 0), storageFailed(), policy(), 0); err != nil {
		t.Errorf("got %v, want it deferred: its age is five hours, not a day", err)
	}
}

func testReprocessIfQueuedOrUnmatchedImageIsDone(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 2)
	h.complete(t, p, 1)
	for i, filter := range []catalog.Filter{{}, {Status: catalog.Failed}} {
		if err := h.ReprocessIf(t.Context(), p.ID, p.Images[i].ID, filter, 0); !errors.Is(err, catalog.ErrDone) {
			t.Errorf("image %d: got %v, want done", i, err)
		}
	}
	if err := h.ReprocessIf(t.Context(), p.ID, p.Images[1].ID, catalog.Filter{}, 0); err != nil {
		t.Error(err)
	}
	if err := h.ReprocessIf(t.Context(), p.ID, p.Images[1].ID, catalog.Filter{}, 0); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("queued: got %v, want done", err)
	}
	if n := len(h.requestedImages(t)); n != 2 {
		t.Errorf("got %d requests, want 2: a bulk job waits for the scheduler", n)
	}
	h.store.releaseDue(t)
	if n := len(h.requestedImages(t)); n != 3 {
		t.Errorf("got %d requests, want 3", n)
	}
}

func testReprocessIfUnsavedPipelineIsAnError(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.store.afterCommit = func() error { return fault.New(fault.Unavailable, "down", "down") }
	for name, err := range map[string]error{
		"reprocess": h.ReprocessIf(t.Context(), 1, 1, catalog.Filter{}, 0),
		"patch":     second(h.Patch(t.Context(), 1, images(url(0)), nil, "")),
	} {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: got %v, want unavailable", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestFilterMatches(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	img := catalog.Image{
		Status: catalog.Ready, ErrorCode: media.HTTPStatus, ReprocessError: media.Timeout, PipelineHash: "a",
		RequestedAt: now.Add(-time.Hour),
	}
	for name, row := range map[string]struct {
		filter catalog.Filter
		want   bool
	}{
		"no condition":       {catalog.Filter{}, true},
		"its status":         {catalog.Filter{Status: catalog.Ready}, true},
		"another status":     {catalog.Filter{Status: catalog.Failed}, false},
		"its code":           {catalog.Filter{Code: media.Timeout}, true},
		"its failure's code": {catalog.Filter{Code: media.HTTPStatus}, true},
		"another code":       {catalog.Filter{Code: media.Corrupt}, false},
		"its age":            {catalog.Filter{OlderThan: time.Hour}, false},
		"younger":            {catalog.Filter{OlderThan: time.Hour - 1}, true},
		"its pipeline":       {catalog.Filter{PipelineHash: "a"}, true},
		"another pipeline":   {catalog.Filter{PipelineHash: "b"}, false},
		"one of two matches": {catalog.Filter{Status: catalog.Ready, PipelineHash: "b"}, false},
	} {
		if got := row.filter.Matches(img, now); got != row.want {
			t.Errorf("%s: got %v, want %v", name, got, row.want)
		}
	}
}
