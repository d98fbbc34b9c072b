package catalog_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

// openBackfills says which backfills are open.
type openBackfills map[int64]bool

func (o openBackfills) BackfillOpen(_ context.Context, id int64) (bool, error) { return o[id], nil }

const backfillID = 5

// backfilled returns a harness with a product whose image is ready and has a job of a backfill that is open.
func backfilled(t *testing.T) (*harness, catalog.Product) {
	t.Helper()
	h := newHarness(t)
	h.Backfills = openBackfills{backfillID: true}
	p := h.create(t, 1)
	h.complete(t, p, 0)
	p = h.product(t, p.ID)
	h.store.takeDue(t)
	if err := h.requestBackfill(t, p, func(catalog.UserID, catalog.Image) bool { return true }); err != nil {
		t.Fatal(err)
	}
	return h, p
}

func (h *harness) requestBackfill(t *testing.T, p catalog.Product, selected func(catalog.UserID, catalog.Image) bool) error {
	t.Helper()
	return h.RequestBackfill(t.Context(), p.ID, p.Images[0].ID, catalog.BackfillRequest{
		BackfillID: backfillID, PipelineHash: "target", Selected: selected,
	})
}

// beginBackfill begins the job of the backfill.
func (h *harness) beginBackfill(t *testing.T, p catalog.Product) (catalog.Attempt, error) {
	t.Helper()
	job := h.job(t, p.ID, 0)
	job.BackfillID = backfillID
	return h.Begin(t.Context(), job, budget)
}

// wantVisible reports an image that clients see in another state than before, or a message to them.
func (h *harness) wantVisible(t *testing.T, when string, before catalog.Product) {
	t.Helper()
	after := h.product(t, before.ID)
	x, y := before.Images[0], after.Images[0]
	if after.Version != before.Version || x.Status != y.Status || x.Attempts != y.Attempts || x.ErrorCode != y.ErrorCode ||
		x.ReprocessError != y.ReprocessError || y.ReprocessStatus() != x.ReprocessStatus() ||
		x.PipelineHash != y.PipelineHash || !x.RequestedAt.Equal(y.RequestedAt) ||
		!slices.Equal(x.Renditions, y.Renditions) {
		t.Errorf("%s: clients see version %d of %+v, want version %d of %+v", when, after.Version, y, before.Version, x)
	}
	for _, m := range h.store.takeDue(t) {
		if m.Type != event.TypeImageBackfill {
			t.Errorf("%s: %s was sent", when, m.Type)
		}
	}
}

// wantEvents reports events of backfills that are not of those kinds.
func (h *harness) wantEvents(t *testing.T, kinds ...catalog.BackfillEventKind) {
	t.Helper()
	var got []catalog.BackfillEventKind
	for _, e := range h.store.backfill {
		got = append(got, e.Kind)
	}
	if !slices.Equal(got, kinds) {
		t.Errorf("got the events %v, want %v", got, kinds)
	}
}

func TestBackfill(t *testing.T) {
	t.Parallel()
	t.Run("success_is_visible_and_request_is_not", testBackfillSuccess)
	t.Run("failure_leaves_image_as_it_was", testBackfillFailure)
	t.Run("failed_image_stays_failed_until_it_is_ready", testBackfillOfFailedImage)
	t.Run("crashing_workers_fail_nothing_visible", testBackfillWorkerCrash)
	t.Run("locked_row_decides", testBackfillLockedRow)
	t.Run("closed_backfill_drops_its_job_at_begin", testBackfillClosed)
	t.Run("attempt_is_dropped_when_its_time_is_up", testBackfillDropAttempt)
	t.Run("client_takes_the_image_over", testBackfillTakenOver)
}

func testBackfillSuccess(t *testing.T) {
	t.Parallel()
	h, before := backfilled(t)
	h.wantVisible(t, "requested", before)
	if !h.product(t, before.ID).Images[0].ReleasedAt.IsZero() {
		t.Error("the job was released with the request")
	}
	h.store.releaseDue(t)
	m := h.store.sent(event.TypeImageBackfill)
	if len(m) != 1 {
		t.Fatalf("%d messages of backfills were sent, want one", len(m))
	}
	if b, err := event.Decode[event.ImageBackfill](m[0].Message); err != nil || b.BackfillID != backfillID ||
		b.PipelineHash != "target" || m[0].Topic != event.TopicBackfill {
		t.Errorf("got %+v, %v on %s", b, err, m[0].Topic)
	}
	a, err := h.beginBackfill(t, before)
	if err != nil || a.PipelineHash != "target" || a.Number != 1 {
		t.Fatalf("got %+v, %v", a, err)
	}
	h.wantVisible(t, "begun", before)
	if err := h.Retry(t.Context(), a, sourceTimeout(), policy()); err != nil {
		t.Fatal(err)
	}
	h.wantVisible(t, "retried", before)
	if a, err = h.beginBackfill(t, before); err != nil || a.Number != 2 {
		t.Fatalf("got attempt %d, %v, want the second", a.Number, err)
	}
	r := result(a)
	r.OutputHash = "output"
	if err := h.Finish(t.Context(), a, r); err != nil {
		t.Fatal(err)
	}
	after := h.product(t, before.ID)
	img := after.Images[0]
	if after.Version != before.Version+1 || img.PipelineHash != "target" || img.OutputHash != "output" ||
		img.BackfillID != backfillID || img.Attempts != 2 || img.JobState != catalog.Idle || img.Backfill.ID != 0 {
		t.Errorf("got version %d of %+v", after.Version, img)
	}
	h.wantEvents(t, catalog.BackfillRequested, catalog.BackfillDone)
}

func testBackfillFailure(t *testing.T) {
	t.Parallel()
	h, before := backfilled(t)
	a, err := h.beginBackfill(t, before)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Fail(t.Context(), a, httpNotFound()); err != nil {
		t.Fatal(err)
	}
	h.wantVisible(t, "failed", before)
	img := h.product(t, before.ID).Images[0]
	if img.BackfillID != backfillID || img.JobState != catalog.Idle || img.FencingToken != a.FencingToken {
		t.Errorf("got %+v", img)
	}
	h.wantEvents(t, catalog.BackfillRequested, catalog.BackfillFailed)
	if e := h.store.backfill[1]; e.Code != media.HTTPStatus || e.BackfillID != backfillID || e.ImageID != img.ID {
		t.Errorf("got %+v", e)
	}
	err = h.requestBackfill(t, before, func(catalog.UserID, catalog.Image) bool { return true })
	if !errors.Is(err, catalog.ErrDone) {
		t.Errorf("got %v, want that the backfill has tried the image", err)
	}
}

func testBackfillOfFailedImage(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.Backfills = openBackfills{backfillID: true}
	p := h.create(t, 1)
	if err := h.Fail(t.Context(), h.begin(t, p, 0), media.Fail(media.TooLarge, "large", nil)); err != nil {
		t.Fatal(err)
	}
	p = h.product(t, p.ID)
	h.store.takeDue(t)
	err := h.requestBackfill(t, p, func(_ catalog.UserID, img catalog.Image) bool { return img.Status == catalog.Failed })
	if err != nil {
		t.Fatal(err)
	}
	h.wantVisible(t, "requested", p)
	a, err := h.beginBackfill(t, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Finish(t.Context(), a, result(a)); err != nil {
		t.Fatal(err)
	}
	if img := h.product(t, p.ID).Images[0]; img.Status != catalog.Ready || img.ErrorCode != "" {
		t.Errorf("got %+v, want it ready", img)
	}
}

func testBackfillWorkerCrash(t *testing.T) {
	t.Parallel()
	h, before := backfilled(t)
	var err error
	for range catalog.MaxUnreportedAttempts {
		_, err = h.beginBackfill(t, before)
	}
	if !errors.Is(err, catalog.ErrGivenUp) {
		t.Fatalf("got %v", err)
	}
	h.wantVisible(t, "given up", before)
	h.wantEvents(t, catalog.BackfillRequested, catalog.BackfillFailed)
}

func testBackfillLockedRow(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	all := func(catalog.UserID, catalog.Image) bool { return true }
	if err := h.requestBackfill(t, p, all); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("in work: got %v, want ErrDone", err)
	}
	h.complete(t, p, 0)
	err := h.requestBackfill(t, p, func(user catalog.UserID, _ catalog.Image) bool { return user != p.UserID })
	if !errors.Is(err, catalog.ErrDone) {
		t.Errorf("not selected: got %v, want ErrDone", err)
	}
	if err := h.Delete(t.Context(), p.ID, nil, ""); err != nil {
		t.Fatal(err)
	}
	if err := h.requestBackfill(t, p, all); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted: got %v, want not found", err)
	}
	h.wantEvents(t)
}

func testBackfillClosed(t *testing.T) {
	t.Parallel()
	h, before := backfilled(t)
	h.Backfills = openBackfills{}
	for range 2 { // the record may be delivered again
		if _, err := h.beginBackfill(t, before); !errors.Is(err, catalog.ErrDone) {
			t.Errorf("got %v, want ErrDone", err)
		}
	}
	h.wantVisible(t, "dropped", before)
	if img := h.product(t, before.ID).Images[0]; img.JobState != catalog.Idle || img.BackfillID != 0 {
		t.Errorf("got %+v, want it idle and not tried", img)
	}
	h.wantEvents(t, catalog.BackfillRequested, catalog.BackfillDropped)
}

func testBackfillDropAttempt(t *testing.T) {
	t.Parallel()
	h, before := backfilled(t)
	a, err := h.beginBackfill(t, before)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.DropBackfill(t.Context(), before.ID, a.ImageID, backfillID); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("in time: got %v, want ErrDone", err)
	}
	h.store.now = h.store.now.Add(budget + time.Second)
	if err := h.DropBackfill(t.Context(), before.ID, a.ImageID, backfillID); err != nil {
		t.Fatal(err)
	}
	if err := h.Finish(t.Context(), a, result(a)); !errors.Is(err, catalog.ErrSuperseded) {
		t.Errorf("the late attempt: got %v, want it superseded", err)
	}
	if img := h.product(t, before.ID).Images[0]; img.FencingToken <= a.FencingToken {
		t.Errorf("the fencing token is still %d: the attempt could take the drop for its own outcome", img.FencingToken)
	}
}

func testBackfillTakenOver(t *testing.T) {
	t.Parallel()
	h, before := backfilled(t)
	a, err := h.beginBackfill(t, before)
	if err != nil {
		t.Fatal(err)
	}
	img := h.reprocess(t, before, 0)
	if img.Class != catalog.Live || img.Backfill.ID != 0 || img.ReprocessStatus() != catalog.Pending || img.Attempts != 0 {
		t.Errorf("got %+v, want the job of a client", img)
	}
	if err := h.Finish(t.Context(), a, result(a)); !errors.Is(err, catalog.ErrSuperseded) {
		t.Errorf("got %v, want the attempt superseded", err)
	}
	h.wantEvents(t, catalog.BackfillRequested)
}
