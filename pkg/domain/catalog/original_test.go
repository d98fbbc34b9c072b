package catalog_test

import (
	"errors"
	"strings"
	"testing"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/pipeline"
)

// keep changes whether the pipeline in force keeps originals.
func (h *harness) keep(keep bool) {
	p := pipeline.Default()
	p.Spec.Originals.Keep = keep
	h.Pipeline = func() *pipeline.Revision { return pipeline.NewRevision(p) }
}

// keeping returns a harness whose pipeline keeps originals, with a product whose image is ready and has one.
func keeping(t *testing.T) (*harness, catalog.Product) {
	t.Helper()
	h := newHarness(t)
	h.Backfills = openBackfills{backfillID: true}
	h.keep(true)
	p := h.create(t, 1)
	h.finishWith(t, h.begin(t, p, 0), "ab", true)
	return h, h.product(t, p.ID)
}

// finishWith finishes an attempt that has read a source with that SHA-256, and has stored it or not.
func (h *harness) finishWith(t *testing.T, a catalog.Attempt, sum string, stored bool) {
	t.Helper()
	r := result(a)
	if r.SourceSHA256 = sum; stored {
		r.OriginalKey = a.OriginalPrefix + "source"
	}
	if err := h.Finish(t.Context(), a, r); err != nil {
		t.Fatal(err)
	}
}

// wantOriginal reports an image with another original, and an original that is scheduled for deletion.
func (h *harness) wantOriginal(t *testing.T, p catalog.Product, key string) {
	t.Helper()
	if got := h.product(t, p.ID).Images[0].OriginalKey; got != key {
		t.Errorf("got the original %q, want %q", got, key)
	}
	for prefix := range h.store.deletions {
		if key != "" && strings.HasPrefix(key, prefix) {
			t.Errorf("the deletion of %s is scheduled", prefix)
		}
	}
}

// prefixOf returns the prefix of a key.
func prefixOf(key string) string { return key[:strings.LastIndexByte(key, '/')+1] }

func TestOriginal(t *testing.T) {
	t.Parallel()
	t.Run("attempt_has_a_prefix_only_if_originals_are_kept", testOriginalPrefix)
	t.Run("finish_adopts_it", testOriginalAdopted)
	t.Run("attempt_without_outcome_leaves_its_deletion", testOriginalCrashed)
	t.Run("new_download_replaces_it", testOriginalReplaced)
	t.Run("another_source_without_an_original_removes_it", testOriginalRemoved)
	t.Run("goes_with_its_image", testOriginalGoesWithImage)
	t.Run("goes_with_its_product", testOriginalGoesWithProduct)
	t.Run("backfill_reads_it_and_keeps_it", testOriginalBackfill)
	t.Run("backfill_skips_an_image_without_one", testOriginalSkipped)
	t.Run("attempt_is_skipped", testOriginalAttemptSkipped)
	t.Run("is_forgotten_by_its_key", testOriginalForgotten)
	t.Run("is_forgotten_during_an_attempt", testOriginalForgottenInAttempt)
}

func testOriginalPrefix(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 2)
	if a := h.begin(t, p, 0); a.OriginalPrefix != "" || len(h.store.deletions) != 1 {
		t.Errorf("not kept: got %q and %d deletions", a.OriginalPrefix, len(h.store.deletions))
	}
	h.keep(true)
	a := h.begin(t, p, 1)
	if !catalog.IsOriginal(a.OriginalPrefix) || catalog.IsOriginal(a.Prefix) {
		t.Errorf("got %q beside %q", a.OriginalPrefix, a.Prefix)
	}
	if _, image, ok := catalog.PrefixOf(a.OriginalPrefix + "source"); !ok || image != p.Images[1].ID {
		t.Errorf("%q is not recognized as of image %d", a.OriginalPrefix, p.Images[1].ID)
	}
	_, nonce, _ := strings.Cut(strings.Trim(a.Prefix, "/"), "-")
	if strings.Contains(a.OriginalPrefix, nonce) {
		t.Errorf("%q follows from the public prefix %q", a.OriginalPrefix, a.Prefix)
	}
	if d := h.store.deletions[a.OriginalPrefix]; d == nil || !d.due.Equal(h.store.now.Add(budget)) {
		t.Errorf("got the deletion %+v, want it after the budget", d)
	}
}

func testOriginalAdopted(t *testing.T) {
	t.Parallel()
	h, p := keeping(t)
	key := p.Images[0].OriginalKey
	if !strings.HasSuffix(key, "/source") {
		t.Errorf("got %q", key)
	}
	h.wantOriginal(t, p, key)
	if len(h.store.deletions) != 0 {
		t.Errorf("got the deletions %v, want none", h.store.deletions)
	}
}

func testOriginalCrashed(t *testing.T) {
	t.Parallel()
	h, p := keeping(t)
	h.reprocess(t, p, 0)
	first := h.begin(t, p, 0)
	second := h.begin(t, p, 0)
	r := result(first)
	r.OriginalKey = first.OriginalPrefix + "source"
	if err := h.Finish(t.Context(), first, r); !errors.Is(err, catalog.ErrSuperseded) {
		t.Fatalf("got %v", err)
	}
	if err := h.Fail(t.Context(), second, httpNotFound()); err != nil {
		t.Fatal(err)
	}
	for _, a := range []catalog.Attempt{first, second} {
		if h.store.deletions[a.OriginalPrefix] == nil {
			t.Errorf("nothing deletes %s", a.OriginalPrefix)
		}
	}
	h.wantOriginal(t, p, p.Images[0].OriginalKey)
}

func testOriginalReplaced(t *testing.T) {
	t.Parallel()
	for _, sum := range []string{"ab", "cd"} { // of the same source, too: the object may have been damaged
		h, p := keeping(t)
		h.reprocess(t, p, 0)
		a := h.begin(t, p, 0)
		if a.Original.Key != "" {
			t.Errorf("the attempt of a client reads %+v", a.Original)
		}
		h.finishWith(t, a, sum, true)
		h.wantOriginal(t, p, a.OriginalPrefix+"source")
		h.wantDeletion(t, prefixOf(p.Images[0].OriginalKey))
	}
}

func testOriginalRemoved(t *testing.T) {
	t.Parallel()
	h, p := keeping(t)
	key := p.Images[0].OriginalKey
	h.keep(false)
	h.reprocess(t, p, 0)
	h.finishWith(t, h.begin(t, p, 0), "ab", false)
	h.wantOriginal(t, p, key)
	h.reprocess(t, p, 0)
	h.finishWith(t, h.begin(t, p, 0), "cd", false)
	h.wantOriginal(t, p, "")
	h.wantDeletion(t, prefixOf(key))
}

func testOriginalGoesWithImage(t *testing.T) {
	t.Parallel()
	h, p := keeping(t)
	h.patch(t, p.ID, images(url(7)))
	h.wantDeletion(t, prefixOf(p.Images[0].OriginalKey))
}

func testOriginalGoesWithProduct(t *testing.T) {
	t.Parallel()
	h, p := keeping(t)
	if err := h.Delete(t.Context(), p.ID, nil, ""); err != nil {
		t.Fatal(err)
	}
	h.wantDeletion(t, prefixOf(p.Images[0].OriginalKey))
	h.wantDeletion(t, prefixOf(p.Images[0].Renditions[0].Key))
}

func testOriginalBackfill(t *testing.T) {
	t.Parallel()
	h, p := keeping(t)
	key := p.Images[0].OriginalKey
	if err := h.requestBackfill(t, p, func(catalog.UserID, catalog.Image) bool { return true }); err != nil {
		t.Fatal(err)
	}
	h.store.releaseDue(t)
	m := h.store.sent(event.TypeImageBackfill)
	b, err := event.Decode[event.ImageBackfill](m[0].Message)
	if err != nil || b.Source != event.SourceOriginal || b.SourceURL != p.Images[0].SourceURL {
		t.Errorf("got %+v, %v, want the original, and the URL for older workers", b, err)
	}
	a, err := h.beginBackfill(t, p)
	if want := (catalog.Original{Key: key, SHA256: "ab", Bytes: 3}); err != nil || a.Original != want || a.SkipMissing {
		t.Fatalf("got %+v, %v, want %+v", a, err, want)
	}
	h.finishWith(t, a, "ab", false)
	h.wantOriginal(t, p, key)
	h.wantDeletion(t, prefixOf(p.Images[0].Renditions[0].Key))
	if len(h.store.deletions) != 1 {
		t.Errorf("got the deletions %v, want that of the replaced renditions", h.store.deletions)
	}
}

// skipping requests the image for a backfill that skips images without an original.
func (h *harness) skipping(t *testing.T, p catalog.Product) {
	t.Helper()
	err := h.RequestBackfill(t.Context(), p.ID, p.Images[0].ID, catalog.BackfillRequest{
		BackfillID: backfillID, PipelineHash: "target", SkipMissing: true,
		Selected: func(catalog.UserID, catalog.Image) bool { return true },
	})
	if err != nil {
		t.Fatal(err)
	}
}

func testOriginalSkipped(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	h.complete(t, p, 0)
	p = h.product(t, p.ID)
	h.store.takeDue(t)
	h.skipping(t, p)
	h.wantVisible(t, "skipped", p)
	if img := h.product(t, p.ID).Images[0]; img.JobState != catalog.Idle || img.BackfillID != backfillID {
		t.Errorf("got %+v, want it idle and tried", img)
	}
	h.wantEvents(t, catalog.BackfillRequested) // and no job: it counts as skipped
}

func testOriginalAttemptSkipped(t *testing.T) {
	t.Parallel()
	h, p := keeping(t)
	if err := h.Skip(t.Context(), catalog.Attempt{Job: catalog.Job{ProductID: p.ID}}); !errors.Is(err, catalog.ErrSuperseded) {
		t.Errorf("without an attempt: got %v", err)
	}
	h.store.takeDue(t)
	h.skipping(t, p)
	a, err := h.beginBackfill(t, p)
	if err != nil || !a.SkipMissing || a.Original.Key == "" {
		t.Fatalf("got %+v, %v", a, err)
	}
	if err := h.Skip(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	h.wantVisible(t, "skipped", p)
	if img := h.product(t, p.ID).Images[0]; img.JobState != catalog.Idle || img.BackfillID != backfillID {
		t.Errorf("got %+v, want it idle and tried", img)
	}
	h.wantEvents(t, catalog.BackfillRequested)
	h.reprocess(t, p, 0)
	if err := h.Skip(t.Context(), h.begin(t, p, 0)); err == nil {
		t.Error("the attempt of a client was skipped")
	}
}

func testOriginalForgotten(t *testing.T) {
	t.Parallel()
	h, p := keeping(t)
	img := p.Images[0]
	h.store.takeDue(t)
	if err := h.ForgetOriginal(t.Context(), p.ID, img.ID, "originals/1/1/1-other/source"); !errors.Is(err, catalog.ErrDone) {
		t.Errorf("of another key: got %v", err)
	}
	h.wantOriginal(t, p, img.OriginalKey)
	if err := h.ForgetOriginal(t.Context(), p.ID, img.ID, img.OriginalKey); err != nil {
		t.Fatal(err)
	}
	h.wantVisible(t, "forgotten", p)
	h.wantOriginal(t, p, "")
	h.wantDeletion(t, prefixOf(img.OriginalKey))
}

// testOriginalForgottenInAttempt is the test that the attempt that has found an original damaged stays the current one, and
// that its own original, if it keeps one, is that of the image.
func testOriginalForgottenInAttempt(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{true, false} {
		h, p := keeping(t)
		img := p.Images[0]
		h.keep(keep)
		if err := h.requestBackfill(t, p, func(catalog.UserID, catalog.Image) bool { return true }); err != nil {
			t.Fatal(err)
		}
		a, err := h.beginBackfill(t, p)
		if err != nil || a.Original.Key != img.OriginalKey {
			t.Fatalf("got %+v, %v", a, err)
		}
		if err := h.ForgetOriginal(t.Context(), p.ID, img.ID, a.Original.Key); err != nil {
			t.Fatal(err)
		}
		h.finishWith(t, a, "ab", keep) // the same source
		want := ""
		if keep {
			want = a.OriginalPrefix + "source"
		}
		h.wantOriginal(t, p, want)
		h.wantDeletion(t, prefixOf(img.OriginalKey))
	}
}
