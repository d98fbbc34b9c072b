package maintenance_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

const oneScan = time.Minute + time.Second // one step over the objects and one over the rows

// atOnce makes every image due at once.
func atOnce(int) time.Duration { return 0 }

func TestAuditorObjects(t *testing.T) {
	t.Parallel()
	t.Run("old_orphans_are_scheduled", testAuditorObjectsOldOrphansAreScheduled)
	t.Run("bucket_is_listed_before_the_rows_are_read", testAuditorObjectsBucketIsListedBeforeTheRowsAreRead)
	t.Run("continues_at_the_cursor_and_rests_at_the_end", testAuditorObjectsContinuesAtTheCursorAndRestsAtTheEnd)
	t.Run("objects_of_canaries_without_a_deletion_are_orphans", testAuditorObjectsCanary)
	t.Run("attempt_larger_than_a_batch_is_checked", testAuditorObjectsAttemptLargerThanABatchIsChecked)
	t.Run("shard_belongs_to_one_of_several_auditors", testAuditorObjectsShardBelongsToOneOfSeveralAuditors)
	t.Run("disabled_auditor_does_nothing", testAuditorObjectsDisabledAuditorDoesNothing)
}

func testAuditorObjectsOldOrphansAreScheduled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.publish(1)
		f.place("products/1/2/3-orphan/full.jpg", 25*time.Hour)
		f.place("products/1/2/4-work/full.jpg", 25*time.Hour)
		f.referenced["products/1/2/4-work/"] = true
		f.place("products/1/2/5-new/card.webp", 25*time.Hour)
		f.place("products/1/2/5-new/full.jpg", 23*time.Hour) // the newest object counts
		f.place("products/readme.txt", 48*time.Hour)
		f.place(".vitrine/installation", 48*time.Hour)
		a := newAuditor(f, auditorConfig())
		during(t, oneScan, a.Run)
		if got := f.deletions; len(got) != 1 || got["products/1/2/3-orphan/"] != 10*time.Minute {
			t.Errorf("deletions %v, want the orphan after the grace period", got)
		}
		if len(f.objects) != 8 {
			t.Errorf("%d objects exist, want all 8", len(f.objects))
		}
		a.want(t, map[string]float64{"objects_listed_total": 7, "orphans_total": 1, "unrecognized_keys_total": 1, "stopped": 0})
		if n := a.logs.FilterMessage("the bucket has objects that no attempt wrote").Len(); n != 1 {
			t.Errorf("warned %d times of foreign objects", n)
		}
		during(t, 3*time.Hour, a.Run) // several times
		if len(f.deletions) != 2 || f.deletions["products/1/2/5-new/"] == 0 {
			t.Errorf("deletions %v, want also the attempt that was too new before", f.deletions)
		}
		a.want(t, map[string]float64{"orphans_total": 2})
	})
}

func testAuditorObjectsBucketIsListedBeforeTheRowsAreRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.place("products/1/2/3-orphan/full.jpg", 25*time.Hour)
		during(t, oneScan, newAuditor(f, auditorConfig()).Run)
		if want := []string{"page canary/ after ", "page products/ after canary0", "unreferenced"}; !slices.Equal(f.log, want) {
			t.Errorf("called %q, want %q: else an attempt that begins in between is an orphan", f.log, want)
		}
	})
}

func testAuditorObjectsCanary(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		for i := range 26 { // three batches of at most ten
			f.place(fmt.Sprintf("canary/7/2-%c/card.webp", 'a'+i), 25*time.Hour)
			f.referenced[fmt.Sprintf("canary/7/2-%c/", 'a'+i)] = i%10 != 0
		}
		f.publish(1)
		a := newAuditor(f, auditorConfig())
		during(t, 30*time.Minute, a.Run)
		if want := map[string]time.Duration{
			"canary/7/2-a/": 10 * time.Minute, "canary/7/2-k/": 10 * time.Minute, "canary/7/2-u/": 10 * time.Minute,
		}; !maps.Equal(f.deletions, want) {
			t.Errorf("deletions %v, want %v", f.deletions, want)
		}
		if got := a.value(t, "objects_listed_total"); got != 28 {
			t.Errorf("listed %v objects, want those of canaries and the image", got)
		}
	})
}

func testAuditorObjectsContinuesAtTheCursorAndRestsAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		for i := range 8 { // attempts of three objects, in batches of ten: three whole attempts a scan
			for _, name := range []string{"a", "b", "c"} {
				f.place(fmt.Sprintf("products/1/1/%d-x/%s", i+1, name), 25*time.Hour)
			}
			f.referenced[fmt.Sprintf("products/1/1/%d-x/", i+1)] = true
		}
		during(t, 30*time.Minute, newAuditor(f, auditorConfig()).Run)
		pages := slices.DeleteFunc(slices.Clone(f.log), func(s string) bool { return s == "unreferenced" })
		want := []string{
			"page canary/ after ", "page products/ after canary0", "page products/ after products/1/1/3-x/c",
			"page products/ after products/1/1/6-x/c",
		}
		if !slices.Equal(pages, want) {
			t.Errorf("listed %q, want %q and then the pause", pages, want)
		}
		during(t, time.Hour, newAuditor(f, auditorConfig()).Run) // another process
		if len(f.log) <= 7 {
			t.Errorf("called %q, want another pass after the pause", f.log)
		}
	})
}

func testAuditorObjectsAttemptLargerThanABatchIsChecked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		for i := range 25 {
			f.place(fmt.Sprintf("products/1/1/1-x/%02d", i), 25*time.Hour)
		}
		f.place("products/foreign", 25*time.Hour)
		during(t, 5*time.Minute, newAuditor(f, auditorConfig()).Run)
		if at := f.at(t, "objects"); len(f.deletions) != 1 || !at.Done || len(f.log) < 3 {
			t.Errorf("deletions %v, at %+v", f.deletions, at)
		}
	})
}

func testAuditorObjectsShardBelongsToOneOfSeveralAuditors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.owner = "" // then no cursor is saved, and every batch is the first
		var all sync.WaitGroup
		regs := make([]auditor, 3)
		for i := range regs {
			regs[i] = newAuditor(f, auditorConfig())
			all.Go(func() { during(t, 10*time.Minute+time.Second, regs[i].Run) })
		}
		all.Wait()
		var stops int
		for _, a := range regs {
			stops += a.logs.FilterMessage("audit stopped").Len()
		}
		if stops < 18 || stops > 20 {
			t.Errorf("scanned %d times in ten minutes, want each scan once a minute", stops)
		}
	})
}

func testAuditorObjectsDisabledAuditorDoesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.place("products/1/2/3-orphan/full.jpg", 25*time.Hour)
		cfg := auditorConfig()
		cfg.Enabled = false
		during(t, time.Hour, newAuditor(f, cfg).Run)
		if len(f.log) != 0 {
			t.Errorf("called %q", f.log)
		}
	})
}

func TestAuditorStops(t *testing.T) {
	t.Parallel()
	t.Run("too_many_orphans_stop_it_until_there_are_fewer", testAuditorStopsTooManyOrphansStopItUntilThereAreFewer)
	t.Run("bucket_of_another_or_no_owner_stops_both_scans", testAuditorStopsBucketOfAnotherOrNoOwnerStopsBothScans)
	t.Run("too_many_missing_objects_stop_it", testAuditorStopsTooManyMissingObjectsStopIt)
	t.Run("share_is_measured_against_the_batch", testAuditorStopsShareIsMeasuredAgainstTheBatch)
	t.Run("outage_is_an_error_and_no_finding", testAuditorStopsOutageIsAnErrorAndNoFinding)
}

func testAuditorStopsTooManyOrphansStopItUntilThereAreFewer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.putOrphans(3)
		a := newAuditor(f, auditorConfig())
		during(t, 5*time.Minute+time.Second, func(ctx context.Context) error {
			context.AfterFunc(ctx, func() { a.want(t, map[string]float64{"stopped": 1, "orphans_total": 0, "errors_total": 0}) })
			return a.Run(ctx)
		})
		if at := f.at(t, "objects"); len(f.deletions) != 0 || at.Cursor != "" || at.Stopped != "too_many_orphans" {
			t.Errorf("deletions %v, at %+v: want none, and to stop at the beginning", f.deletions, at)
		}
		if n := a.logs.FilterMessage("audit stopped").Len(); n != 5 {
			t.Errorf("logged %d times in five scans", n)
		}
		f.referenced["products/1/2/2-orphan/"] = true // two orphans remain, which are tolerated
		during(t, 2*time.Minute, a.Run)
		a.want(t, map[string]float64{"stopped": 0, "orphans_total": 2})
	})
}

func testAuditorStopsBucketOfAnotherOrNoOwnerStopsBothScans(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, owner := range []string{"other", ""} {
			f := newFakeInstallation()
			f.owner = owner
			f.publish(1)
			delete(f.objects, "products/1/1/1-a/full.jpg")
			f.putOrphans(1)
			a := newAuditor(f, auditorConfig())
			during(t, oneScan, a.Run)
			if len(f.deletions)+len(f.requested)+len(f.log) != 0 {
				t.Errorf("owner %q: deletions %v, requested %v, called %v", owner, f.deletions, f.requested, f.log)
			}
			a.want(t, map[string]float64{"stopped": 2, "errors_total": 0})
			if _, err := a.CheckRows(t.Context(), 0, 10, atOnce); err == nil {
				t.Errorf("owner %q: rows were checked against the wrong bucket", owner)
			}
		}
	})
}

func testAuditorStopsTooManyMissingObjectsStopIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		for i := range catalog.ImageID(4) {
			f.publish(i + 1)
		}
		object := f.objects["products/1/1/1-a/full.jpg"]
		clear(f.objects)
		for i := range catalog.ImageID(3) { // they do not count, because their last request failed
			f.publish(i + 5)
			f.published[i+4].ReprocessError = media.HTTPStatus
			delete(f.objects, fmt.Sprintf("products/1/%d/1-a/full.jpg", i+5))
		}
		cfg := auditorConfig()
		cfg.Rows = 10
		a := newAuditor(f, cfg)
		during(t, 2*time.Minute+time.Second, func(ctx context.Context) error {
			context.AfterFunc(ctx, func() { a.want(t, map[string]float64{"stopped": 1, "missing_total": 0, "errors_total": 0}) })
			return a.Run(ctx)
		})
		if logged := a.logs.FilterMessage("audit stopped").All(); len(f.requested) != 0 || len(logged) != 2 {
			t.Errorf("requested %v, logged %v, want none and two", f.requested, logged)
		}
		for _, image := range []string{"1", "2"} { // two of four are tolerated
			for _, name := range []string{"full.jpg", "card.webp"} {
				f.objects["products/1/"+image+"/1-a/"+name] = maintenance.Object{
					Key: "products/1/" + image + "/1-a/" + name, Size: object.Size, Modified: object.Modified,
				}
			}
		}
		during(t, 2*time.Minute, a.Run)
		if want := []catalog.ImageID{3, 4, 5, 6, 7}; !slices.Equal(f.requested, want) || !slices.Equal(f.ifOld, want[2:]) {
			t.Errorf("requested %v, ifOld %v, want %v and the last three", f.requested, f.ifOld, want)
		}
	})
}

func testAuditorStopsShareIsMeasuredAgainstTheBatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.putOrphans(4)
		for i := range 396 {
			f.place(fmt.Sprintf("products/1/3/%d-used/x", i+1), 25*time.Hour)
			f.referenced[fmt.Sprintf("products/1/3/%d-used/", i+1)] = true
		}
		cfg := auditorConfig()
		cfg.Batch = 1000
		during(t, oneScan, newAuditor(f, cfg).Run)
		if len(f.deletions) != 4 {
			t.Errorf("got %d deletions, want 4 of 400", len(f.deletions))
		}
	})
}

func testAuditorStopsOutageIsAnErrorAndNoFinding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.publish(1)
		f.bucketErr = fault.New(fault.Unavailable, "storage_unavailable", "down")
		delete(f.objects, "products/1/1/1-a/full.jpg") // the fake returns an empty list with the error
		f.putOrphans(1)
		a := newAuditor(f, auditorConfig())
		during(t, oneScan, a.Run)
		f.bucketErr, f.rowsErr = nil, errors.New("down")
		during(t, oneScan, a.Run)
		if len(f.deletions)+len(f.requested) != 0 {
			t.Errorf("deletions %v, requested %v", f.deletions, f.requested)
		}
		a.want(t, map[string]float64{"errors_total": 4, "stopped": 0})
		f.rowsErr = nil
		during(t, oneScan, a.Run)
		if len(f.deletions) != 1 || len(f.requested) != 1 {
			t.Errorf("deletions %v, requested %v, want one each after the outage", f.deletions, f.requested)
		}
	})
}

func TestAuditorRows(t *testing.T) {
	t.Parallel()
	t.Run("missing_or_different_objects_are_requested_again", testAuditorRowsMissingOrDifferentObjectsAreRequestedAgain)
	t.Run("image_whose_last_request_failed_is_requested_later", testAuditorRowsImageWhoseLastRequestFailedIsRequestedLater)
	t.Run("image_that_changes_during_the_check_is_skipped", testAuditorRowsImageThatChangesDuringTheCheckIsSkipped)
	t.Run("caller_sets_limit_and_delay", testAuditorRowsCallerSetsLimitAndDelay)
	t.Run("failed_requests_above_tolerance_are_an_error", testAuditorRowsFailedRequestsAboveTolerance)
	t.Run("malformed_cursor_is_an_error", testAuditorRowsMalformedCursorIsAnError)
}

func testAuditorRowsMissingOrDifferentObjectsAreRequestedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		for i := range catalog.ImageID(5) {
			f.publish(i + 1)
		}
		f.published = append(f.published, maintenance.Published{ImageRef: maintenance.ImageRef{ProductID: 1, ImageID: 9}})
		delete(f.objects, "products/1/2/1-a/full.jpg")
		f.objects["products/1/5/1-a/card.webp"] = maintenance.Object{Key: "products/1/5/1-a/card.webp", Size: 4}
		a := newAuditor(f, auditorConfig())
		during(t, 59*time.Minute, a.Run) // a pass
		if want := []catalog.ImageID{2, 5}; !slices.Equal(f.requested, want) || !f.at(t, "rows").Done {
			t.Errorf("requested %v, at %+v, want %v and the end", f.requested, f.at(t, "rows"), want)
		}
		a.want(t, map[string]float64{"missing_total": 2, "rows_checked_total": 6, "stopped": 0, "errors_total": 0})
		if n := a.logs.FilterMessage("an object of an image is missing; the image is requested again").Len(); n != 2 {
			t.Errorf("logged %d times", n)
		}
	})
}

func testAuditorRowsImageWhoseLastRequestFailedIsRequestedLater(t *testing.T) {
	t.Parallel()
	f := newFakeInstallation()
	f.publish(1)
	f.publish(2)
	f.published[1].ReprocessError = media.HTTPStatus
	clear(f.objects)
	got, err := newAuditor(f, auditorConfig()).CheckRows(t.Context(), 0, 10, atOnce)
	if err != nil || got.Missing != 2 || !slices.Equal(f.ifOld, []catalog.ImageID{2}) {
		t.Errorf("got %+v, %v, ifOld %v, want both, and ifOld for the second", got, err, f.ifOld)
	}
}

func testAuditorRowsImageThatChangesDuringTheCheckIsSkipped(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(f *fakeInstallation){
		"requested": func(f *fakeInstallation) { f.published[0].FencingToken++ },
		"in_work":   func(f *fakeInstallation) { f.published = nil },
		"restored":  func(f *fakeInstallation) { f.place("products/1/1/1-a/full.jpg", 0) },
		"deleted":   func(f *fakeInstallation) { f.reprocessErr = fault.New(fault.NotFound, "product_not_found", "no") },
		"queued":    func(f *fakeInstallation) { f.reprocessErr = catalog.ErrDone },
	} {
		f := newFakeInstallation()
		f.publish(1)
		delete(f.objects, "products/1/1/1-a/full.jpg")
		var once sync.Once
		listed := false
		f.onPage = func(string) {
			if listed { // after the first check
				once.Do(func() { f.mu.Lock(); change(f); f.mu.Unlock() })
			}
			listed = true
		}
		if name != "restored" {
			f.onPage = func(string) { once.Do(func() { f.mu.Lock(); change(f); f.mu.Unlock() }) }
		}
		a := newAuditor(f, auditorConfig())
		got, err := a.CheckRows(t.Context(), 0, 10, atOnce)
		if err != nil || got.Missing != 0 || len(f.requested) != 0 {
			t.Errorf("%s: got %+v, %v, requested %v, want no request", name, got, err, f.requested)
		}
	}
}

func testAuditorRowsCallerSetsLimitAndDelay(t *testing.T) {
	t.Parallel()
	f := newFakeInstallation()
	for i := range catalog.ImageID(7) {
		f.publish(i + 1)
	}
	clear(f.objects)
	a := newAuditor(f, auditorConfig())
	var after catalog.ImageID
	var results []maintenance.Checked
	for {
		got, err := a.CheckRows(t.Context(), after, 3, func(n int) time.Duration { return time.Duration(n) * time.Hour })
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, got)
		if after = got.Next; after == 0 {
			break
		}
	}
	if want := []maintenance.Checked{{3, 3, 0, 3}, {3, 3, 0, 6}, {1, 1, 0, 0}}; !slices.Equal(results, want) {
		t.Errorf("got %v, want %v", results, want)
	}
	if len(f.requested) != 7 || f.delays[2] != 2*time.Hour || f.delays[3] != 0 {
		t.Errorf("requested %v after %v", f.requested, f.delays)
	}
}

func testAuditorRowsFailedRequestsAboveTolerance(t *testing.T) {
	t.Parallel()
	f := newFakeInstallation()
	for i := range catalog.ImageID(3) {
		f.publish(i + 1)
	}
	clear(f.objects)
	f.reprocessErr = errors.New("refused")
	a := newAuditor(f, auditorConfig())
	if got, err := a.CheckRows(t.Context(), 0, 2, atOnce); err != nil || got.Failed != 2 || got.Next != 2 {
		t.Errorf("got %+v, %v, want two tolerated failures", got, err)
	}
	if _, err := a.CheckRows(t.Context(), 0, 3, atOnce); !errors.Is(err, f.reprocessErr) {
		t.Errorf("got %v, want an error for three failures", err)
	}
}

func testAuditorRowsMalformedCursorIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		_, err := f.StartPass(t.Context(), "rows", []maintenance.Range{{After: "x", Until: "y"}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		a := newAuditor(f, auditorConfig())
		during(t, oneScan, a.Run)
		a.want(t, map[string]float64{"errors_total": 1})
	})
}

func TestAuditorMetrics(t *testing.T) {
	t.Parallel()
	a := newAuditor(newFakeInstallation(), auditorConfig())
	if problems, err := testutil.GatherAndLint(a.reg); err != nil || len(problems) > 0 {
		t.Errorf("got %v, %v", problems, err)
	}
}
