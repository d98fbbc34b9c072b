package catalog_test

import (
	"errors"
	"testing"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/media"
)

// kill is how a codec was lost to that content.
func kill(code media.Code, content string) *media.Failure {
	return &media.Failure{Code: code, Detail: "the codec died", Content: content}
}

func TestContentThatKillsTwoCodecsIsGivenUp(t *testing.T) {
	t.Parallel()

	t.Run("whatever is tried between, and however it killed", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		a := h.begin(t, p, 0)
		if a.PoisonSHA256 != "" {
			t.Errorf("the first try knows of %q", a.PoisonSHA256)
		}
		for _, f := range []*media.Failure{kill(media.CodecTimeout, "aa"), media.Fail(media.Timeout, "slow", nil)} {
			if err := h.Retry(t.Context(), a, f, policy()); err != nil {
				t.Fatal(err)
			}
			if a = h.begin(t, p, 0); a.PoisonSHA256 != "aa" {
				t.Errorf("after %s the next try knows of %q, want aa", f.Code, a.PoisonSHA256)
			}
		}
		if err := h.Retry(t.Context(), a, kill(media.CodecCrashed, "aa"), policy()); !errors.Is(err, catalog.ErrGivenUp) {
			t.Errorf("after two kills: %v, want given up", err)
		}
		img := h.product(t, p.ID).Images[0]
		if img.Status != catalog.Failed || img.ErrorCode != media.CodecCrashed || img.Attempts != 3 || img.PoisonSHA256 != "" {
			t.Errorf("got %+v, want it failed as codec_crashed", img)
		}
		if dead := h.store.sent(event.TypeImageDead); len(dead) != 1 {
			t.Errorf("got %d dead events, want 1", len(dead))
		}
	})

	t.Run("but other content under the same URL is another picture", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		for _, content := range []string{"aa", "bb", "aa"} {
			if err := h.Retry(t.Context(), h.begin(t, p, 0), kill(media.CodecCrashed, content), policy()); err != nil {
				t.Fatalf("%s: %v", content, err)
			}
		}
	})

	t.Run("but a fault of ours between spends nothing and forgets nothing", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		if err := h.Retry(t.Context(), h.begin(t, p, 0), kill(media.CodecCrashed, "aa"), policy()); err != nil {
			t.Fatal(err)
		}
		busy := media.Fail(media.CodecUnavailable, "none", nil)
		if err := h.Defer(t.Context(), h.begin(t, p, 0), busy, policy(), 0); err != nil {
			t.Fatal(err)
		}
		if a := h.begin(t, p, 0); a.PoisonSHA256 != "aa" {
			t.Errorf("the next try knows of %q, want aa", a.PoisonSHA256)
		}
	})

	t.Run("and the end of the request forgets it", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		if err := h.Retry(t.Context(), h.begin(t, p, 0), kill(media.CodecCrashed, "aa"), policy()); err != nil {
			t.Fatal(err)
		}
		a := h.begin(t, p, 0)
		if err := h.Finish(t.Context(), a, result(a)); err != nil {
			t.Fatal(err)
		}
		if img := h.product(t, p.ID).Images[0]; img.PoisonSHA256 != "" {
			t.Errorf("a picture that is ready still knows of %q", img.PoisonSHA256)
		}
	})

	t.Run("and so does a new request", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		if err := h.Retry(t.Context(), h.begin(t, p, 0), kill(media.CodecCrashed, "aa"), policy()); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Reprocess(t.Context(), p.ID, p.Images[0].ID, ""); err != nil {
			t.Fatal(err)
		}
		if img := h.product(t, p.ID).Images[0]; img.PoisonSHA256 != "" {
			t.Errorf("after the new request %q is known", img.PoisonSHA256)
		}
	})
}
