package maintenance_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/test/catalogtest"
)

func TestRescuer(t *testing.T) {
	t.Parallel()

	t.Run("publishes_full_batches_without_a_pause", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := &fakeRows{}
			for i := range 10 {
				f.overdue = append(f.overdue, maintenance.ImageRef{ProductID: 1, ImageID: catalog.ImageID(i + 1)})
			}
			f.overdue[4].ImageID = 404
			r := maintenance.NewRescuer(f, f, rescuerConfig(), prometheus.NewRegistry(), zap.NewNop())
			during(t, time.Minute+time.Second, r.Run) // one interval
			if len(f.republished) != 9 {
				t.Errorf("published %d jobs, want 9", len(f.republished))
			}
		})
	})

	t.Run("failed_image_does_not_end_the_scan_of_full_batches", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := &fakeRows{}
			for i := range 20 {
				f.overdue = append(f.overdue, maintenance.ImageRef{ProductID: 1, ImageID: catalog.ImageID(i + 1)})
			}
			f.overdue[0].ImageID = 500
			r := maintenance.NewRescuer(f, f, rescuerConfig(), prometheus.NewRegistry(), zap.NewNop())
			during(t, time.Minute+time.Second, r.Run) // one interval
			if len(f.republished) != 19 {
				t.Errorf("published %d jobs, want all but the one that fails", len(f.republished))
			}
		})
	})

	t.Run("one_failure_does_not_stop_the_rest", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			f := &fakeRows{overdue: []maintenance.ImageRef{{ProductID: 1, ImageID: 500}, {ProductID: 1, ImageID: 2}}}
			r := maintenance.NewRescuer(f, f, rescuerConfig(), reg, zap.NewNop())
			during(t, time.Minute+time.Second, r.Run) // one scan
			if len(f.republished) != 1 {
				t.Errorf("published %v, want image 2", f.republished)
			}
			f.err = errors.New("down")
			during(t, 150*time.Second, r.Run)
			if n := catalogtest.Metric(t, reg, "vitrine_maintenance_rescuer_errors_total"); n != 3 || f.scans != 3 {
				t.Errorf("%d scans, %v errors, want three and three", f.scans, n)
			}
		})
	})
}

func TestCleaner(t *testing.T) {
	t.Parallel()

	t.Run("removes_full_batches_without_a_pause_and_counts_them", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f, reg := &fakeRows{products: 7}, prometheus.NewRegistry()
			c := maintenance.NewCleaner(f, cleanerConfig(), reg, zap.NewNop())
			during(t, time.Minute+time.Second, c.Run)
			if f.products != 0 {
				t.Errorf("left %d products, want none", f.products)
			}
			for name, want := range map[string]float64{"products_purged_total": 7, "errors_total": 0} {
				if got := catalogtest.Metric(t, reg, "vitrine_maintenance_cleaner_"+name); got != want {
					t.Errorf("%s: got %v, want %v", name, got, want)
				}
			}
		})
	})

	t.Run("counts_its_errors_apart_from_the_rescuer", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f, reg := &fakeRows{err: errors.New("down")}, prometheus.NewRegistry()
			r := maintenance.NewRescuer(f, f, rescuerConfig(), reg, zap.NewNop())
			c := maintenance.NewCleaner(f, cleanerConfig(), reg, zap.NewNop())
			during(t, 2*time.Minute+time.Second, r.Run)
			during(t, time.Minute+time.Second, c.Run)
			rescuer := catalogtest.Metric(t, reg, "vitrine_maintenance_rescuer_errors_total")
			if n := catalogtest.Metric(t, reg, "vitrine_maintenance_cleaner_errors_total"); n != 1 || rescuer != 2 {
				t.Errorf("counted %v errors of the cleaner and %v of the rescuer, want one and two", n, rescuer)
			}
		})
	})
}

func TestKeyRotator(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, reg := &fakeRows{rotation: maintenance.KeyRotation{DaysAhead: 7, Dropped: 2}}, prometheus.NewRegistry()
		r := maintenance.NewKeyRotator(f, cleanerConfig(), reg, zap.NewNop())
		want := func(ahead, dropped, errors float64) {
			t.Helper()
			for name, want := range map[string]float64{
				"partitions_ahead_days": ahead, "partitions_dropped_total": dropped, "rotation_errors_total": errors,
			} {
				if got := catalogtest.Metric(t, reg, "vitrine_maintenance_key_"+name); got != want {
					t.Errorf("%s: got %v, want %v", name, got, want)
				}
			}
		}
		during(t, time.Second, r.Run) // the first rotation is at once
		want(7, 2, 0)
		f.rotation, f.err = maintenance.KeyRotation{Dropped: 1}, errors.New("down")
		during(t, 10*time.Minute+time.Second, r.Run) // a failed rotation says nothing about the days ahead
		want(7, 4, 2)
	})
}
