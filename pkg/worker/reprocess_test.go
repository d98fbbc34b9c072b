package worker_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/fault"
	"vitrine.io/pkg/media"
	"vitrine.io/pkg/worker"
)

// shelf is pictures that may be asked for anew.
type shelf struct {
	pictures []catalog.ImageID
	walked   catalog.ImageID // how far a look comes that does not find enough; 0: to the end
	which    catalog.Selection
	asked    []catalog.ImageID
	due      []time.Duration // since the test began
	began    time.Time
	answer   func(catalog.ImageID) error
	down     error
}

func newShelf(n int) *shelf {
	s := &shelf{began: time.Now(), answer: func(catalog.ImageID) error { return nil }}
	for i := range n {
		s.pictures = append(s.pictures, catalog.ImageID(i+1))
	}
	return s
}

func (s *shelf) SelectImages(_ context.Context, which catalog.Selection, after catalog.ImageID, limit int,
) (found []worker.Picture, next catalog.ImageID, err error) {
	s.which = which
	for _, id := range s.pictures {
		if id > after && len(found) < limit {
			found, next = append(found, worker.Picture{ProductID: 1, ImageID: id}), id
		}
	}
	if len(found) < limit {
		next = s.walked
	}
	return found, next, s.down
}

func (s *shelf) Remake(_ context.Context, _ catalog.ProductID, image catalog.ImageID, which catalog.Selection,
	delay time.Duration,
) error {
	if which != s.which {
		return errors.New("asked for as another selection")
	}
	if err := s.answer(image); err != nil {
		return err
	}
	s.asked, s.due = append(s.asked, image), append(s.due, time.Since(s.began)+delay)
	return nil
}

func (s *shelf) reprocessor(rate float64) (*worker.Reprocessor, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	return worker.NewReprocessor(s, s, worker.ReprocessConfig{Rate: rate}, time.Now, reg, zap.NewNop()), reg
}

func TestReprocess(t *testing.T) {
	t.Parallel()
	failed := catalog.Selection{Status: catalog.Failed, Code: media.Timeout}

	t.Run("requests become due one after the other, so many a second", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newShelf(5)
			r, reg := s.reprocessor(4)
			got, err := r.Reprocess(t.Context(), failed, 1, 3)
			if want := (catalog.Bulk{Requested: 3, Next: 4, Spread: 500 * time.Millisecond}); got != want || err != nil {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
			if want := []catalog.ImageID{2, 3, 4}; !slices.Equal(s.asked, want) || s.which != failed {
				t.Errorf("asked for %v as %+v, want %v", s.asked, s.which, want)
			}
			if want := []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond}; !slices.Equal(s.due, want) {
				t.Errorf("due after %v, want %v", s.due, want)
			}
			if n := metric(t, reg, "vitrine_worker_reprocess_requested_total"); n != 3 {
				t.Errorf("counted %v", n)
			}
		})
	})

	t.Run("a call queues up behind those before it", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newShelf(4)
			r, _ := s.reprocessor(1)
			if _, err := r.Reprocess(t.Context(), failed, 0, 2); err != nil {
				t.Fatal(err)
			}
			got, err := r.Reprocess(t.Context(), failed, 2, 0)
			if want := (catalog.Bulk{Requested: 2, Spread: 3 * time.Second}); got != want || err != nil {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
			<-time.After(time.Hour) // all of that is over
			if got, err = r.Reprocess(t.Context(), failed, 3, 1); got.Spread != 0 || err != nil {
				t.Errorf("got %+v, %v, want it due at once", got, err)
			}
			hours := time.Hour // the last one is not delayed by what is long due
			if want := []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second, hours}; !slices.Equal(s.due, want) {
				t.Errorf("due after %v, want %v", s.due, want)
			}
		})
	})

	t.Run("what is in work or gone is skipped and costs no time", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newShelf(4)
			s.answer = func(id catalog.ImageID) error {
				return map[catalog.ImageID]error{1: catalog.ErrDone, 3: fault.New(fault.NotFound, "image_not_found", "no")}[id]
			}
			r, _ := s.reprocessor(1)
			got, err := r.Reprocess(t.Context(), failed, 0, 10)
			if want := (catalog.Bulk{Requested: 2, Skipped: 2, Spread: time.Second}); got != want || err != nil {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	})

	t.Run("a look that comes no further says from where to go on, found or not", func(t *testing.T) {
		t.Parallel()
		s := newShelf(2)
		s.walked = 20_000
		r, _ := s.reprocessor(1000)
		for _, after := range []catalog.ImageID{0, 2} {
			got, err := r.Reprocess(t.Context(), failed, after, 10)
			if got.Requested != int(2-after) || got.Next != 20_000 || err != nil {
				t.Errorf("after %d: got %+v, %v, want to go on after 20000", after, got, err)
			}
		}
	})

	t.Run("what was done before a failure is told, and can be gone on from", func(t *testing.T) {
		t.Parallel()
		s := newShelf(4)
		down := fault.New(fault.Unavailable, "database_unavailable", "down")
		s.answer = func(id catalog.ImageID) error {
			if id == 3 {
				return down
			}
			return nil
		}
		r, _ := s.reprocessor(0.1)
		got, err := r.Reprocess(t.Context(), failed, 0, 10)
		if got.Requested != 2 || got.Next != 2 || got.Spread <= 0 || err != nil {
			t.Errorf("got %+v, %v, want two, the second due later, and to go on after it", got, err)
		}
		if got, err = r.Reprocess(t.Context(), failed, 2, 10); !errors.Is(err, down) || got != (catalog.Bulk{}) {
			t.Errorf("got %+v, %v, want the failure: nothing was done", got, err)
		}
		s.down = down
		if _, err = r.Reprocess(t.Context(), failed, 0, 10); !errors.Is(err, down) {
			t.Errorf("got %v, want the failure", err)
		}
	})

	t.Run("there is an end to what can be asked for at a time", func(t *testing.T) {
		t.Parallel()
		s := newShelf(10)
		r, _ := s.reprocessor(0.001) // one in a thousand seconds
		for _, limit := range []int{-1, 10_001} {
			if _, err := r.Reprocess(t.Context(), failed, 0, limit); !fault.Is(err, fault.Invalid) {
				t.Errorf("limit %d: got %v", limit, err)
			}
		}
		if _, err := r.Reprocess(t.Context(), failed, 0, 4); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Reprocess(t.Context(), failed, 4, 4); !fault.Is(err, fault.TooMany) || len(s.asked) != 4 {
			t.Errorf("got %v after %v, want a refusal: an hour is full", err, s.asked)
		}
	})

	t.Run("calls wait for each other, and not for ever", func(t *testing.T) {
		t.Parallel()
		s := newShelf(1)
		r, _ := s.reprocessor(1)
		entered, goOn := make(chan struct{}), make(chan struct{})
		s.answer = func(catalog.ImageID) error { close(entered); <-goOn; return nil }
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

func TestConfigsOfBulkAndAudit(t *testing.T) {
	t.Parallel()
	if wrong := auditConfig().Validate(); wrong != nil {
		t.Errorf("got %v", wrong)
	}
	if wrong := (worker.AuditConfig{ToleratedShare: 2, ToleratedLeast: -1}).Validate(); len(wrong) != 8 {
		t.Errorf("got %d wrong fields, want all eight: %v", len(wrong), wrong)
	}
	for rate, want := range map[float64]int{20: 0, 0.01: 0, 0: 1, -1: 1, 1e9: 1} {
		if wrong := (worker.ReprocessConfig{Rate: rate}).Validate(); len(wrong) != want {
			t.Errorf("rate %v: got %v", rate, wrong)
		}
	}
}
