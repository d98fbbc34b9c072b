package catalog_test

import (
	"errors"
	"testing"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// respondID returns the product's id as the response.
func respondID(p catalog.Product) (catalog.SavedResponse, error) {
	return catalog.SavedResponse(p.ID.String()), nil
}

func onceKey() catalog.IdempotencyKey {
	return catalog.IdempotencyKey{Principal: "1", Key: "k", Fingerprint: "f"}
}

func TestCreateOnce(t *testing.T) {
	t.Parallel()
	t.Run("repetitions_get_the_saved_response", testCreateOnceRepetitionsGetTheSavedResponse)
	t.Run("unknown_outcome_is_found_by_the_repetition", testCreateOnceUnknownOutcomeIsFoundByTheRepetition)
	t.Run("failed_request_leaves_the_key_unused", testCreateOnceFailedRequestLeavesTheKeyUnused)
}

func TestCreateUserOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	respond := func(u catalog.User) (catalog.SavedResponse, error) { return catalog.SavedResponse(u.Email), nil }
	for n := range 2 {
		saved, replayed, err := h.CreateUserOnce(t.Context(), " Eve ", " eve@example.com", onceKey(), respond)
		if err != nil || replayed != (n > 0) || string(saved) != "eve@example.com" {
			t.Errorf("request %d: got %q, replayed %v, %v", n, saved, replayed, err)
		}
	}
	if len(h.store.users) != 2 || h.store.users[1].Name != "Eve" {
		t.Errorf("got users %+v", h.store.users)
	}
	key := onceKey()
	key.Key = "unused"
	if _, _, err := h.CreateUserOnce(t.Context(), "", "x", key, respond); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v, want invalid", err)
	}
}

func TestReprocessOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.create(t, 1)
	image := p.Images[0].ID
	wakes := h.wakes.Load()
	for n := range 3 {
		saved, replayed, err := h.ReprocessOnce(t.Context(), p.ID, image, onceKey(), respondID, "")
		if err != nil || replayed != (n > 0) || string(saved) != p.ID.String() {
			t.Errorf("request %d: got %q, replayed %v, %v", n, saved, replayed, err)
		}
	}
	h.store.releaseDue(t) // the new job replaces one that was released
	got := h.store.row(p.ID)
	if got.Version != 2 || len(h.requestedImages(t)) != 2 || h.wakes.Load() != wakes+1 || h.cache.tombstones[p.ID] != 2 {
		t.Errorf("got version %d, %d jobs, relay woken %d times, cache invalidated to %d",
			got.Version, len(h.requestedImages(t)), h.wakes.Load()-wakes, h.cache.tombstones[p.ID])
	}
	key := onceKey()
	key.Key = "unused"
	if _, _, err := h.ReprocessOnce(t.Context(), p.ID, image+7, key, respondID, ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v, want not found", err)
	}
	if err := h.Delete(t.Context(), p.ID, nil, ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.ReprocessOnce(t.Context(), p.ID, image, key, respondID, ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("of a deleted product: got %v, want not found", err)
	}
	if _, replayed, err := h.ReprocessOnce(t.Context(), p.ID, image, onceKey(), respondID, ""); err != nil || !replayed {
		t.Errorf("a repetition after the deletion: got replayed %v, %v, want the saved response", replayed, err)
	}
}

func testCreateOnceRepetitionsGetTheSavedResponse(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for n := range 3 {
		saved, replayed, err := h.CreateOnce(t.Context(), input(url(0)), onceKey(), respondID, "")
		if err != nil || replayed != (n > 0) || string(saved) != "1" {
			t.Errorf("request %d: got %q, replayed %v, %v", n, saved, replayed, err)
		}
	}
	if len(h.store.products) != 1 || len(h.requestedImages(t)) != 1 || h.wakes.Load() != 1 || h.cache.tombstones[1] != 1 {
		t.Errorf("got %d products, relay woken %d times, cache invalidated to %d",
			len(h.store.products), h.wakes.Load(), h.cache.tombstones[1])
	}
	other := onceKey()
	other.Fingerprint = "g"
	if _, _, err := h.CreateOnce(t.Context(), input(url(1)), other, respondID, ""); !errors.Is(err, catalog.ErrKeyReused) {
		t.Errorf("got %v, want reused", err)
	}
}

func testCreateOnceUnknownOutcomeIsFoundByTheRepetition(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.create(t, 0) // saves the pipeline
	h.store.afterCommit = func() error { return catalog.ErrOutcomeUnknown }
	if _, _, err := h.CreateOnce(t.Context(), input(), onceKey(), respondID, ""); !errors.Is(err, catalog.ErrOutcomeUnknown) {
		t.Errorf("got %v, want unknown", err)
	}
	h.store.afterCommit = func() error { return nil }
	saved, replayed, err := h.CreateOnce(t.Context(), input(), onceKey(), respondID, "")
	if err != nil || !replayed || string(saved) != "2" || len(h.store.products) != 2 {
		t.Errorf("got %q, replayed %v, %v", saved, replayed, err)
	}
}

func testCreateOnceFailedRequestLeavesTheKeyUnused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	wrong := input("ftp://example.com/a.jpg")
	if _, _, err := h.CreateOnce(t.Context(), wrong, onceKey(), respondID, ""); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v, want invalid", err)
	}
	no := errors.New("cannot be encoded")
	_, _, err := h.CreateOnce(t.Context(), input(), onceKey(), func(catalog.Product) (catalog.SavedResponse, error) {
		return nil, no
	}, "")
	if !errors.Is(err, no) || len(h.store.products) != 0 || len(h.store.outbox) != 0 {
		t.Errorf("got %v and %d products, want none", err, len(h.store.products))
	}
	if _, replayed, err := h.CreateOnce(t.Context(), input(), onceKey(), respondID, ""); err != nil || replayed {
		t.Errorf("got %v, replayed %v, want a first request", err, replayed)
	}
}
