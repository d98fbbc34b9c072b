package catalog_test

import (
	"errors"
	"testing"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

func TestReplay(t *testing.T) {
	t.Parallel()
	gone := media.Fail(media.HTTPStatus, "the source answered 404", nil)

	t.Run("acts once on what a dead event tells", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		a := h.begin(t, p, 0)
		if err := h.Fail(t.Context(), a, gone); err != nil {
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
			t.Errorf("got %+v, want it asked for", img)
		}
		if err := h.Replay(t.Context(), p.ID, a.ImageID, dead.FencingToken); !errors.Is(err, catalog.ErrDone) {
			t.Errorf("in work: got %v, want done", err)
		}
		if err := h.Fail(t.Context(), h.begin(t, p, 0), gone); err != nil {
			t.Fatal(err)
		}
		if err := h.Replay(t.Context(), p.ID, a.ImageID, dead.FencingToken); !errors.Is(err, catalog.ErrDone) {
			t.Errorf("after another death: got %v, want done", err)
		}
	})

	t.Run("acts on a ready picture that could not be remade, and on no other", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		a := h.make(t, p, 0)
		if err := h.Replay(t.Context(), p.ID, a.ImageID, a.FencingToken); !errors.Is(err, catalog.ErrDone) {
			t.Errorf("got %v, want done: nothing is wrong with it", err)
		}
		h.reprocess(t, p, 0)
		b := h.begin(t, p, 0)
		if err := h.Fail(t.Context(), b, gone); err != nil {
			t.Fatal(err)
		}
		if err := h.Replay(t.Context(), p.ID, a.ImageID, b.FencingToken); err != nil {
			t.Error(err)
		}
		if img := h.product(t, p.ID).Images[0]; img.Status != catalog.Ready || img.ReprocessError != "" {
			t.Errorf("got %+v, want it ready and asked for", img)
		}
	})

	t.Run("of what is not there is not found", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 0)
		if err := h.Replay(t.Context(), p.ID, 99, 1); !fault.Is(err, fault.NotFound) {
			t.Errorf("got %v, want not found", err)
		}
	})
}

func TestRemake(t *testing.T) {
	t.Parallel()
	failed := catalog.Filter{Status: catalog.Failed}

	t.Run("waits its turn, and its age counts from then", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		if err := h.Fail(t.Context(), h.begin(t, p, 0), catalog.WorkerCrash()); err != nil {
			t.Fatal(err)
		}
		if err := h.ReprocessIf(t.Context(), p.ID, p.Images[0].ID, failed, 20*time.Hour); err != nil {
			t.Fatal(err)
		}
		requests, img := h.store.sent(event.TypeImageRequested), h.product(t, p.ID).Images[0]
		due := h.store.now.Add(20 * time.Hour)
		if last := requests[len(requests)-1]; !last.due.Equal(due) || last.ID != img.JobID || !img.DueAt.Equal(due) {
			t.Errorf("the request is due at %s, the picture at %s, want %s", last.due, img.DueAt, due)
		}
		if err := h.Republish(t.Context(), p.ID, img.ID, time.Minute); !errors.Is(err, catalog.ErrDone) {
			t.Errorf("got %v: the sweeper must not say early what is meant for later", err)
		}
		h.store.now = due.Add(5 * time.Hour)
		ours := media.Fail(media.StorageFailed, "away", nil)
		if err := h.Defer(t.Context(), h.begin(t, p, 0), ours, policy(), 0); err != nil {
			t.Errorf("got %v, want it put off: it has waited for five hours and not for a day", err)
		}
	})

	t.Run("leaves alone what is in work, or no longer what was meant", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 2)
		h.make(t, p, 1)
		for i, which := range []catalog.Filter{{}, failed} {
			if err := h.ReprocessIf(t.Context(), p.ID, p.Images[i].ID, which, 0); !errors.Is(err, catalog.ErrDone) {
				t.Errorf("picture %d: got %v, want done", i, err)
			}
		}
		if err := h.ReprocessIf(t.Context(), p.ID, p.Images[1].ID, catalog.Filter{}, 0); err != nil {
			t.Error(err)
		}
		if err := h.ReprocessIf(t.Context(), p.ID, p.Images[1].ID, catalog.Filter{}, 0); !errors.Is(err, catalog.ErrDone) {
			t.Errorf("a second time: got %v, want done", err)
		}
		if n := len(h.requested(t)); n != 3 {
			t.Errorf("got %d requests, want 3", n)
		}
	})

	t.Run("needs its pipeline on record", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		h.store.afterCommit = func() error { return fault.New(fault.Unavailable, "down", "down") }
		for name, err := range map[string]error{
			"remake": h.ReprocessIf(t.Context(), 1, 1, catalog.Filter{}, 0),
			"patch":  second(h.Patch(t.Context(), 1, images(url(0)), nil, "")),
		} {
			if !fault.Is(err, fault.Unavailable) {
				t.Errorf("%s: got %v, want unavailable", name, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestSelectionMatches(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	img := catalog.Image{
		Status: catalog.Ready, ErrorCode: media.HTTPStatus, ReprocessError: media.Timeout, PipelineHash: "a",
		RequestedAt: now.Add(-time.Hour),
	}
	for name, row := range map[string]struct {
		which catalog.Filter
		want  bool
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
		if got := row.which.Matches(img, now); got != row.want {
			t.Errorf("%s: got %v, want %v", name, got, row.want)
		}
	}
}

func TestCreateOnce(t *testing.T) {
	t.Parallel()
	respond := func(p catalog.Product) (catalog.SavedResponse, error) {
		return catalog.SavedResponse(p.ID.String()), nil
	}
	key := catalog.IdempotencyKey{Principal: "1", Key: "k", Fingerprint: "f"}

	t.Run("acts once, and answers alike", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		for n := range 3 {
			saved, replayed, err := h.CreateOnce(t.Context(), input(url(0)), key, respond, "")
			if err != nil || replayed != (n > 0) || string(saved) != "1" {
				t.Errorf("request %d: got %q, replayed %v, %v", n, saved, replayed, err)
			}
		}
		if len(h.store.products) != 1 || len(h.requested(t)) != 1 || h.wakes.Load() != 1 || h.cache.tombs[1] != 1 {
			t.Errorf("got %d products, woken %d times, cache told of %d", len(h.store.products), h.wakes.Load(), h.cache.tombs[1])
		}
		other := key
		other.Fingerprint = "g"
		if _, _, err := h.CreateOnce(t.Context(), input(url(1)), other, respond, ""); !errors.Is(err, catalog.ErrKeyReused) {
			t.Errorf("got %v, want reused", err)
		}
	})

	t.Run("after an unknown outcome the repetition finds what happened", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		h.post(t, 0) // the pipeline is on record now
		h.store.afterCommit = func() error { return catalog.ErrOutcomeUnknown }
		if _, _, err := h.CreateOnce(t.Context(), input(), key, respond, ""); !errors.Is(err, catalog.ErrOutcomeUnknown) {
			t.Errorf("got %v, want unknown", err)
		}
		h.store.afterCommit = func() error { return nil }
		saved, replayed, err := h.CreateOnce(t.Context(), input(), key, respond, "")
		if err != nil || !replayed || string(saved) != "2" || len(h.store.products) != 2 {
			t.Errorf("got %q, replayed %v, %v", saved, replayed, err)
		}
	})

	t.Run("what fails leaves the key unused", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		wrong := input("ftp://example.com/a.jpg")
		if _, _, err := h.CreateOnce(t.Context(), wrong, key, respond, ""); !fault.Is(err, fault.Invalid) {
			t.Errorf("got %v, want invalid", err)
		}
		no := errors.New("cannot be encoded")
		_, _, err := h.CreateOnce(t.Context(), input(), key, func(catalog.Product) (catalog.SavedResponse, error) {
			return nil, no
		}, "")
		if !errors.Is(err, no) || len(h.store.products) != 0 || len(h.store.outbox) != 0 {
			t.Errorf("got %v and %d products, want nothing made", err, len(h.store.products))
		}
		if _, replayed, err := h.CreateOnce(t.Context(), input(), key, respond, ""); err != nil || replayed {
			t.Errorf("got %v, replayed %v, want a first request", err, replayed)
		}
	})
}
