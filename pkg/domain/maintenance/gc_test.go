package maintenance_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/test/catalogtest"
)

// fakeRows are the rows and objects of the rescuer, the cleaner and the garbage collector.
type fakeRows struct {
	mu          sync.Mutex
	overdue     []maintenance.ReleasedJob
	republished []maintenance.ImageRef
	passed      func(catalog.ProductID) time.Time // nil: everything
	asked       int                               // calls of Passed
	products    int
	rotation    maintenance.KeyRotation // the result of RotateKeys
	deletions   map[string]*deletion
	objects     map[string]bool
	err         error  // the error of every method but DeletePrefixes and Republish
	deleteErr   error  // the error of DeletePrefixes, except for b/
	failing     string // a prefix that cannot be deleted
	scans       int
}

// deletion is one scheduled deletion.
type deletion struct {
	due     time.Time
	started bool
}

func (f *fakeRows) OverdueJobs(_ context.Context, after maintenance.ReleasedJob, limit int, _ time.Duration,
) ([]maintenance.ReleasedJob, time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scans++
	var found []maintenance.ReleasedJob
	for _, job := range f.overdue {
		if job.ImageID > after.ImageID && len(found) < limit {
			found = append(found, job)
		}
	}
	return found, time.Now(), f.err
}

func (f *fakeRows) Passed(_ context.Context, now time.Time) (func(catalog.ProductID) time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.passed != nil {
		return f.passed, nil
	}
	return func(catalog.ProductID) time.Time { return now }, nil
}

func (f *fakeRows) PurgeDeleted(_ context.Context, limit int, _ time.Duration) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(limit, f.products)
	f.products -= n
	return n, f.err
}

func (f *fakeRows) RotateKeys(context.Context) (maintenance.KeyRotation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scans++
	return f.rotation, f.err
}

func (f *fakeRows) Republish(
	_ context.Context, product catalog.ProductID, image catalog.ImageID, _ time.Time, _ time.Duration,
) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.overdue = slices.DeleteFunc(f.overdue, func(o maintenance.ReleasedJob) bool { return o.ImageID == image })
	switch image {
	case 404:
		return catalog.ErrDone
	case 500:
		return errors.New("down")
	}
	f.republished = append(f.republished, maintenance.ImageRef{ProductID: product, ImageID: image})
	return nil
}

func (f *fakeRows) StartDue(_ context.Context, limit int, secondPass time.Duration) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scans++
	return f.due(limit, false, func(d *deletion) { d.started, d.due = true, time.Now().Add(secondPass) }), f.err
}

func (f *fakeRows) ClaimSecondPass(_ context.Context, limit int, lease time.Duration) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.due(limit, true, func(d *deletion) { d.due = time.Now().Add(lease) }), f.err
}

func (f *fakeRows) due(limit int, started bool, mark func(*deletion)) []string {
	var found []string
	for prefix, d := range f.deletions {
		if d.started == started && !d.due.After(time.Now()) && len(found) < limit {
			mark(d)
			found = append(found, prefix)
		}
	}
	return found
}

func (f *fakeRows) Remove(_ context.Context, prefixes []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, prefix := range prefixes {
		delete(f.deletions, prefix)
	}
	return f.err
}

func (f *fakeRows) DeletePrefixes(_ context.Context, prefixes []string) []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := make([]error, len(prefixes))
	for i, prefix := range prefixes {
		d := f.deletions[prefix]
		switch {
		case prefix == f.failing:
			errs[i] = errors.New("refused")
		case f.deleteErr != nil && prefix != "b/":
			errs[i] = f.deleteErr
		case d == nil || !d.started:
			errs[i] = fmt.Errorf("the objects of %s are deleted before the deletion is started", prefix)
		default:
			delete(f.objects, prefix)
		}
	}
	return errs
}

func rescuerConfig() maintenance.RescuerConfig {
	return maintenance.RescuerConfig{Interval: time.Minute, Batch: 3, OverdueAfter: time.Minute}
}

func cleanerConfig() maintenance.CleanerConfig {
	return maintenance.CleanerConfig{
		Interval: time.Minute, Batch: 3, ProductsAfter: time.Hour, KeysInterval: 10 * time.Minute,
	}
}

func gcConfig() maintenance.GCConfig {
	return maintenance.GCConfig{Interval: time.Minute, Batch: 3, SecondPassAfter: time.Hour, Lease: 5 * time.Minute}
}

// during calls run with a context that ends after d of fake time.
func during(t *testing.T, d time.Duration, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := run(ctx); err != nil {
		t.Error(err)
	}
}

func TestGarbageCollector(t *testing.T) {
	t.Parallel()
	t.Run("deletes_twice_and_removes_the_deletion", testGCDeletesTwiceAndRemovesTheDeletion)
	t.Run("failed_first_pass_is_repeated_by_the_second", testGCFailedFirstPassIsRepeatedByTheSecond)
	t.Run("failed_prefix_does_not_stop_the_others", testGCFailedPrefixDoesNotStopTheOthers)
	t.Run("outage_does_not_start_all_deletions_at_once", testGCOutageDoesNotStartAllDeletionsAtOnce)
	t.Run("database_error_is_retried_every_interval", testGCDatabaseErrorIsRetriedEveryInterval)
}

func testGCDeletesTwiceAndRemovesTheDeletion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		f := &fakeRows{
			deletions: map[string]*deletion{
				"a/": {due: now}, "b/": {due: now}, "c/": {due: now}, "d/": {due: now}, "later/": {due: now.Add(24 * time.Hour)},
			},
			objects: map[string]bool{"a/": true, "b/": true, "c/": true, "d/": true, "later/": true},
		}
		g := maintenance.NewGarbageCollector(f, f, gcConfig(), prometheus.NewRegistry(), zap.NewNop())
		during(t, time.Minute+time.Second, g.Run)
		if len(f.objects) != 1 || len(f.deletions) != 5 {
			t.Errorf("after a scan: objects %v, %d deletions, want one and five", f.objects, len(f.deletions))
		}
		f.objects["a/"] = true // a late upload
		during(t, 2*time.Hour, g.Run)
		if len(f.objects) != 1 || len(f.deletions) != 1 || !f.objects["later/"] {
			t.Errorf("at the end: objects %v, deletions %v, want only those that are not due", f.objects, f.deletions)
		}
	})
}

func testGCFailedFirstPassIsRepeatedByTheSecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRows{
			deletions: map[string]*deletion{"a/": {due: time.Now()}, "b/": {due: time.Now()}},
			objects:   map[string]bool{"a/": true, "b/": true},
			deleteErr: errors.New("down"),
		}
		g := maintenance.NewGarbageCollector(f, f, gcConfig(), prometheus.NewRegistry(), zap.NewNop())
		during(t, 3*time.Hour, g.Run)
		if len(f.deletions) != 1 || len(f.objects) != 1 || !f.objects["a/"] {
			t.Fatalf("deletions %v, objects %v: want a/ kept until it can be deleted, and b/ deleted", f.deletions, f.objects)
		}
		f.deleteErr = nil
		during(t, 7*time.Minute, g.Run) // the lease and an interval
		if len(f.objects) != 0 || len(f.deletions) != 0 {
			t.Errorf("objects %v, deletions %v", f.objects, f.deletions)
		}
	})
}

func testGCFailedPrefixDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRows{deletions: map[string]*deletion{}, objects: map[string]bool{}, failing: "bad/"}
		reg := prometheus.NewRegistry()
		for i := range 20 { // seven batches
			prefix := fmt.Sprint(i, "/")
			f.deletions[prefix], f.objects[prefix] = &deletion{due: time.Now()}, true
		}
		f.deletions["bad/"], f.objects["bad/"] = &deletion{due: time.Now().Add(-time.Hour), started: true}, true
		g := maintenance.NewGarbageCollector(f, f, gcConfig(), reg, zap.NewNop())
		during(t, time.Minute+time.Second, g.Run) // one interval
		if len(f.objects) != 1 || !f.objects["bad/"] {
			t.Errorf("objects %v, want only those of the prefix that fails", f.objects)
		}
		if n := catalogtest.Metric(t, reg, "vitrine_maintenance_gc_errors_total"); n != 1 {
			t.Errorf("counted %v errors, want one", n)
		}
	})
}

func testGCOutageDoesNotStartAllDeletionsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRows{deletions: map[string]*deletion{}, deleteErr: errors.New("down")}
		for i := range 20 {
			f.deletions[fmt.Sprint(i, "/")] = &deletion{due: time.Now()}
		}
		g := maintenance.NewGarbageCollector(f, f, gcConfig(), prometheus.NewRegistry(), zap.NewNop())
		during(t, 2*time.Minute+time.Second, g.Run) // two intervals
		if f.scans != 2 {
			t.Errorf("scanned %d times in two intervals, want twice", f.scans)
		}
	})
}

func testGCDatabaseErrorIsRetriedEveryInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRows{err: errors.New("down")}
		g := maintenance.NewGarbageCollector(f, f, gcConfig(), prometheus.NewRegistry(), zap.NewNop())
		during(t, 10*time.Minute+time.Second, g.Run)
		if f.scans != 10 {
			t.Errorf("scanned %d times in ten minutes, want 10", f.scans)
		}
	})
}
