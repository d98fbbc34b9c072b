package maintenance_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

func bulkKey() catalog.IdempotencyKey {
	return catalog.IdempotencyKey{Principal: "images", Key: "k", Fingerprint: "f"}
}

// respondCount returns how many images were requested as the response.
func respondCount(r catalog.BulkResult) (catalog.SavedResponse, error) {
	return fmt.Append(nil, r.Requested), nil
}

func TestReprocessOnce(t *testing.T) {
	t.Parallel()
	t.Run("repetitions_get_the_saved_response", testReprocessOnceRepetitionsGetTheSavedResponse)
	t.Run("failed_request_leaves_the_key_unused", testReprocessOnceFailedRequestLeavesTheKeyUnused)
	t.Run("partial_result_is_saved_after_the_end_of_the_context", testReprocessOncePartialResultIsSaved)
	t.Run("other_process_may_have_saved_first", testReprocessOnceOtherProcessMayHaveSavedFirst)
	t.Run("repetition_waits_for_the_running_request", testReprocessOnceRepetitionWaits)
}

func testReprocessOnceRepetitionsGetTheSavedResponse(t *testing.T) {
	t.Parallel()
	f := newFakeImages(3)
	r, _ := f.reprocessor(1000)
	for n := range 3 {
		saved, replayed, err := r.ReprocessOnce(t.Context(), failedFilter(), 0, 2, bulkKey(), respondCount)
		if err != nil || replayed != (n > 0) || string(saved) != "2" {
			t.Errorf("request %d: got %s, replayed %v and %v", n, saved, replayed, err)
		}
	}
	if len(f.requested) != 2 {
		t.Errorf("%d images were requested, want 2", len(f.requested))
	}
	other := bulkKey()
	other.Fingerprint = "g"
	_, _, err := r.ReprocessOnce(t.Context(), failedFilter(), 2, 2, other, respondCount)
	if !errors.Is(err, catalog.ErrKeyReused) {
		t.Errorf("got %v, want reused", err)
	}
}

func testReprocessOnceFailedRequestLeavesTheKeyUnused(t *testing.T) {
	t.Parallel()
	f := newFakeImages(1)
	r, _ := f.reprocessor(1000)
	f.selectErr = fault.New(fault.Unavailable, "database_unavailable", "down")
	_, _, err := r.ReprocessOnce(t.Context(), failedFilter(), 0, 2, bulkKey(), respondCount)
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
	f.selectErr, f.saveErr = nil, errors.New("down")
	if _, _, err := r.ReprocessOnce(t.Context(), failedFilter(), 0, 2, bulkKey(), respondCount); !errors.Is(err, f.saveErr) {
		t.Errorf("got %v, want the error of saving", err)
	}
	f.saveErr = nil
	saved, replayed, err := r.ReprocessOnce(t.Context(), failedFilter(), 0, 2, bulkKey(), respondCount)
	if err != nil || replayed || string(saved) != "1" {
		t.Errorf("got %s, replayed %v and %v, want a first request", saved, replayed, err)
	}
}

func testReprocessOncePartialResultIsSaved(t *testing.T) {
	t.Parallel()
	f := newFakeImages(3)
	r, _ := f.reprocessor(1000)
	ctx, cancel := context.WithCancel(t.Context())
	f.reprocess = func(id catalog.ImageID) error {
		if id == 1 {
			return nil
		}
		cancel()
		return ctx.Err()
	}
	saved, _, err := r.ReprocessOnce(ctx, failedFilter(), 0, 3, bulkKey(), respondCount)
	if err != nil || string(saved) != "1" || len(f.responses) != 1 {
		t.Errorf("got %s and %v, %d responses saved", saved, err, len(f.responses))
	}
}

func testReprocessOnceOtherProcessMayHaveSavedFirst(t *testing.T) {
	t.Parallel()
	f := newFakeImages(1)
	r, _ := f.reprocessor(1000)
	f.reprocess = func(catalog.ImageID) error {
		f.responses["kf"] = catalog.SavedResponse("of the other")
		return nil
	}
	saved, _, err := r.ReprocessOnce(t.Context(), failedFilter(), 0, 2, bulkKey(), respondCount)
	if err != nil || string(saved) != "of the other" {
		t.Errorf("got %s and %v", saved, err)
	}
}

func testReprocessOnceRepetitionWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeImages(1)
		r, _ := f.reprocessor(1000)
		release := make(chan struct{})
		f.reprocess = func(catalog.ImageID) error {
			<-release
			return nil
		}
		results := make(chan bool, 2)
		for range 2 {
			go func() {
				_, replayed, err := r.ReprocessOnce(t.Context(), failedFilter(), 0, 2, bulkKey(), respondCount)
				if err != nil {
					t.Error(err)
				}
				results <- replayed
			}()
			synctest.Wait()
		}
		close(release)
		if first, second := <-results, <-results; first || !second || len(f.requested) != 1 {
			t.Errorf("got replayed %v and %v, %d images requested", first, second, len(f.requested))
		}
	})
}
