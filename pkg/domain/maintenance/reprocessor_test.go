package maintenance_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/test/catalogtest"
)

// fakeImages are images that can be requested again.
type fakeImages struct {
	images    []catalog.ImageID
	scanEnd   catalog.ImageID // the next that SelectImages returns if it finds fewer images than limit
	filter    catalog.Filter
	requested []catalog.ImageID
	due       []time.Duration // since start
	start     time.Time
	reprocess func(catalog.ImageID) error // the result of ReprocessIf
	selectErr error
	responses map[string]catalog.SavedResponse // by key and fingerprint
	saveErr   error
}

func newFakeImages(n int) *fakeImages {
	f := &fakeImages{
		start: time.Now(), responses: map[string]catalog.SavedResponse{}, reprocess: func(catalog.ImageID) error { return nil },
	}
	for i := range n {
		f.images = append(f.images, catalog.ImageID(i+1))
	}
	return f
}

func (f *fakeImages) SelectImages(_ context.Context, filter catalog.Filter, after catalog.ImageID, limit int,
) (found []maintenance.ImageRef, next catalog.ImageID, err error) {
	f.filter = filter
	for _, id := range f.images {
		if id > after && len(found) < limit {
			found, next = append(found, maintenance.ImageRef{ProductID: 1, ImageID: id}), id
		}
	}
	if len(found) < limit {
		next = f.scanEnd
	}
	return found, next, f.selectErr
}

func (f *fakeImages) ReprocessIf(_ context.Context, _ catalog.ProductID, image catalog.ImageID, filter catalog.Filter,
	delay time.Duration,
) error {
	if filter != f.filter {
		return errors.New("requested with another filter")
	}
	if err := f.reprocess(image); err != nil {
		return err
	}
	f.requested, f.due = append(f.requested, image), append(f.due, time.Since(f.start)+delay)
	return nil
}

func (f *fakeImages) SavedResponse(_ context.Context, key catalog.IdempotencyKey) (catalog.SavedResponse, bool, error) {
	if saved, ok := f.responses[key.Key+key.Fingerprint]; ok {
		return saved, true, nil
	}
	for other := range f.responses {
		if strings.HasPrefix(other, key.Key) {
			return nil, false, catalog.ErrKeyReused
		}
	}
	return nil, false, nil
}

func (f *fakeImages) SaveResponse(ctx context.Context, key catalog.IdempotencyKey, response catalog.SavedResponse,
) (catalog.SavedResponse, error) {
	if f.saveErr != nil || ctx.Err() != nil {
		return nil, errors.Join(f.saveErr, ctx.Err())
	}
	if saved, found, err := f.SavedResponse(ctx, key); found || err != nil {
		return saved, err
	}
	f.responses[key.Key+key.Fingerprint] = response
	return response, nil
}

func (f *fakeImages) reprocessor(rate float64) (*maintenance.Reprocessor, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	return maintenance.NewReprocessor(f, f, f, maintenance.ReprocessorConfig{Rate: rate}, time.Now, reg, zap.NewNop()), reg
}

// failedFilter returns a filter for failed images.
func failedFilter() catalog.Filter {
	return catalog.Filter{Status: catalog.Failed, Code: media.Timeout}
}

func TestReprocessor(t *testing.T) {
	t.Parallel()
	t.Run("requests_become_due_at_the_rate", testReprocessorRequestsBecomeDueAtTheRate)
	t.Run("calls_queue_behind_each_other", testReprocessorCallsQueueBehindEachOther)
	t.Run("busy_and_deleted_images_are_skipped", testReprocessorBusyAndDeletedImagesAreSkipped)
	t.Run("bounded_scan_returns_where_to_continue", testReprocessorBoundedScanReturnsWhereToContinue)
	t.Run("partial_result_is_returned_before_a_failure", testReprocessorPartialResultIsReturnedBeforeAFailure)
	t.Run("limit_and_queue_are_bounded", testReprocessorLimitAndQueueAreBounded)
	t.Run("waiting_call_ends_with_its_context", testReprocessorWaitingCallEndsWithItsContext)
}

func testReprocessorRequestsBecomeDueAtTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeImages(5)
		r, reg := f.reprocessor(4)
		got, err := r.Reprocess(t.Context(), failedFilter(), 1, 3)
		if want := (catalog.BulkResult{Requested: 3, Next: 4, Spread: 500 * time.Millisecond}); got != want || err != nil {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if want := []catalog.ImageID{2, 3, 4}; !slices.Equal(f.requested, want) || f.filter != failedFilter() {
			t.Errorf("requested %v with %+v, want %v", f.requested, f.filter, want)
		}
		if want := []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond}; !slices.Equal(f.due, want) {
			t.Errorf("due after %v, want %v", f.due, want)
		}
		if n := catalogtest.Metric(t, reg, "vitrine_maintenance_reprocessor_requested_total"); n != 3 {
			t.Errorf("counted %v", n)
		}
	})
}

func testReprocessorCallsQueueBehindEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeImages(4)
		r, _ := f.reprocessor(1)
		if _, err := r.Reprocess(t.Context(), failedFilter(), 0, 2); err != nil {
			t.Fatal(err)
		}
		got, err := r.Reprocess(t.Context(), failedFilter(), 2, 0)
		if want := (catalog.BulkResult{Requested: 2, Spread: 3 * time.Second}); got != want || err != nil {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		<-time.After(time.Hour) // all are due
		if got, err = r.Reprocess(t.Context(), failedFilter(), 3, 1); got.Spread != 0 || err != nil {
			t.Errorf("got %+v, %v, want no delay", got, err)
		}
		hour := time.Hour // requests that are due do not delay the last one
		if want := []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second, hour}; !slices.Equal(f.due, want) {
			t.Errorf("due after %v, want %v", f.due, want)
		}
	})
}

func testReprocessorBusyAndDeletedImagesAreSkipped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeImages(4)
		f.reprocess = func(id catalog.ImageID) error {
			return map[catalog.ImageID]error{1: catalog.ErrDone, 3: fault.New(fault.NotFound, "image_not_found", "no")}[id]
		}
		r, _ := f.reprocessor(1)
		got, err := r.Reprocess(t.Context(), failedFilter(), 0, 10)
		if want := (catalog.BulkResult{Requested: 2, Skipped: 2, Spread: time.Second}); got != want || err != nil {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	})
}

func testReprocessorBoundedScanReturnsWhereToContinue(t *testing.T) {
	t.Parallel()
	f := newFakeImages(2)
	f.scanEnd = 20_000
	r, _ := f.reprocessor(1000)
	for _, after := range []catalog.ImageID{0, 2} {
		got, err := r.Reprocess(t.Context(), failedFilter(), after, 10)
		if got.Requested != int(2-after) || got.Next != 20_000 || err != nil {
			t.Errorf("after %d: got %+v, %v, want next 20000", after, got, err)
		}
	}
}

func testReprocessorPartialResultIsReturnedBeforeAFailure(t *testing.T) {
	t.Parallel()
	f := newFakeImages(4)
	down := fault.New(fault.Unavailable, "database_unavailable", "down")
	f.reprocess = func(id catalog.ImageID) error {
		if id == 3 {
			return down
		}
		return nil
	}
	r, _ := f.reprocessor(0.1)
	got, err := r.Reprocess(t.Context(), failedFilter(), 0, 10)
	if got.Requested != 2 || got.Next != 2 || got.Spread <= 0 || err != nil {
		t.Errorf("got %+v, %v, want two, and to continue after the second", got, err)
	}
	if got, err = r.Reprocess(t.Context(), failedFilter(), 2, 10); !errors.Is(err, down) || got != (catalog.BulkResult{}) {
		t.Errorf("got %+v, %v, want the failure and no result", got, err)
	}
	f.selectErr = down
	if _, err = r.Reprocess(t.Context(), failedFilter(), 0, 10); !errors.Is(err, down) {
		t.Errorf("got %v, want the failure", err)
	}
}

func testReprocessorLimitAndQueueAreBounded(t *testing.T) {
	t.Parallel()
	f := newFakeImages(10)
	r, _ := f.reprocessor(0.001) // one request in 1000 seconds
	for _, limit := range []int{-1, 10_001} {
		if _, err := r.Reprocess(t.Context(), failedFilter(), 0, limit); !fault.Is(err, fault.Invalid) {
			t.Errorf("limit %d: got %v", limit, err)
		}
	}
	if _, err := r.Reprocess(t.Context(), failedFilter(), 0, 4); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reprocess(t.Context(), failedFilter(), 4, 4); !fault.Is(err, fault.TooMany) || len(f.requested) != 4 {
		t.Errorf("got %v after %v, want fault.TooMany", err, f.requested)
	}
}

func testReprocessorWaitingCallEndsWithItsContext(t *testing.T) {
	t.Parallel()
	f := newFakeImages(1)
	r, _ := f.reprocessor(1)
	entered, proceed := make(chan struct{}), make(chan struct{})
	f.reprocess = func(catalog.ImageID) error { close(entered); <-proceed; return nil }
	first := make(chan error, 1)
	go func() { _, err := r.Reprocess(t.Context(), failedFilter(), 0, 1); first <- err }()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Reprocess(ctx, failedFilter(), 0, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	close(proceed)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for name, c := range map[string]struct {
		config interface{ Validate() []fault.Field }
		want   int
	}{
		"rescuer":              {rescuerConfig(), 0},
		"rescuer_zero":         {maintenance.RescuerConfig{}, 3},
		"cleaner":              {cleanerConfig(), 0},
		"cleaner_zero":         {maintenance.CleanerConfig{}, 4},
		"gc":                   {gcConfig(), 0},
		"gc_zero":              {maintenance.GCConfig{}, 4},
		"auditor":              {auditorConfig(), 0},
		"auditor_all_wrong":    {maintenance.AuditorConfig{MaxRowRate: nan, ToleratedShare: 2, ToleratedCount: -1}, 11},
		"reprocessor":          {maintenance.ReprocessorConfig{Rate: 20}, 0},
		"reprocessor_slow":     {maintenance.ReprocessorConfig{Rate: 0.01}, 0},
		"reprocessor_zero":     {maintenance.ReprocessorConfig{Rate: 0}, 1},
		"reprocessor_negative": {maintenance.ReprocessorConfig{Rate: -1}, 1},
		"reprocessor_fast":     {maintenance.ReprocessorConfig{Rate: 1e9}, 1},
		"reprocessor_nan":      {maintenance.ReprocessorConfig{Rate: nan}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if wrong := c.config.Validate(); len(wrong) != c.want {
				t.Errorf("got %d wrong fields, want %d: %v", len(wrong), c.want, wrong)
			}
		})
	}
}
