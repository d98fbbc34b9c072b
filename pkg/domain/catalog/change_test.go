package catalog_test

import (
	"errors"
	"slices"
	"testing"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

func TestPatch(t *testing.T) {
	t.Parallel()

	t.Run("given_fields_change_and_are_announced", testPatchGivenFieldsChangeAndAreAnnounced)
	t.Run("patch_without_effect_writes_nothing", testPatchPatchWithoutEffectWritesNothing)
	t.Run("repeated_patch_writes_nothing", testPatchRepeatedPatchWritesNothing)
	t.Run("every_wrong_field_is_listed", testPatchEveryWrongFieldIsListed)
	t.Run("unknown_or_deleted_product_is_not_found", testPatchUnknownOrDeletedProductIsNotFound)
}

func testPatchGivenFieldsChangeAndAreAnnounced(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	woken := h.wakes.Load()
	name, text, price := "Desk", "A desk.", dec("99.99")
	got := h.patch(t, p.ID, catalog.ProductPatch{Name: &name, Description: &text, Price: &price})
	if got.Name != name || got.Description != text || !got.Price.Equal(price) || len(got.Images) != 1 {
		t.Errorf("got %+v", got)
	}
	if got.Version != 2 || got.Revision != 2 || h.cache.tombstones[p.ID] != 2 || h.wakes.Load() == woken {
		t.Errorf("got version %d and revision %d, cache invalidated to %d", got.Version, got.Revision, h.cache.tombstones[p.ID])
	}
	changed := h.store.sent(event.TypeProductChanged)
	c, err := event.Decode[event.ProductChanged](changed[len(changed)-1].Message)
	if err != nil || c.Version != 2 || c.Deleted {
		t.Errorf("got %+v, %v, want version 2", c, err)
	}
	if got := h.requestedImages(t); len(got) != 1 {
		t.Errorf("images %v were queued, want only the first time", got)
	}
}

func testPatchPatchWithoutEffectWritesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 2)
	woken := h.wakes.Load()
	price := dec("12.500")
	for name, patch := range map[string]catalog.ProductPatch{
		"empty": {}, "the same": {Name: &p.Name, Description: &p.Description, Price: &price, ImageURLs: &p.ImageURLs},
	} {
		if got := h.patch(t, p.ID, patch); got.Version != 1 || got.Revision != 1 {
			t.Errorf("%s: got version %d and revision %d, want 1", name, got.Version, got.Revision)
		}
	}
	if len(h.store.outbox) != 3 || h.wakes.Load() != woken {
		t.Errorf("got %d messages, want the three of the creation", len(h.store.outbox))
	}
}

func testPatchRepeatedPatchWritesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	h.store.outbox = nil // the messages of the creation
	first := h.patch(t, p.ID, images(url(1), url(0), url(1)))
	repeated := h.patch(t, p.ID, images(url(1), url(0), url(1)))
	if first.Version != repeated.Version || !slices.EqualFunc(first.Images, repeated.Images, sameID) {
		t.Errorf("got version %d after %d, or other images", repeated.Version, first.Version)
	}
	if got := h.requestedImages(t); len(got) != 2 {
		t.Errorf("images %v were queued, want only the new ones", got)
	}
}

func testPatchEveryWrongFieldIsListed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 0)
	empty, long, price := "", string(make([]byte, catalog.MaxDescriptionChars+1)), dec("-1")
	_, err := h.Patch(t.Context(), p.ID, catalog.ProductPatch{
		Name: &empty, Description: &long, Price: &price, ImageURLs: &[]string{"ftp://example.com/a.jpg"},
	}, nil, "")
	want := []string{"product_name", "product_description", "product_price", "product_images[0]"}
	if got := fault.From(err); got == nil || len(got.Fields) != len(want) {
		t.Fatalf("got %v, want %v", err, want)
	} else {
		for i, f := range got.Fields {
			if f.Path != want[i] {
				t.Errorf("got %s, want %s", f.Path, want[i])
			}
		}
	}
	if got := h.product(t, p.ID); got.Version != 1 {
		t.Errorf("got %+v", got)
	}
}

func testPatchUnknownOrDeletedProductIsNotFound(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 0)
	if err := h.Delete(t.Context(), p.ID, nil, ""); err != nil {
		t.Fatal(err)
	}
	for _, id := range []catalog.ProductID{p.ID, 99} {
		if _, err := h.Patch(t.Context(), id, images(url(0)), catalog.Revisions{1, 2}, ""); !fault.Is(err, fault.NotFound) {
			t.Errorf("product %d: got %v, want not found", id, err)
		}
	}
}

// newName returns a patch of the product's name.
func newName() catalog.ProductPatch {
	name := "Desk"
	return catalog.ProductPatch{Name: &name}
}

func sameID(a, b catalog.Image) bool {
	return a.ID == b.ID && a.JobID == b.JobID && a.Position == b.Position
}

func TestPatchImages(t *testing.T) {
	t.Parallel()

	t.Run("kept_url_keeps_its_row_and_new_url_is_queued", testPatchImagesKeptURLKeepsItsRow)
	t.Run("images_with_one_url_keep_their_order", testPatchImagesWithOneURLKeepTheirOrder)
	t.Run("objects_of_removed_image_are_deleted_after_the_grace", testPatchImagesObjectsOfRemovedImageAreDeletedAfterTheGrace)
	t.Run("attempt_on_removed_image_is_superseded", testPatchImagesAttemptOnRemovedImageIsSuperseded)
	t.Run("attempt_on_moved_image_finishes", testPatchImagesAttemptOnMovedImageFinishes)
}

func testPatchImagesKeptURLKeepsItsRow(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 3)
	a, b := h.complete(t, p, 0), h.complete(t, p, 2)
	before := h.product(t, p.ID)
	got, err := h.Patch(t.Context(), p.ID, images(url(2), url(7), url(0)), nil, "trace")
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[int]int{2: 0, 0: 2} {
		want := before.Images[from]
		want.Position = to
		img := got.Images[to]
		if !slices.Equal(img.Renditions, want.Renditions) || !sameID(img, want) || img.FencingToken != want.FencingToken {
			t.Errorf("got %+v, want %+v", img, want)
		}
	}
	if want := []string{b.Prefix + "full.jpg", a.Prefix + "full.jpg"}; !slices.Equal(got.Compressed, want) {
		t.Errorf("got %v, want %v", got.Compressed, want)
	}
	added := got.Images[1]
	if added.ID <= 3 || added.Status != catalog.Pending || added.JobState != catalog.Queued ||
		added.PipelineHash != defaultPipeline().Hash() {
		t.Errorf("got %+v, want a new queued image", added)
	}
	requests := h.store.sent(event.TypeImageRequested)
	last := requests[len(requests)-1]
	r, err := event.Decode[event.ImageRequested](last.Message)
	if err != nil || len(requests) != 4 || last.ID != added.JobID || r.ImageID != int64(added.ID) || r.SourceURL != url(7) ||
		last.Traceparent != "trace" {
		t.Errorf("got %d requests, the last %+v of %+v, %v", len(requests), r, last.Message, err)
	}
	h.complete(t, got, 1) // by that job
	if _, err := h.store.Pipeline(t.Context(), added.PipelineHash); err != nil {
		t.Errorf("the pipeline is not saved: %v", err)
	}
}

func testPatchImagesWithOneURLKeepTheirOrder(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.patch(t, h.create(t, 0).ID, images(url(0), url(1), url(0)))
	first, other, second := p.Images[0].ID, p.Images[1].ID, p.Images[2].ID
	for _, row := range []struct {
		urls []string
		want []catalog.ImageID // 0 is a new one
	}{
		{[]string{url(0), url(0), url(1)}, []catalog.ImageID{first, second, other}},
		{[]string{url(0), url(0), url(0)}, []catalog.ImageID{first, second, 0}},
		{[]string{url(0)}, []catalog.ImageID{first}},
	} {
		got := h.patch(t, p.ID, images(row.urls...))
		for i, img := range got.Images {
			known := img.ID == first || img.ID == second || img.ID == other
			if row.want[i] == 0 == known || known && img.ID != row.want[i] || img.Position != i {
				t.Errorf("%v: image %d has id %d, want %d", row.urls, i, img.ID, row.want[i])
			}
		}
	}
}

func testPatchImagesObjectsOfRemovedImageAreDeletedAfterTheGrace(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 2)
	a, b := h.complete(t, p, 0), h.complete(t, p, 1)
	got := h.patch(t, p.ID, images(url(1)))
	h.wantDeletion(t, a.Prefix)
	if h.store.deletions[b.Prefix] != nil {
		t.Error("the kept image's objects will be deleted")
	}
	if len(got.Images) != 1 || !slices.Equal(got.Compressed, []string{b.Prefix + "full.jpg"}) {
		t.Errorf("got %+v", got)
	}
	back := h.patch(t, p.ID, images(url(0), url(1)))
	if back.Images[0].ID == a.ImageID || len(back.Images[0].Renditions) != 0 {
		t.Errorf("got %+v, want a new image: the old objects will be deleted", back.Images[0])
	}
}

func testPatchImagesAttemptOnRemovedImageIsSuperseded(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 2)
	seen := h.complete(t, p, 0)
	h.reprocess(t, p, 0)
	a := h.begin(t, p, 0)
	h.patch(t, p.ID, images(url(1)))
	for name, err := range map[string]error{
		"finish":   h.Finish(t.Context(), a, result(a)),
		"fail":     h.Fail(t.Context(), a, sourceTimeout()),
		"retry":    h.Retry(t.Context(), a, sourceTimeout(), policy()),
		"defer":    h.Defer(t.Context(), a, sourceTimeout(), policy(), 0),
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
	if err := h.Republish(t.Context(), p.ID, a.ImageID, h.store.now.Add(1), 0); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("got %v, want done", err)
	}
	if h.store.deletions[a.Prefix] == nil {
		t.Error("the deletion of the attempt's objects is not scheduled")
	}
	h.wantDeletion(t, seen.Prefix)
}

func testPatchImagesAttemptOnMovedImageFinishes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 2)
	a := h.begin(t, p, 0)
	h.patch(t, p.ID, images(url(1), url(0)))
	if err := h.Finish(t.Context(), a, result(a)); err != nil {
		t.Fatal(err)
	}
	if got := h.product(t, p.ID); got.Images[1].Status != catalog.Ready || got.Revision != 2 || got.Version != 3 {
		t.Errorf("got %+v", got)
	}
}

func TestRevisions(t *testing.T) {
	t.Parallel()
	t.Run("other_revision_is_a_mismatch", testRevisionsOtherRevisionIsAMismatch)
	t.Run("outcomes_do_not_raise_the_revision", testRevisionsOutcomesDoNotRaiseTheRevision)
	t.Run("repeated_patch_of_unknown_outcome_is_a_mismatch", testRevisionsRepeatedPatchOfUnknownOutcomeIsAMismatch)
}

func testRevisionsOtherRevisionIsAMismatch(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	for name, seen := range map[string]catalog.Revisions{"another": {2}, "none": {}} {
		if _, err := h.Patch(t.Context(), p.ID, newName(), seen, ""); !errors.Is(err, catalog.ErrRevision) {
			t.Errorf("%s: got %v, want a mismatch", name, err)
		}
		if err := h.Delete(t.Context(), p.ID, seen, ""); !errors.Is(err, catalog.ErrRevision) {
			t.Errorf("%s: got %v, want a mismatch", name, err)
		}
	}
	if got := h.product(t, p.ID); got.Version != 1 || got.Revision != 1 {
		t.Errorf("got %+v, want nothing changed", got)
	}
	if got, err := h.Patch(t.Context(), p.ID, newName(), catalog.Revisions{9, 1}, ""); err != nil || got.Revision != 2 {
		t.Errorf("got %+v, %v, want revision 2", got, err)
	}
}

func testRevisionsOutcomesDoNotRaiseTheRevision(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 2)
	h.complete(t, p, 0)
	if err := h.Fail(t.Context(), h.begin(t, p, 1), media.Fail(media.Corrupt, "no", nil)); err != nil {
		t.Fatal(err)
	}
	h.reprocess(t, p, 1)
	if got, err := h.Patch(t.Context(), p.ID, newName(), catalog.Revisions{1}, ""); err != nil || got.Version != 5 {
		t.Errorf("got %+v, %v, want the patch to apply", got, err)
	}
}

func testRevisionsRepeatedPatchOfUnknownOutcomeIsAMismatch(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 0)
	h.store.afterCommit = func() error { return catalog.ErrOutcomeUnknown }
	if _, err := h.Patch(t.Context(), p.ID, newName(), catalog.Revisions{1}, ""); !errors.Is(err, catalog.ErrOutcomeUnknown) {
		t.Errorf("got %v, want unknown", err)
	}
	h.store.afterCommit = func() error { return nil }
	if _, err := h.Patch(t.Context(), p.ID, newName(), catalog.Revisions{1}, ""); !errors.Is(err, catalog.ErrRevision) {
		t.Errorf("got %v, want a mismatch: the first patch was committed", err)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()

	t.Run("product_images_and_attempts_end", testDeleteProductImagesAndAttemptsEnd)
	t.Run("second_delete_is_not_found", testDeleteSecondDeleteIsNotFound)
	t.Run("cached_document_is_invalidated", testDeleteCachedDocumentIsInvalidated)
}

func testDeleteProductImagesAndAttemptsEnd(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 3)
	seen, working := h.complete(t, p, 0), h.begin(t, p, 1)
	if err := h.Delete(t.Context(), p.ID, catalog.Revisions{1}, "trace"); err != nil {
		t.Fatal(err)
	}
	h.wantDeletion(t, seen.Prefix)
	if h.store.deletions[working.Prefix] == nil {
		t.Error("the deletion of the attempt's objects is not scheduled")
	}
	gone := h.store.row(p.ID)
	for _, img := range gone.Images {
		if img.JobState != catalog.Idle || img.JobID != "" || !img.DueAt.IsZero() {
			t.Errorf("got %+v, want no work on it", img)
		}
	}
	if gone.Images[1].FencingToken <= working.FencingToken || gone.Revision != 2 {
		t.Errorf("got %+v, want a fencing token above %d and revision 2", gone, working.FencingToken)
	}
	if err := h.Finish(t.Context(), working, result(working)); !errors.Is(err, catalog.ErrSuperseded) {
		t.Errorf("got %v, want superseded", err)
	}
	if _, err := h.Begin(t.Context(), working.Job, budget); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("got %v, want done", err)
	}
	changed := h.store.sent(event.TypeProductChanged)
	last := changed[len(changed)-1]
	c, err := event.Decode[event.ProductChanged](last.Message)
	if err != nil || !c.Deleted || c.Version != 3 || last.Traceparent != "trace" {
		t.Errorf("got %+v, %v, want a deletion at version 3", c, err)
	}
	if _, err := h.Get(t.Context(), p.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v, want not found", err)
	}
}

func testDeleteSecondDeleteIsNotFound(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	if err := h.Delete(t.Context(), p.ID, nil, ""); err != nil {
		t.Fatal(err)
	}
	for _, id := range []catalog.ProductID{p.ID, 99} {
		if err := h.Delete(t.Context(), id, nil, ""); !fault.Is(err, fault.NotFound) {
			t.Errorf("product %d: got %v, want not found", id, err)
		}
	}
	if got := h.store.row(p.ID); got.Version != 2 || len(h.store.sent(event.TypeProductChanged)) != 2 {
		t.Errorf("got version %d, want 2", got.Version)
	}
}

func testDeleteCachedDocumentIsInvalidated(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 0)
	if _, err := h.Get(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.Delete(t.Context(), p.ID, nil, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Get(t.Context(), p.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v, want not found", err)
	}
}
