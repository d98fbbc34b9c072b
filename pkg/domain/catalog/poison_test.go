package catalog_test

import (
	"errors"
	"testing"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/media"
)

// codecLost returns the failure of a codec that was lost to content, by its SHA-256.
func codecLost(code media.Code, content string) *media.Failure {
	return &media.Failure{Code: code, Detail: "the codec crashed", Content: content}
}

func TestPoisonContent(t *testing.T) {
	t.Parallel()

	t.Run("second_codec_loss_fails_the_image", testPoisonContentSecondCodecLossFailsTheImage)
	t.Run("other_content_is_counted_apart", testPoisonContentOtherContentIsCountedApart)
	t.Run("deferral_keeps_the_content", testPoisonContentDeferralKeepsTheContent)
	t.Run("finish_clears_the_content", testPoisonContentFinishClearsTheContent)
	t.Run("reprocess_clears_the_content", testPoisonContentReprocessClearsTheContent)
}

func testPoisonContentSecondCodecLossFailsTheImage(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	a := h.begin(t, p, 0)
	if a.PoisonSHA256 != "" {
		t.Errorf("the first attempt has poison %q", a.PoisonSHA256)
	}
	for _, f := range []*media.Failure{codecLost(media.CodecTimeout, "aa"), sourceTimeout()} {
		if err := h.Retry(t.Context(), a, f, policy()); err != nil {
			t.Fatal(err)
		}
		if a = h.begin(t, p, 0); a.PoisonSHA256 != "aa" {
			t.Errorf("after %s the next attempt has poison %q, want aa", f.Code, a.PoisonSHA256)
		}
	}
	if err := h.Retry(t.Context(), a, codecLost(media.CodecCrashed, "aa"), policy()); !errors.Is(err, catalog.ErrGivenUp) {
		t.Errorf("after two lost codecs: %v, want given up", err)
	}
	img := h.product(t, p.ID).Images[0]
	if img.Status != catalog.Failed || img.ErrorCode != media.CodecCrashed || img.Attempts != 3 || img.PoisonSHA256 != "" {
		t.Errorf("got %+v, want it failed as codec_crashed", img)
	}
	if dead := h.store.sent(event.TypeImageDead); len(dead) != 1 {
		t.Errorf("got %d dead events, want 1", len(dead))
	}
}

func testPoisonContentOtherContentIsCountedApart(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	for _, content := range []string{"aa", "bb", "aa"} {
		if err := h.Retry(t.Context(), h.begin(t, p, 0), codecLost(media.CodecCrashed, content), policy()); err != nil {
			t.Fatalf("%s: %v", content, err)
		}
	}
}

func testPoisonContentDeferralKeepsTheContent(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	if err := h.Retry(t.Context(), h.begin(t, p, 0), codecLost(media.CodecCrashed, "aa"), policy()); err != nil {
		t.Fatal(err)
	}
	busy := media.Fail(media.CodecUnavailable, "none", nil)
	if err := h.Defer(t.Context(), h.begin(t, p, 0), busy, policy(), 0); err != nil {
		t.Fatal(err)
	}
	if a := h.begin(t, p, 0); a.PoisonSHA256 != "aa" {
		t.Errorf("the next attempt has poison %q, want aa", a.PoisonSHA256)
	}
}

func testPoisonContentFinishClearsTheContent(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	if err := h.Retry(t.Context(), h.begin(t, p, 0), codecLost(media.CodecCrashed, "aa"), policy()); err != nil {
		t.Fatal(err)
	}
	a := h.begin(t, p, 0)
	if err := h.Finish(t.Context(), a, result(a)); err != nil {
		t.Fatal(err)
	}
	if img := h.product(t, p.ID).Images[0]; img.PoisonSHA256 != "" {
		t.Errorf("a ready image still has poison %q", img.PoisonSHA256)
	}
}

func testPoisonContentReprocessClearsTheContent(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	if err := h.Retry(t.Context(), h.begin(t, p, 0), codecLost(media.CodecCrashed, "aa"), policy()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Reprocess(t.Context(), p.ID, p.Images[0].ID, ""); err != nil {
		t.Fatal(err)
	}
	if img := h.product(t, p.ID).Images[0]; img.PoisonSHA256 != "" {
		t.Errorf("after the new request the image has poison %q", img.PoisonSHA256)
	}
}
