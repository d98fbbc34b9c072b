package worker_test

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

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/fault"
	"vitrine.io/pkg/media"
	"vitrine.io/pkg/worker"
)

// vault is a bucket and the rows about it.
type vault struct {
	mu      sync.Mutex
	objects map[string]worker.Object
	owner   string
	away    error // of the bucket
	down    error // of the rows
	due     map[string]time.Time
	cursors map[string]string
	intents map[string]time.Duration
	live    map[string]bool // prefixes that something speaks for
	shown   []worker.Published
	remade  []catalog.ImageID
	patient []catalog.ImageID // of those remade: not if they were asked for a short while ago
	delays  []time.Duration
	done    error // of Remake
	onPage  func(prefix string)
	log     []string
}

func newVault() *vault {
	return &vault{
		objects: map[string]worker.Object{}, owner: "ours", due: map[string]time.Time{}, cursors: map[string]string{},
		intents: map[string]time.Duration{}, live: map[string]bool{}, onPage: func(string) {},
	}
}

func (v *vault) Page(_ context.Context, prefix, after string, limit int) ([]worker.Object, bool, error) {
	v.onPage(prefix)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.log = append(v.log, "page "+prefix+" after "+after)
	var found []worker.Object
	for key, o := range v.objects {
		if strings.HasPrefix(key, prefix) && key > after {
			found = append(found, o)
		}
	}
	slices.SortFunc(found, func(a, b worker.Object) int { return cmp.Compare(a.Key, b.Key) })
	return found[:min(limit, len(found))], len(found) > limit, v.away
}

func (v *vault) Owner(context.Context) (string, error) { return v.owner, v.away }

func (v *vault) Installation(context.Context) (string, int64, error) { return "ours", 0, v.down }

func (v *vault) TakeTurn(_ context.Context, name string, interval time.Duration) (string, bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.down != nil {
		return "", false, v.down
	}
	if time.Now().Before(v.due[name]) {
		return "", false, nil
	}
	v.due[name] = time.Now().Add(interval)
	return v.cursors[name], true, nil
}

func (v *vault) SaveCursor(_ context.Context, name, cursor string, wait time.Duration) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cursors[name], v.due[name] = cursor, time.Now().Add(wait)
	return v.down
}

func (v *vault) Unreferenced(_ context.Context, prefixes []catalog.Intent) ([]catalog.Intent, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.log = append(v.log, "look up")
	return v.unreferenced(prefixes), v.down
}

func (v *vault) unreferenced(prefixes []catalog.Intent) []catalog.Intent {
	return slices.DeleteFunc(slices.Clone(prefixes), func(in catalog.Intent) bool {
		_, intended := v.intents[in.Prefix]
		return intended || v.live[in.Prefix]
	})
}

func (v *vault) Condemn(_ context.Context, prefixes []catalog.Intent) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	condemned := v.unreferenced(prefixes)
	for _, in := range condemned {
		v.intents[in.Prefix] = in.Due
	}
	return len(condemned), v.down
}

func (v *vault) Published(_ context.Context, after catalog.ImageID, limit int) ([]worker.Published, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var found []worker.Published
	for _, p := range v.shown {
		if p.ImageID > after && len(found) < limit {
			found = append(found, p)
		}
	}
	return found, v.down
}

func (v *vault) Remake(_ context.Context, _ catalog.ProductID, image catalog.ImageID, which catalog.Selection,
	delay time.Duration,
) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch which {
	case catalog.Selection{Status: catalog.Ready}:
	case catalog.Selection{Status: catalog.Ready, OlderThan: 24 * time.Hour}:
		v.patient = append(v.patient, image)
	default:
		return fmt.Errorf("remade as one of %+v", which)
	}
	if v.done != nil {
		return v.done
	}
	v.remade, v.delays = append(v.remade, image), append(v.delays, delay)
	v.shown = slices.DeleteFunc(v.shown, func(p worker.Published) bool { return p.ImageID == image }) // it is in work now
	return nil
}

// place stores an object of that age.
func (v *vault) place(key string, age time.Duration) {
	v.objects[key] = worker.Object{Key: key, Size: 5, Modified: time.Now().Add(-age)}
}

// show publishes a picture with two objects, which are there.
func (v *vault) show(image catalog.ImageID) {
	prefix := fmt.Sprintf("products/1/%d/1-a/", image)
	p := worker.Published{Picture: worker.Picture{ProductID: 1, ImageID: image}, Fence: 1}
	for _, name := range []string{"card.webp", "full.jpg"} {
		v.place(prefix+name, 48*time.Hour)
		p.Objects = append(p.Objects, worker.Object{Key: prefix + name, Size: 5})
	}
	v.live[prefix] = true
	v.shown = append(v.shown, p)
}

func auditConfig() worker.AuditConfig {
	return worker.AuditConfig{
		Enabled: true, Interval: time.Minute, Rest: time.Hour, Batch: 10, Rows: 2, MinAge: 24 * time.Hour, Grace: 10 * time.Minute,
		ToleratedShare: 0.01, ToleratedLeast: 2,
	}
}

// auditor is an auditor of a vault, with what it tells.
type auditor struct {
	*worker.Auditor
	reg  *prometheus.Registry
	logs *observer.ObservedLogs
}

func newAuditor(v *vault, cfg worker.AuditConfig) auditor {
	core, logs := observer.New(zapcore.DebugLevel)
	reg := prometheus.NewRegistry()
	return auditor{worker.NewAuditor(worker.AuditParts{
		Turns: v, Books: v, Bucket: v, Catalog: v, Now: time.Now, Log: zap.New(core),
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
		if got := metric(t, a.reg, "vitrine_worker_auditor_"+name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

const look = time.Minute + time.Second // one look of each round

func TestAuditObjects(t *testing.T) {
	t.Parallel()

	t.Run("what nothing speaks for becomes an intent, and nothing else", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			v := newVault()
			v.show(1)
			v.place("products/1/2/3-dead/full.jpg", 25*time.Hour)
			v.place("products/1/2/4-work/full.jpg", 25*time.Hour)
			v.live["products/1/2/4-work/"] = true
			v.place("products/1/2/5-young/card.webp", 25*time.Hour)
			v.place("products/1/2/5-young/full.jpg", 23*time.Hour) // the youngest counts
			v.place("products/readme.txt", 48*time.Hour)
			v.place(".vitrine/installation", 48*time.Hour)
			a := newAuditor(v, auditConfig())
			during(t, look, a.Run)
			if got := v.intents; len(got) != 1 || got["products/1/2/3-dead/"] != 10*time.Minute {
				t.Errorf("intents %v, want the dead attempt's after the grace", got)
			}
			if len(v.objects) != 8 {
				t.Errorf("%d objects are left: an auditor deletes nothing", len(v.objects))
			}
			a.want(t, map[string]float64{"objects_listed_total": 7, "orphans_total": 1, "foreign_keys_total": 1, "stopped": 0})
			if n := a.logs.FilterMessage("the bucket holds objects that are not ours").Len(); n != 1 {
				t.Errorf("warned %d times of foreign objects", n)
			}
			during(t, 3*time.Hour, a.Run) // again and again
			if len(v.intents) != 2 || v.intents["products/1/2/5-young/"] == 0 {
				t.Errorf("intents %v, want the attempt that was too young before", v.intents)
			}
			a.want(t, map[string]float64{"orphans_total": 2})
		})
	})

	t.Run("the bucket is listed before the rows are asked", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			v := newVault()
			v.place("products/1/2/3-dead/full.jpg", 25*time.Hour)
			during(t, look, newAuditor(v, auditConfig()).Run)
			if want := []string{"page products/ after ", "look up"}; !slices.Equal(v.log, want) {
				t.Errorf("did %q, want %q: an attempt that begins in between would be an orphan", v.log, want)
			}
		})
	})

	t.Run("a round goes on where the last look ended, and rests at its end", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			v := newVault()
			for i := range 8 { // of three objects each, in batches of ten: three attempts a look, never a part of one
				for _, name := range []string{"a", "b", "c"} {
					v.place(fmt.Sprintf("products/1/1/%d-x/%s", i+1, name), 25*time.Hour)
				}
				v.live[fmt.Sprintf("products/1/1/%d-x/", i+1)] = true
			}
			during(t, 30*time.Minute, newAuditor(v, auditConfig()).Run)
			pages := slices.DeleteFunc(slices.Clone(v.log), func(s string) bool { return s == "look up" })
			want := []string{
				"page products/ after ", "page products/ after products/1/1/3-x/c", "page products/ after products/1/1/6-x/c",
			}
			if !slices.Equal(pages, want) {
				t.Errorf("listed %q, want %q and then a rest", pages, want)
			}
			during(t, time.Hour, newAuditor(v, auditConfig()).Run) // another process
			if len(v.log) <= 6 {
				t.Errorf("did %q, want another round after the rest", v.log)
			}
		})
	})

	t.Run("an attempt that is larger than a batch is looked at all the same", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			v := newVault()
			for i := range 25 {
				v.place(fmt.Sprintf("products/1/1/1-x/%02d", i), 25*time.Hour)
			}
			v.place("products/foreign", 25*time.Hour)
			during(t, 5*time.Minute, newAuditor(v, auditConfig()).Run)
			if len(v.intents) != 1 || v.cursors["objects"] != "" || len(v.log) < 3 {
				t.Errorf("intents %v, cursor %q", v.intents, v.cursors["objects"])
			}
		})
	})

	t.Run("of several auditors one looks at a time", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			v := newVault()
			v.owner = "" // so that no cursor is saved, and every look is the first
			var all sync.WaitGroup
			regs := make([]auditor, 3)
			for i := range regs {
				regs[i] = newAuditor(v, auditConfig())
				all.Go(func() { during(t, 10*time.Minute+time.Second, regs[i].Run) })
			}
			all.Wait()
			var stops int
			for _, a := range regs {
				stops += a.logs.FilterMessage("audit stopped").Len()
			}
			if stops < 18 || stops > 20 {
				t.Errorf("looked %d times in ten minutes, want each round once a minute", stops)
			}
		})
	})

	t.Run("one that is not enabled does nothing", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			v := newVault()
			v.place("products/1/2/3-dead/full.jpg", 25*time.Hour)
			cfg := auditConfig()
			cfg.Enabled = false
			during(t, time.Hour, newAuditor(v, cfg).Run)
			if len(v.log) != 0 {
				t.Errorf("did %q", v.log)
			}
		})
	})
}

func TestAuditStops(t *testing.T) {
	t.Parallel()
	orphans := func(v *vault, n int) {
		for i := range n {
			v.place(fmt.Sprintf("products/1/2/%d-dead/x", i+1), 25*time.Hour)
		}
	}

	t.Run("when more seems orphaned than accidents leave behind, and goes on when it is not so", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			v := newVault()
			orphans(v, 3)
			a := newAuditor(v, auditConfig())
			during(t, 5*time.Minute+time.Second, func(ctx context.Context) error {
				context.AfterFunc(ctx, func() { a.want(t, map[string]float64{"stopped": 1, "orphans_total": 0, "errors_total": 0}) })
				return a.Run(ctx)
			})
			if len(v.intents) != 0 || v.cursors["objects"] != "" {
				t.Errorf("intents %v, cursor %q: want none", v.intents, v.cursors["objects"])
			}
			if n := a.logs.FilterMessage("audit stopped").Len(); n != 5 {
				t.Errorf("told %d times in five looks", n)
			}
			v.live["products/1/2/2-dead/"] = true // the rows are right again
			during(t, 2*time.Minute, a.Run)
			a.want(t, map[string]float64{"stopped": 0, "orphans_total": 2})
		})
	})

	t.Run("when the bucket is another's or nobody's, in both rounds", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			for _, owner := range []string{"theirs", ""} {
				v := newVault()
				v.owner = owner
				v.show(1)
				delete(v.objects, "products/1/1/1-a/full.jpg")
				orphans(v, 1)
				a := newAuditor(v, auditConfig())
				during(t, look, a.Run)
				if len(v.intents)+len(v.remade)+len(v.log) != 0 {
					t.Errorf("owner %q: intents %v, remade %v, did %v", owner, v.intents, v.remade, v.log)
				}
				a.want(t, map[string]float64{"stopped": 2, "errors_total": 0})
				if _, err := a.CheckRows(t.Context(), 0, 10, 0); err == nil {
					t.Errorf("owner %q: rows were checked against another's bucket", owner)
				}
			}
		})
	})

	t.Run("when more is missing than accidents take away, and asks for nothing", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			v := newVault()
			for i := range catalog.ImageID(4) {
				v.show(i + 1)
			}
			kept := v.objects["products/1/1/1-a/full.jpg"]
			clear(v.objects)
			for i := range catalog.ImageID(3) { // known, and no reason to stop
				v.show(i + 5)
				v.shown[i+4].RemakeError = media.HTTPStatus
				delete(v.objects, fmt.Sprintf("products/1/%d/1-a/full.jpg", i+5))
			}
			cfg := auditConfig()
			cfg.Rows = 10
			a := newAuditor(v, cfg)
			during(t, 2*time.Minute+time.Second, func(ctx context.Context) error {
				context.AfterFunc(ctx, func() { a.want(t, map[string]float64{"stopped": 1, "missing_total": 0, "errors_total": 0}) })
				return a.Run(ctx)
			})
			if told := a.logs.FilterMessage("audit stopped").All(); len(v.remade) != 0 || len(told) != 2 {
				t.Errorf("remade %v, told %v, want none and two", v.remade, told)
			}
			for _, image := range []string{"1", "2"} { // two of four are tolerated
				for _, name := range []string{"full.jpg", "card.webp"} {
					v.objects["products/1/"+image+"/1-a/"+name] = worker.Object{
						Key: "products/1/" + image + "/1-a/" + name, Size: kept.Size, Modified: kept.Modified,
					}
				}
			}
			during(t, 2*time.Minute, a.Run)
			if want := []catalog.ImageID{3, 4, 5, 6, 7}; !slices.Equal(v.remade, want) || !slices.Equal(v.patient, want[2:]) {
				t.Errorf("remade %v, patient with %v, want %v and the last three", v.remade, v.patient, want)
			}
		})
	})

	t.Run("a part of a batch is measured against the batch", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			v := newVault()
			orphans(v, 4)
			for i := range 396 {
				v.place(fmt.Sprintf("products/1/3/%d-live/x", i+1), 25*time.Hour)
				v.live[fmt.Sprintf("products/1/3/%d-live/", i+1)] = true
			}
			cfg := auditConfig()
			cfg.Batch = 1000
			during(t, look, newAuditor(v, cfg).Run)
			if len(v.intents) != 4 {
				t.Errorf("got %d intents, want four of four hundred", len(v.intents))
			}
		})
	})

	t.Run("a store or a database that is away is looked at again, and accuses nobody", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			v := newVault()
			v.show(1)
			v.away = fault.New(fault.Unavailable, "storage_unavailable", "down")
			delete(v.objects, "products/1/1/1-a/full.jpg") // an empty answer with an error is an error
			orphans(v, 1)
			a := newAuditor(v, auditConfig())
			during(t, look, a.Run)
			v.away, v.down = nil, errors.New("down")
			during(t, look, a.Run)
			if len(v.intents)+len(v.remade) != 0 {
				t.Errorf("intents %v, remade %v", v.intents, v.remade)
			}
			a.want(t, map[string]float64{"errors_total": 4, "stopped": 0})
			v.down = nil
			during(t, look, a.Run)
			if len(v.intents) != 1 || len(v.remade) != 1 {
				t.Errorf("intents %v, remade %v, want one each once all is back", v.intents, v.remade)
			}
		})
	})
}

func TestAuditRows(t *testing.T) {
	t.Parallel()

	t.Run("a picture whose objects are missing or differ is asked for anew", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			v := newVault()
			for i := range catalog.ImageID(5) {
				v.show(i + 1)
			}
			v.shown = append(v.shown, worker.Published{Picture: worker.Picture{ProductID: 1, ImageID: 9}}) // nothing to look for
			delete(v.objects, "products/1/2/1-a/full.jpg")
			v.objects["products/1/5/1-a/card.webp"] = worker.Object{Key: "products/1/5/1-a/card.webp", Size: 4}
			a := newAuditor(v, auditConfig())
			during(t, 6*time.Minute, a.Run)
			if want := []catalog.ImageID{2, 5}; !slices.Equal(v.remade, want) || v.cursors["rows"] != "" {
				t.Errorf("remade %v, cursor %q, want %v and the beginning", v.remade, v.cursors["rows"], want)
			}
			a.want(t, map[string]float64{"missing_total": 2, "rows_checked_total": 6, "stopped": 0, "errors_total": 0})
			if n := a.logs.FilterMessage("an object of a picture is missing; it is asked for anew").Len(); n != 2 {
				t.Errorf("told %d times", n)
			}
		})
	})

	t.Run("one that could not be remade is not asked for again soon", func(t *testing.T) {
		t.Parallel()
		v := newVault()
		v.show(1)
		v.show(2)
		v.shown[1].RemakeError = media.HTTPStatus
		clear(v.objects)
		got, err := newAuditor(v, auditConfig()).CheckRows(t.Context(), 0, 10, 0)
		if err != nil || got.Missing != 2 || !slices.Equal(v.patient, []catalog.ImageID{2}) {
			t.Errorf("got %+v, %v, patient with %v, want it with the second of two", got, err, v.patient)
		}
	})

	t.Run("a picture that is remade while it is looked at is left alone", func(t *testing.T) {
		t.Parallel()
		for what, change := range map[string]func(v *vault){
			"remade":   func(v *vault) { v.shown[0].Fence++ },
			"in work":  func(v *vault) { v.shown = nil },
			"restored": func(v *vault) { v.place("products/1/1/1-a/full.jpg", 0) },
			"deleted":  func(v *vault) { v.done = fault.New(fault.NotFound, "product_not_found", "no") },
			"queued":   func(v *vault) { v.done = catalog.ErrDone },
		} {
			v := newVault()
			v.show(1)
			delete(v.objects, "products/1/1/1-a/full.jpg")
			var once sync.Once
			listed := false
			v.onPage = func(string) {
				if listed { // after the first look
					once.Do(func() { v.mu.Lock(); change(v); v.mu.Unlock() })
				}
				listed = true
			}
			if what != "restored" {
				v.onPage = func(string) { once.Do(func() { v.mu.Lock(); change(v); v.mu.Unlock() }) }
			}
			a := newAuditor(v, auditConfig())
			got, err := a.CheckRows(t.Context(), 0, 10, 0)
			if err != nil || got.Missing != 0 || len(v.remade) != 0 {
				t.Errorf("%s: got %+v, %v, remade %v, want it left alone", what, got, err, v.remade)
			}
		}
	})

	t.Run("rows are checked at the caller's speed", func(t *testing.T) {
		t.Parallel()
		v := newVault()
		for i := range catalog.ImageID(7) {
			v.show(i + 1)
		}
		clear(v.objects)
		a := newAuditor(v, auditConfig())
		var after catalog.ImageID
		var looks []worker.Checked
		for {
			got, err := a.CheckRows(t.Context(), after, 3, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			looks = append(looks, got)
			if after = got.Next; after == 0 {
				break
			}
		}
		if want := []worker.Checked{{3, 3, 3}, {3, 3, 6}, {1, 1, 0}}; !slices.Equal(looks, want) {
			t.Errorf("got %v, want %v", looks, want)
		}
		if len(v.remade) != 7 || v.delays[0] != time.Hour {
			t.Errorf("remade %v after %v", v.remade, v.delays)
		}
	})

	t.Run("a picture that cannot be asked for ends the look", func(t *testing.T) {
		t.Parallel()
		v := newVault()
		v.show(1)
		clear(v.objects)
		v.done = errors.New("down")
		if _, err := newAuditor(v, auditConfig()).CheckRows(t.Context(), 0, 3, 0); !errors.Is(err, v.done) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("a cursor that is no number is told", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			v := newVault()
			v.cursors["rows"] = "x"
			a := newAuditor(v, auditConfig())
			during(t, look, a.Run)
			a.want(t, map[string]float64{"errors_total": 1})
		})
	})
}

func TestAuditMetricsLint(t *testing.T) {
	t.Parallel()
	a := newAuditor(newVault(), auditConfig())
	if problems, err := testutil.GatherAndLint(a.reg); err != nil || len(problems) > 0 {
		t.Errorf("got %v, %v", problems, err)
	}
}
