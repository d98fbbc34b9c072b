package maintenance_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

// fakeStore is a bucket and the rows that refer to it.
type fakeStore struct {
	mu        sync.Mutex
	objects   map[string]maintenance.Object
	owner     string
	away      error // of the bucket
	down      error // of the rows
	due       map[string]time.Time
	cursors   map[string]string
	deletions map[string]time.Duration
	live      map[string]bool // prefixes that a row refers to
	published []maintenance.Published
	requested []catalog.ImageID
	lenient   []catalog.ImageID // of those requested: only if their last request is old
	delays    []time.Duration
	done      error // of Remake
	onPage    func(prefix string)
	log       []string
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		objects: map[string]maintenance.Object{}, owner: "ours", due: map[string]time.Time{}, cursors: map[string]string{},
		deletions: map[string]time.Duration{}, live: map[string]bool{}, onPage: func(string) {},
	}
}

func (f *fakeStore) Page(_ context.Context, prefix, after string, limit int) ([]maintenance.Object, bool, error) {
	f.onPage(prefix)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, "page "+prefix+" after "+after)
	var found []maintenance.Object
	for key, o := range f.objects {
		if strings.HasPrefix(key, prefix) && key > after {
			found = append(found, o)
		}
	}
	slices.SortFunc(found, func(a, b maintenance.Object) int { return cmp.Compare(a.Key, b.Key) })
	return found[:min(limit, len(found))], len(found) > limit, f.away
}

func (f *fakeStore) Owner(context.Context) (string, error) { return f.owner, f.away }

func (f *fakeStore) Installation(context.Context) (string, int64, error) { return "ours", 0, f.down }

func (f *fakeStore) Acquire(_ context.Context, name string, interval time.Duration) (string, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down != nil {
		return "", false, f.down
	}
	if time.Now().Before(f.due[name]) {
		return "", false, nil
	}
	f.due[name] = time.Now().Add(interval)
	return f.cursors[name], true, nil
}

func (f *fakeStore) SaveCursor(_ context.Context, name, cursor string, wait time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cursors[name], f.due[name] = cursor, time.Now().Add(wait)
	return f.down
}

func (f *fakeStore) Unreferenced(_ context.Context, prefixes []catalog.ScheduledDeletion,
) ([]catalog.ScheduledDeletion, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, "look up")
	return f.unreferenced(prefixes), f.down
}

func (f *fakeStore) unreferenced(prefixes []catalog.ScheduledDeletion) []catalog.ScheduledDeletion {
	return slices.DeleteFunc(slices.Clone(prefixes), func(in catalog.ScheduledDeletion) bool {
		_, intended := f.deletions[in.Prefix]
		return intended || f.live[in.Prefix]
	})
}

func (f *fakeStore) ScheduleOrphans(_ context.Context, prefixes []catalog.ScheduledDeletion) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	scheduled := f.unreferenced(prefixes)
	for _, in := range scheduled {
		f.deletions[in.Prefix] = in.Due
	}
	return len(scheduled), f.down
}

func (f *fakeStore) Published(_ context.Context, after catalog.ImageID, limit int) ([]maintenance.Published, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []maintenance.Published
	for _, p := range f.published {
		if p.ImageID > after && len(found) < limit {
			found = append(found, p)
		}
	}
	return found, f.down
}

func (f *fakeStore) ReprocessIf(_ context.Context, _ catalog.ProductID, image catalog.ImageID, which catalog.Filter,
	delay time.Duration,
) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch which {
	case catalog.Filter{Status: catalog.Ready}:
	case catalog.Filter{Status: catalog.Ready, OlderThan: 24 * time.Hour}:
		f.lenient = append(f.lenient, image)
	default:
		return fmt.Errorf("requested as one of %+v", which)
	}
	if f.done != nil {
		return f.done
	}
	f.requested, f.delays = append(f.requested, image), append(f.delays, delay)
	f.published = slices.DeleteFunc(f.published, func(p maintenance.Published) bool { return p.ImageID == image })
	return nil
}

// place stores an object of that age.
func (f *fakeStore) place(key string, age time.Duration) {
	f.objects[key] = maintenance.Object{Key: key, Size: 5, Modified: time.Now().Add(-age)}
}

// publish publishes an image with two objects, which are there.
func (f *fakeStore) publish(image catalog.ImageID) {
	prefix := fmt.Sprintf("products/1/%d/1-a/", image)
	p := maintenance.Published{ImageRef: maintenance.ImageRef{ProductID: 1, ImageID: image}, FencingToken: 1}
	for _, name := range []string{"card.webp", "full.jpg"} {
		f.place(prefix+name, 48*time.Hour)
		p.Objects = append(p.Objects, maintenance.Object{Key: prefix + name, Size: 5})
	}
	f.live[prefix] = true
	f.published = append(f.published, p)
}

func auditorConfig() maintenance.AuditorConfig {
	return maintenance.AuditorConfig{
		Enabled: true, Interval: time.Minute, Rest: time.Hour, Batch: 10, Rows: 2, MinAge: 24 * time.Hour, Grace: 10 * time.Minute,
		ToleratedShare: 0.01, ToleratedCount: 2,
	}
}

// auditor is an auditor of a fakeStore, with its metrics and logs.
type auditor struct {
	*maintenance.Auditor
	reg  *prometheus.Registry
	logs *observer.ObservedLogs
}

func newAuditor(f *fakeStore, cfg maintenance.AuditorConfig) auditor {
	core, logs := observer.New(zapcore.DebugLevel)
	reg := prometheus.NewRegistry()
	return auditor{maintenance.NewAuditor(maintenance.AuditorDeps{
		Checkpoints: f, References: f, Bucket: f, Catalog: f, Now: time.Now, Log: zap.New(core),
	}, cfg, reg), reg, logs}
}

// metric returns the sum of a metric's series.
func metric(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func (a auditor) want(t *testing.T, values map[string]float64) {
	t.Helper()
	for name, want := range values {
		if got := metric(t, a.reg, "vitrine_maintenance_auditor_"+name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

const oneScan = time.Minute + time.Second // one batch of objects and one of rows

func TestAuditObjects(t *testing.T) {
	t.Parallel()

	t.Run("old_unreferenced_attempts_are_scheduled_for_deletion", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore()
			f.publish(1)
			f.place("products/1/2/3-dead/full.jpg", 25*time.Hour)
			f.place("products/1/2/4-work/full.jpg", 25*time.Hour)
			f.live["products/1/2/4-work/"] = true
			f.place("products/1/2/5-young/card.webp", 25*time.Hour)
			f.place("products/1/2/5-young/full.jpg", 23*time.Hour) // the youngest counts
			f.place("products/readme.txt", 48*time.Hour)
			f.place(".vitrine/installation", 48*time.Hour)
			a := newAuditor(f, auditorConfig())
			during(t, oneScan, a.Run)
			if got := f.deletions; len(got) != 1 || got["products/1/2/3-dead/"] != 10*time.Minute {
				t.Errorf("deletions %v, want the dead attempt's after the grace", got)
			}
			if len(f.objects) != 8 {
				t.Errorf("%d objects are left: an auditor deletes nothing", len(f.objects))
			}
			a.want(t, map[string]float64{"objects_listed_total": 7, "orphans_total": 1, "foreign_keys_total": 1, "stopped": 0})
			if n := a.logs.FilterMessage("the bucket holds objects that no attempt wrote").Len(); n != 1 {
				t.Errorf("warned %d times of foreign objects", n)
			}
			during(t, 3*time.Hour, a.Run) // again and again
			if len(f.deletions) != 2 || f.deletions["products/1/2/5-young/"] == 0 {
				t.Errorf("deletions %v, want the attempt that was too young before", f.deletions)
			}
			a.want(t, map[string]float64{"orphans_total": 2})
		})
	})

	t.Run("bucket_is_listed_before_the_rows_are_read", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore()
			f.place("products/1/2/3-dead/full.jpg", 25*time.Hour)
			during(t, oneScan, newAuditor(f, auditorConfig()).Run)
			if want := []string{"page products/ after ", "look up"}; !slices.Equal(f.log, want) {
				t.Errorf("did %q, want %q: an attempt that begins in between would be an orphan", f.log, want)
			}
		})
	})

	t.Run("continues_at_the_cursor_and_rests_at_the_end", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore()
			for i := range 8 { // of three objects each, in batches of ten: three attempts a scan, never a part of one
				for _, name := range []string{"a", "b", "c"} {
					f.place(fmt.Sprintf("products/1/1/%d-x/%s", i+1, name), 25*time.Hour)
				}
				f.live[fmt.Sprintf("products/1/1/%d-x/", i+1)] = true
			}
			during(t, 30*time.Minute, newAuditor(f, auditorConfig()).Run)
			pages := slices.DeleteFunc(slices.Clone(f.log), func(s string) bool { return s == "look up" })
			want := []string{
				"page products/ after ", "page products/ after products/1/1/3-x/c", "page products/ after products/1/1/6-x/c",
			}
			if !slices.Equal(pages, want) {
				t.Errorf("listed %q, want %q and then a rest", pages, want)
			}
			during(t, time.Hour, newAuditor(f, auditorConfig()).Run) // another process
			if len(f.log) <= 6 {
				t.Errorf("did %q, want another round after the rest", f.log)
			}
		})
	})

	t.Run("attempt_larger_than_a_batch_is_checked", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore()
			for i := range 25 {
				f.place(fmt.Sprintf("products/1/1/1-x/%02d", i), 25*time.Hour)
			}
			f.place("products/foreign", 25*time.Hour)
			during(t, 5*time.Minute, newAuditor(f, auditorConfig()).Run)
			if len(f.deletions) != 1 || f.cursors["objects"] != "" || len(f.log) < 3 {
				t.Errorf("deletions %v, cursor %q", f.deletions, f.cursors["objects"])
			}
		})
	})

	t.Run("one_of_several_auditors_scans_at_a_time", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore()
			f.owner = "" // so that no cursor is saved, and every scan is the first
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
	})

	t.Run("disabled_auditor_does_nothing", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore()
			f.place("products/1/2/3-dead/full.jpg", 25*time.Hour)
			cfg := auditorConfig()
			cfg.Enabled = false
			during(t, time.Hour, newAuditor(f, cfg).Run)
			if len(f.log) != 0 {
				t.Errorf("did %q", f.log)
			}
		})
	})
}

func TestAuditStops(t *testing.T) {
	t.Parallel()
	orphans := func(f *fakeStore, n int) {
		for i := range n {
			f.place(fmt.Sprintf("products/1/2/%d-dead/x", i+1), 25*time.Hour)
		}
	}

	t.Run("too_many_orphans_stop_it_until_there_are_fewer", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore()
			orphans(f, 3)
			a := newAuditor(f, auditorConfig())
			during(t, 5*time.Minute+time.Second, func(ctx context.Context) error {
				context.AfterFunc(ctx, func() { a.want(t, map[string]float64{"stopped": 1, "orphans_total": 0, "errors_total": 0}) })
				return a.Run(ctx)
			})
			if len(f.deletions) != 0 || f.cursors["objects"] != "" {
				t.Errorf("deletions %v, cursor %q: want none", f.deletions, f.cursors["objects"])
			}
			if n := a.logs.FilterMessage("audit stopped").Len(); n != 5 {
				t.Errorf("logged %d times in five scans", n)
			}
			f.live["products/1/2/2-dead/"] = true // the rows are right again
			during(t, 2*time.Minute, a.Run)
			a.want(t, map[string]float64{"stopped": 0, "orphans_total": 2})
		})
	})

	t.Run("bucket_of_another_or_no_owner_stops_both_scans", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			for _, owner := range []string{"theirs", ""} {
				f := newFakeStore()
				f.owner = owner
				f.publish(1)
				delete(f.objects, "products/1/1/1-a/full.jpg")
				orphans(f, 1)
				a := newAuditor(f, auditorConfig())
				during(t, oneScan, a.Run)
				if len(f.deletions)+len(f.requested)+len(f.log) != 0 {
					t.Errorf("owner %q: deletions %v, requested %v, did %v", owner, f.deletions, f.requested, f.log)
				}
				a.want(t, map[string]float64{"stopped": 2, "errors_total": 0})
				if _, err := a.CheckRows(t.Context(), 0, 10, 0); err == nil {
					t.Errorf("owner %q: rows were checked against another's bucket", owner)
				}
			}
		})
	})

	t.Run("too_many_missing_objects_stop_it", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore()
			for i := range catalog.ImageID(4) {
				f.publish(i + 1)
			}
			kept := f.objects["products/1/1/1-a/full.jpg"]
			clear(f.objects)
			for i := range catalog.ImageID(3) { // known, and no reason to stop
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
						Key: "products/1/" + image + "/1-a/" + name, Size: kept.Size, Modified: kept.Modified,
					}
				}
			}
			during(t, 2*time.Minute, a.Run)
			if want := []catalog.ImageID{3, 4, 5, 6, 7}; !slices.Equal(f.requested, want) || !slices.Equal(f.lenient, want[2:]) {
				t.Errorf("requested %v, lenient with %v, want %v and the last three", f.requested, f.lenient, want)
			}
		})
	})

	t.Run("share_is_measured_against_the_batch", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore()
			orphans(f, 4)
			for i := range 396 {
				f.place(fmt.Sprintf("products/1/3/%d-live/x", i+1), 25*time.Hour)
				f.live[fmt.Sprintf("products/1/3/%d-live/", i+1)] = true
			}
			cfg := auditorConfig()
			cfg.Batch = 1000
			during(t, oneScan, newAuditor(f, cfg).Run)
			if len(f.deletions) != 4 {
				t.Errorf("got %d deletions, want four of four hundred", len(f.deletions))
			}
		})
	})

	t.Run("outages_are_errors_and_neither_orphans_nor_missing_objects", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore()
			f.publish(1)
			f.away = fault.New(fault.Unavailable, "storage_unavailable", "down")
			delete(f.objects, "products/1/1/1-a/full.jpg") // an empty answer with an error is an error
			orphans(f, 1)
			a := newAuditor(f, auditorConfig())
			during(t, oneScan, a.Run)
			f.away, f.down = nil, errors.New("down")
			during(t, oneScan, a.Run)
			if len(f.deletions)+len(f.requested) != 0 {
				t.Errorf("deletions %v, requested %v", f.deletions, f.requested)
			}
			a.want(t, map[string]float64{"errors_total": 4, "stopped": 0})
			f.down = nil
			during(t, oneScan, a.Run)
			if len(f.deletions) != 1 || len(f.requested) != 1 {
				t.Errorf("deletions %v, requested %v, want one each once all is back", f.deletions, f.requested)
			}
		})
	})
}

func TestAuditRows(t *testing.T) {
	t.Parallel()

	t.Run("missing_or_different_objects_are_requested_again", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore()
			for i := range catalog.ImageID(5) {
				f.publish(i + 1)
			}
			f.published = append(f.published, maintenance.Published{ImageRef: maintenance.ImageRef{ProductID: 1, ImageID: 9}})
			delete(f.objects, "products/1/2/1-a/full.jpg")
			f.objects["products/1/5/1-a/card.webp"] = maintenance.Object{Key: "products/1/5/1-a/card.webp", Size: 4}
			a := newAuditor(f, auditorConfig())
			during(t, 6*time.Minute, a.Run)
			if want := []catalog.ImageID{2, 5}; !slices.Equal(f.requested, want) || f.cursors["rows"] != "" {
				t.Errorf("requested %v, cursor %q, want %v and the beginning", f.requested, f.cursors["rows"], want)
			}
			a.want(t, map[string]float64{"missing_total": 2, "rows_checked_total": 6, "stopped": 0, "errors_total": 0})
			if n := a.logs.FilterMessage("an object of an image is missing; the image is requested again").Len(); n != 2 {
				t.Errorf("logged %d times", n)
			}
		})
	})

	t.Run("image_whose_last_request_failed_is_requested_later", func(t *testing.T) {
		t.Parallel()
		f := newFakeStore()
		f.publish(1)
		f.publish(2)
		f.published[1].ReprocessError = media.HTTPStatus
		clear(f.objects)
		got, err := newAuditor(f, auditorConfig()).CheckRows(t.Context(), 0, 10, 0)
		if err != nil || got.Missing != 2 || !slices.Equal(f.lenient, []catalog.ImageID{2}) {
			t.Errorf("got %+v, %v, lenient with %v, want it with the second of two", got, err, f.lenient)
		}
	})

	t.Run("image_that_changes_during_the_check_is_skipped", func(t *testing.T) {
		t.Parallel()
		for what, change := range map[string]func(f *fakeStore){
			"requested": func(f *fakeStore) { f.published[0].FencingToken++ },
			"in work":   func(f *fakeStore) { f.published = nil },
			"restored":  func(f *fakeStore) { f.place("products/1/1/1-a/full.jpg", 0) },
			"deleted":   func(f *fakeStore) { f.done = fault.New(fault.NotFound, "product_not_found", "no") },
			"queued":    func(f *fakeStore) { f.done = catalog.ErrDone },
		} {
			f := newFakeStore()
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
			if what != "restored" {
				f.onPage = func(string) { once.Do(func() { f.mu.Lock(); change(f); f.mu.Unlock() }) }
			}
			a := newAuditor(f, auditorConfig())
			got, err := a.CheckRows(t.Context(), 0, 10, 0)
			if err != nil || got.Missing != 0 || len(f.requested) != 0 {
				t.Errorf("%s: got %+v, %v, requested %v, want it left alone", what, got, err, f.requested)
			}
		}
	})

	t.Run("caller_sets_limit_and_delay", func(t *testing.T) {
		t.Parallel()
		f := newFakeStore()
		for i := range catalog.ImageID(7) {
			f.publish(i + 1)
		}
		clear(f.objects)
		a := newAuditor(f, auditorConfig())
		var after catalog.ImageID
		var results []maintenance.Checked
		for {
			got, err := a.CheckRows(t.Context(), after, 3, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			results = append(results, got)
			if after = got.Next; after == 0 {
				break
			}
		}
		if want := []maintenance.Checked{{3, 3, 3}, {3, 3, 6}, {1, 1, 0}}; !slices.Equal(results, want) {
			t.Errorf("got %v, want %v", results, want)
		}
		if len(f.requested) != 7 || f.delays[0] != time.Hour {
			t.Errorf("requested %v after %v", f.requested, f.delays)
		}
	})

	t.Run("failed_request_ends_the_check", func(t *testing.T) {
		t.Parallel()
		f := newFakeStore()
		f.publish(1)
		clear(f.objects)
		f.done = errors.New("down")
		if _, err := newAuditor(f, auditorConfig()).CheckRows(t.Context(), 0, 3, 0); !errors.Is(err, f.done) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("malformed_cursor_is_an_error", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFakeStore()
			f.cursors["rows"] = "x"
			a := newAuditor(f, auditorConfig())
			during(t, oneScan, a.Run)
			a.want(t, map[string]float64{"errors_total": 1})
		})
	})
}

func TestAuditMetricsLint(t *testing.T) {
	t.Parallel()
	a := newAuditor(newFakeStore(), auditorConfig())
	if problems, err := testutil.GatherAndLint(a.reg); err != nil || len(problems) > 0 {
		t.Errorf("got %v, %v", problems, err)
	}
}
