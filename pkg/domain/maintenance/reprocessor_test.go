package maintenance_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

// fakeImages are images that can be requested again.
type fakeImages struct {
	images    []catalog.ImageID
	walked    catalog.ImageID // where a scan ends that finds too few; 0: to the end
	which     catalog.Filter
	requested []catalog.ImageID
	due       []time.Duration // since the test began
	began     time.Time
	answer    func(catalog.ImageID) error
	down      error
}

func newFakeImages(n int) *fakeImages {
	f := &fakeImages{began: time.Now(), answer: func(catalog.ImageID) error { return nil }}
	for i := range n {
		f.images = append(f.images, catalog.ImageID(i+1))
	}
	return f
}

func (f *fakeImages) SelectImages(_ context.Context, which catalog.Filter, after catalog.ImageID, limit int,
) (found []maintenance.ImageRef, next catalog.ImageID, err error) {
	f.which = which
	for _, id := range f.images {
		if id > after && len(found) < limit {
			found, next = append(found, maintenance.ImageRef{ProductID: 1, ImageID: id}), id
		}
	}
	if len(found) < limit {
		next = f.walked
	}
	return found, next, f.down
}

func (f *fakeImages) ReprocessIf(_ context.Context, _ catalog.ProductID, image catalog.ImageID, which catalog.Filter,
	delay time.Duration,
) error {
	if which != f.which {
		return errors.New("requested for as another selection")
	}
	if err := f.answer(image); err != nil {
		return err
	}
	f.requested, f.due = append(f.requested, image), append(f.due, time.Since(f.began)+delay)
	return nil
}

func (f *fakeImages) reprocessor(rate float64) (*maintenance.Reprocessor, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	return maintenance.NewReprocessor(f, f, maintenance.ReprocessorConfig{Rate: rate}, time.Now, reg, zap.NewNop()), reg
}

func TestReprocess(t *testing.T) {
	t.Parallel()
	failed := catalog.Filter{Status: catalog.Failed, Code: media.Timeout}

	t.Run("requests_become_due_at_the_rate", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeImages(5)
			r, reg := f.reprocessor(4)
			got, err := r.Reprocess(t.Context(), failed, 1, 3)
			if want := (catalog.BulkResult{Requested: 3, Next: 4, Spread: 500 * time.Millisecond}); got != want || err != nil {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
			if want := []catalog.ImageID{2, 3, 4}; !slices.Equal(f.requested, want) || f.which != failed {
				t.Errorf("requested for %v as %+v, want %v", f.requested, f.which, want)
			}
			if want := []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond}; !slices.Equal(f.due, want) {
				t.Errorf("due after %v, want %v", f.due, want)
			}
			if n := metric(t, reg, "vitrine_maintenance_reprocessor_requested_total"); n != 3 {
				t.Errorf("counted %v", n)
			}
		})
	})

	t.Run("calls_queue_behind_each_other", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeImages(4)
			r, _ := f.reprocessor(1)
			if _, err := r.Reprocess(t.Context(), failed, 0, 2); err != nil {
				t.Fatal(err)
			}
			got, err := r.Reprocess(t.Context(), failed, 2, 0)
			if want := (catalog.BulkResult{Requested: 2, Spread: 3 * time.Second}); got != want || err != nil {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
			<-time.After(time.Hour) // all of that is over
			if got, err = r.Reprocess(t.Context(), failed, 3, 1); got.Spread != 0 || err != nil {
				t.Errorf("got %+v, %v, want it due at once", got, err)
			}
			hours := time.Hour // the last one is not delayed by what is long due
			if want := []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second, hours}; !slices.Equal(f.due, want) {
				t.Errorf("due after %v, want %v", f.due, want)
			}
		})
	})

	t.Run("busy_and_deleted_images_are_skipped", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeImages(4)
			f.answer = func(id catalog.ImageID) error {
				return map[catalog.ImageID]error{1: catalog.ErrDone, 3: fault.New(fault.NotFound, "image_not_found", "no")}[id]
			}
			r, _ := f.reprocessor(1)
			got, err := r.Reprocess(t.Context(), failed, 0, 10)
			if want := (catalog.BulkResult{Requested: 2, Skipped: 2, Spread: time.Second}); got != want || err != nil {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	})

	t.Run("bounded_scan_returns_where_to_continue", func(t *testing.T) {
		t.Parallel()
		f := newFakeImages(2)
		f.walked = 20_000
		r, _ := f.reprocessor(1000)
		for _, after := range []catalog.ImageID{0, 2} {
			got, err := r.Reprocess(t.Context(), failed, after, 10)
			if got.Requested != int(2-after) || got.Next != 20_000 || err != nil {
				t.Errorf("after %d: got %+v, %v, want to go on after 20000", after, got, err)
			}
		}
	})

	t.Run("partial_result_is_returned_before_a_failure", func(t *testing.T) {
		t.Parallel()
		f := newFakeImages(4)
		down := fault.New(fault.Unavailable, "database_unavailable", "down")
		f.answer = func(id catalog.ImageID) error {
			if id == 3 {
				return down
			}
			return nil
		}
		r, _ := f.reprocessor(0.1)
		got, err := r.Reprocess(t.Context(), failed, 0, 10)
		if got.Requested != 2 || got.Next != 2 || got.Spread <= 0 || err != nil {
			t.Errorf("got %+v, %v, want two, the second due later, and to go on after it", got, err)
		}
		if got, err = r.Reprocess(t.Context(), failed, 2, 10); !errors.Is(err, down) || got != (catalog.BulkResult{}) {
			t.Errorf("got %+v, %v, want the failure: nothing was done", got, err)
		}
		f.down = down
		if _, err = r.Reprocess(t.Context(), failed, 0, 10); !errors.Is(err, down) {
			t.Errorf("got %v, want the failure", err)
		}
	})

	t.Run("limit_and_queue_are_bounded", func(t *testing.T) {
		t.Parallel()
		f := newFakeImages(10)
		r, _ := f.reprocessor(0.001) // one in a thousand seconds
		for _, limit := range []int{-1, 10_001} {
			if _, err := r.Reprocess(t.Context(), failed, 0, limit); !fault.Is(err, fault.Invalid) {
				t.Errorf("limit %d: got %v", limit, err)
			}
		}
		if _, err := r.Reprocess(t.Context(), failed, 0, 4); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Reprocess(t.Context(), failed, 4, 4); !fault.Is(err, fault.TooMany) || len(f.requested) != 4 {
			t.Errorf("got %v after %v, want a refusal: an hour is full", err, f.requested)
		}
	})

	t.Run("waiting_call_ends_with_its_context", func(t *testing.T) {
		t.Parallel()
		f := newFakeImages(1)
		r, _ := f.reprocessor(1)
		entered, goOn := make(chan struct{}), make(chan struct{})
		f.answer = func(catalog.ImageID) error { close(entered); <-goOn; return nil }
		first := make(chan error, 1)
		go func() { _, err := r.Reprocess(t.Context(), failed, 0, 1); first <- err }()
		<-entered
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Reprocess(ctx, failed, 0, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the end of the context", err)
		}
		close(goOn)
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
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
		"gc_zero":              {maintenance.GCConfig{}, 3},
		"auditor":              {auditorConfig(), 0},
		"auditor_all_wrong":    {maintenance.AuditorConfig{ToleratedShare: 2, ToleratedCount: -1}, 8},
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
