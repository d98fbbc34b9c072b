package maintenance_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
)

// fill adds products that have images with an object each. Only every stride-th id exists.
func (f *fakeInstallation) fill(products, images, stride int) {
	for n := range products * images {
		product, image := (n/images+1)*stride, catalog.ImageID((n+1)*stride)
		prefix := fmt.Sprintf("products/%d/%d/1-a/", product, image)
		f.place(prefix+"x", 48*time.Hour)
		f.referenced[prefix] = true
		f.published = append(f.published, maintenance.Published{
			ImageRef:     maintenance.ImageRef{ProductID: catalog.ProductID(product), ImageID: image},
			FencingToken: 1, Objects: []maintenance.Object{f.objects[prefix+"x"]},
		})
	}
}

// bigConfig suits a bucket and a table of some ten thousand items.
func bigConfig() maintenance.AuditorConfig {
	cfg := auditorConfig()
	cfg.Interval, cfg.Batch, cfg.Rows = time.Second, 100, 50
	return cfg
}

func TestAuditorPass(t *testing.T) {
	t.Parallel()
	t.Run("several_auditors_share_it_on_schedule", testAuditorPassIsShared)
	t.Run("late_pass_keeps_to_the_maximum_rates", testAuditorPassKeepsToTheMaximumRates)
	t.Run("step_of_a_crashed_process_is_repeated", testAuditorPassStepOfACrashedProcess)
	t.Run("stopped_shard_does_not_stop_the_others", testAuditorPassStoppedShard)
	t.Run("slow_bucket_ends_a_step_early", testAuditorPassSlowBucket)
	t.Run("image_that_fails_is_skipped", testAuditorPassImageThatFails)
	t.Run("image_does_not_fail_during_an_outage", testAuditorPassOutageWithinAStep)
	t.Run("images_of_a_product_share_a_listing", testAuditorPassSharesListings)
}

func testAuditorPassIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.fill(2000, 1, 20)
		var listed, checked [3]float64
		var all sync.WaitGroup
		for i := range listed {
			all.Go(func() {
				cfg := bigConfig()
				cfg.Batch, cfg.Rows = 10, 10
				a := newAuditor(f, cfg)
				during(t, 50*time.Minute, a.Run) // of an hour
				listed[i] = a.value(t, "objects_listed_total")
				checked[i] = a.value(t, "rows_checked_total")
			})
		}
		all.Wait()
		for what, by := range map[string][3]float64{"listed": listed, "checked": checked} {
			if total := by[0] + by[1] + by[2]; total < 2000*45/60 || total > 2000*55/60+5*10 {
				t.Errorf("%s %v objects or rows of 2000 by %v after 50 of 60 minutes", what, total, by)
			}
		}
		if len(f.shards["objects"]) != 5 || len(f.shards["rows"]) != 5 {
			t.Errorf("%d and %d shards, want five each", len(f.shards["objects"]), len(f.shards["rows"]))
		}
		a := newAuditor(f, bigConfig())
		during(t, 595*time.Second, a.Run)
		a.want(t, map[string]float64{"pass_progress_ratio": 2, "pass_age_seconds": 0, "pass_target_seconds": 3600})
		if f.passes != 2 || len(f.deletions)+len(f.requested) != 0 {
			t.Errorf("%d passes, deletions %v, requested %v", f.passes, f.deletions, f.requested)
		}
		during(t, 2*time.Minute, a.Run)
		if f.passes != 4 {
			t.Errorf("%d passes, want the next ones after an hour", f.passes)
		}
	})
}

func testAuditorPassKeepsToTheMaximumRates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.fill(2000, 1, 20)
		cfg := bigConfig()
		cfg.Pass, cfg.MaxObjectRate, cfg.MaxRowRate = time.Second, 8, 4 // the schedule is impossible
		a := newAuditor(f, cfg)
		during(t, 200*time.Second, a.Run)
		for name, rate := range map[string]float64{"objects_listed_total": 8, "rows_checked_total": 4} {
			burst := 5 * 100.0 // the first step of each shard
			if got := a.value(t, name); got < rate*200*0.7 || got > rate*200+burst {
				t.Errorf("%s: got %v in 200 s, want about %v", name, got, rate*200)
			}
		}
		if age := a.value(t, "pass_age_seconds"); age < 390 { // of two scans
			t.Errorf("the pass is %v s old, want about 199 for each scan", age)
		}
	})
}

func testAuditorPassStepOfACrashedProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.putOrphans(2)
		ranges := []maintenance.Range{{}}
		if _, err := f.StartPass(t.Context(), "objects", ranges, time.Hour); err != nil {
			t.Fatal(err)
		}
		crashed, _, err := f.Acquire(t.Context(), "objects", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		a := newAuditor(f, bigConfig())
		during(t, 59*time.Second, a.Run)
		if len(f.deletions) != 0 {
			t.Error("the shard was acquired before its lease ended")
		}
		during(t, 3*time.Second, a.Run)
		if len(f.deletions) != 2 || !f.at(t, "objects").Done {
			t.Errorf("deletions %v, at %+v, want two and the end", f.deletions, f.at(t, "objects"))
		}
		late := maintenance.Position{Cursor: "products/0"}
		if err := f.Save(t.Context(), crashed, late, 0); err != nil || !f.at(t, "objects").Done {
			t.Errorf("got %v, at %+v, want the late save ignored", err, f.at(t, "objects"))
		}
	})
}

func testAuditorPassStoppedShard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.fill(1000, 1, 20)
		for n := range 5 { // of the first batch, the orphans are 5 %
			delete(f.referenced, fmt.Sprintf("products/%d/%[1]d/1-a/", 10_000+20*n))
		}
		a := newAuditor(f, bigConfig())
		during(t, 90*time.Minute, a.Run)
		a.want(t, map[string]float64{"stopped": 1, "errors_total": 0})
		done := 0
		for _, s := range f.shards["objects"] {
			if s.Done {
				done++
			}
		}
		if done != 2 || len(f.deletions) != 0 {
			t.Errorf("%d of three shards are done, deletions %v, want two and none", done, f.deletions)
		}
		if age := a.value(t, "pass_age_seconds"); age < 80*60 {
			t.Errorf("the pass is %v s old, want it not finished", age)
		}
	})
}

// testAuditorPassSlowBucket lets each listing take longer than a step may.
func testAuditorPassSlowBucket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.fill(2000, 1, 1)
		f.onPage = func(string) { time.Sleep(40 * time.Second) } //nolint:forbidigo // fake time
		cfg := bigConfig()
		cfg.Pass, cfg.Batch = time.Minute, 100_000
		a := newAuditor(f, cfg)
		during(t, 30*time.Minute, a.Run)
		a.want(t, map[string]float64{"errors_total": 0})
		if got := a.value(t, "objects_listed_total"); got < 2000 {
			t.Errorf("listed %v objects, want all 2000", got)
		}
		if at := f.at(t, "rows"); at.Cursor < "100" {
			t.Errorf("the rows are at %+v, want progress in each step", at)
		}
	})
}

func testAuditorPassImageThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.fill(300, 1, 1)
		delete(f.objects, "products/250/250/1-a/x")
		f.failing = "products/7/"
		a := newAuditor(f, bigConfig())
		during(t, 59*time.Minute, a.Run)
		if !slices.Equal(f.requested, []catalog.ImageID{250}) || !f.at(t, "rows").Done {
			t.Errorf("requested %v, at %+v, want image 250 and the end", f.requested, f.at(t, "rows"))
		}
		a.want(t, map[string]float64{"errors_total": 1, "rows_checked_total": 299})
	})
}

func testAuditorPassOutageWithinAStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeInstallation()
		f.fill(300, 1, 1)
		f.onPage = func(prefix string) {
			if prefix == "products/299/299/1-a/" {
				f.mu.Lock()
				f.bucketErr = fault.New(fault.Unavailable, "storage_unavailable", "down")
				f.mu.Unlock()
			}
		}
		cfg := bigConfig()
		cfg.Rows, cfg.ToleratedCount = 500, 100
		a := newAuditor(f, cfg)
		during(t, 5*time.Second, a.Run)
		if at := f.at(t, "rows"); at.Done || at.Cursor != "0" {
			t.Errorf("at %+v, want the step repeated: the images that failed were not at fault", at)
		}
		f.onPage, f.bucketErr = func(string) {}, nil
		during(t, 5*time.Minute, a.Run)
		if at := f.at(t, "rows"); !at.Done {
			t.Errorf("at %+v, want the end after the outage", at)
		}
	})
}

func testAuditorPassSharesListings(t *testing.T) {
	t.Parallel()
	f := newFakeInstallation()
	f.fill(20, 5, 1)
	for n := range 1001 { // more than one listing has
		f.place(fmt.Sprintf("products/3/9/1-b/%d", n), 0)
	}
	delete(f.objects, "products/1/2/1-a/x")
	got, err := newAuditor(f, bigConfig()).CheckRows(t.Context(), 0, 1000, atOnce)
	if err != nil || got.Images != 100 || got.Missing != 1 || !slices.Equal(f.requested, []catalog.ImageID{2}) {
		t.Errorf("got %+v, %v, requested %v, want image 2", got, err, f.requested)
	}
	pages := 0
	for _, call := range f.log {
		if strings.HasPrefix(call, "page ") {
			pages++
		}
	}
	if pages != 20+2+5 { // each product, image 2 twice more, and each image of product 3
		t.Errorf("listed %d times, want 27", pages)
	}
}

func TestAuditorPlan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, last := range []int{0, 1, 9, 10, 99_999, 100_000, 123_456, 1_000_000} {
			f := newFakeInstallation()
			f.products = catalog.ProductID(last)
			during(t, 2*time.Second, newAuditor(f, bigConfig()).Run)
			shards := f.shards["objects"]
			if shards[0].After != "" || shards[len(shards)-1].Until != "" {
				t.Errorf("up to product %d: from %q to %q, want no bounds", last, shards[0].After, shards[len(shards)-1].Until)
			}
			counts := make([]int, len(shards))
			for id := range last {
				key := fmt.Sprintf("products/%d/1/1-a/x", id+1)
				for i, s := range shards {
					if key > s.After && (s.Until == "" || key <= s.Until) {
						counts[i]++
					}
				}
			}
			total := 0
			for i, n := range counts {
				total += n
				if i > 0 && shards[i].After != shards[i-1].Until {
					t.Errorf("up to product %d: shard %d begins at %q, want %q", last, i, shards[i].After, shards[i-1].Until)
				}
				if share := last / len(counts); len(counts) > 1 && (n < share-10 || n > share+len(counts)+10) {
					t.Errorf("up to product %d: shard %d has %d products, want about %d", last, i, n, share)
				}
			}
			if total != last || len(counts) != min(16, 1+last/10_000) {
				t.Errorf("up to product %d: %d shards have %d products", last, len(counts), total)
			}
		}
	})
}
