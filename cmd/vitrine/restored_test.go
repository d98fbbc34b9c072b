package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
)

// fakeRows checks batches of a thousand images up to last. Of each batch, missing images are requested again and failed
// ones fail.
type fakeRows struct {
	last            catalog.ImageID
	missing, failed int
	outages         int // calls that fail before the first success
	calls           int
	delays          []time.Duration // when each image is due, since the start
	start           time.Time
}

func (f *fakeRows) CheckRows(_ context.Context, after catalog.ImageID, limit int, delay func(int) time.Duration,
) (maintenance.Checked, error) {
	f.calls++
	if f.calls <= f.outages {
		return maintenance.Checked{}, fault.Wrap(errors.New("down"), fault.Unavailable, "down", "down")
	}
	for n := range f.missing {
		f.delays = append(f.delays, time.Since(f.start)+delay(n))
	}
	done := maintenance.Checked{Images: limit, Missing: f.missing, Failed: f.failed, Next: after + catalog.ImageID(limit)}
	if done.Next >= f.last {
		done.Next = 0
	}
	return done, nil
}

func TestCheckObjects(t *testing.T) {
	t.Parallel()
	t.Run("requests_are_spread_and_never_far_ahead", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := &fakeRows{last: 20_000, missing: 1000, outages: 2, start: time.Now()}
			if err := checkObjects(t.Context(), f, 1, zap.NewNop()); err != nil {
				t.Fatal(err)
			}
			if f.calls != 22 || len(f.delays) != 20_000 {
				t.Fatalf("%d calls, %d images requested, want 22 and 20000", f.calls, len(f.delays))
			}
			for i := 1; i < len(f.delays); i++ {
				if gap := f.delays[i] - f.delays[i-1]; gap < 999*time.Millisecond || gap > 1001*time.Millisecond {
					t.Fatalf("image %d is due %s after the one before, want a second", i, gap)
				}
			}
			if took, end := time.Since(f.start), f.delays[len(f.delays)-1]; end-took > 2*time.Hour {
				t.Errorf("the last image is due %s after the command has ended", end-took)
			}
		})
	})
	t.Run("single_failures_are_reported_at_the_end", func(t *testing.T) {
		t.Parallel()
		f := &fakeRows{last: 5000, failed: 1}
		if err := checkObjects(t.Context(), f, 1, zap.NewNop()); err == nil || !strings.HasPrefix(err.Error(), "5 images") {
			t.Errorf("got %v, want an error about 5 images", err)
		}
		if f.calls != 5 {
			t.Errorf("checked %d batches, want all 5", f.calls)
		}
	})
	t.Run("many_failures_end_it", func(t *testing.T) {
		t.Parallel()
		f := &fakeRows{last: 50_000_000, failed: 600}
		if err := checkObjects(t.Context(), f, 1, zap.NewNop()); err == nil || f.calls != 2 {
			t.Errorf("got %v after %d batches, want an error after 2", err, f.calls)
		}
	})
}
