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

// released returns a job that was released at the start of Unix time.
func released(product catalog.ProductID, image catalog.ImageID) maintenance.ReleasedJob {
	return maintenance.ReleasedJob{
		ImageRef: maintenance.ImageRef{ProductID: product, ImageID: image}, ReleasedAt: time.Unix(0, 0),
	}
}

func TestRescuer(t *testing.T) {
	t.Parallel()

	t.Run("publishes_full_batches_without_a_pause", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := &fakeRows{}
			for i := range 10 {
				f.overdue = append(f.overdue, released(1, catalog.ImageID(i+1)))
			}
			f.overdue[9].ImageID = 404
			r := maintenance.NewRescuer(f, f, f, rescuerConfig(), prometheus.NewRegistry(), zap.NewNop())
			during(t, time.Minute+time.Second, r.Run) // one interval
			if len(f.republished) != 9 {
				t.Errorf("published %d jobs, want 9", len(f.republished))
			}
		})
	})

	t.Run("jobs_that_wait_in_kafka_are_left_alone", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := &fakeRows{passed: func(id catalog.ProductID) time.Time { // the partition of product 2 is read
				return time.Unix(0, 0).Add(time.Duration(id-1) * time.Second)
			}}
			for i := range catalog.ImageID(10) { // more than two batches
				f.overdue = append(f.overdue, released(1, i+1))
			}
			f.overdue = append(f.overdue, released(2, 11))
			r := maintenance.NewRescuer(f, f, f, rescuerConfig(), prometheus.NewRegistry(), zap.NewNop())
			during(t, time.Minute+time.Second, r.Run)
			if len(f.republished) != 1 || f.republished[0].ImageID != 11 {
				t.Errorf("published %v, want image 11 only", f.republished)
			}
			f.overdue, f.asked = nil, 0
			during(t, time.Minute+time.Second, r.Run)
			if f.asked != 0 {
				t.Error("the progress was read, and no job is overdue")
			}
		})
	})

	t.Run("failed_image_does_not_end_the_scan_of_full_batches", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := &fakeRows{}
			for i := range 20 {
				f.overdue = append(f.overdue, released(1, catalog.ImageID(i+1)))
			}
			f.overdue[0].ImageID = 500
			r := maintenance.NewRescuer(f, f, f, rescuerConfig(), prometheus.NewRegistry(), zap.NewNop())
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
			f := &fakeRows{overdue: []maintenance.ReleasedJob{released(1, 500), released(1, 502)}}
			r := maintenance.NewRescuer(f, f, f, rescuerConfig(), reg, zap.NewNop())
			during(t, time.Minute+time.Second, r.Run) // one scan
			if len(f.republished) != 1 {
				t.Errorf("published %v, want image 502", f.republished)
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
			r := maintenance.NewRescuer(f, f, f, rescuerConfig(), reg, zap.NewNop())
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
				"partitions_ahead": ahead, "partitions_dropped_total": dropped, "rotation_errors_total": errors,
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
