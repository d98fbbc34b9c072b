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
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/test/catalogtest"
)

// fakeInstallation is a bucket and the rows that refer to its objects.
type fakeInstallation struct {
	mu           sync.Mutex
	objects      map[string]maintenance.Object
	owner        string
	bucketErr    error                   // the error of every bucket method
	rowsErr      error                   // the error of every method on rows
	failing      string                  // a prefix whose listing fails
	shards       map[string][]*fakeShard // of the last pass over each scan
	passes       int                     // that have started
	leases       int
	products     catalog.ProductID // the highest id, besides those of the images
	deletions    map[string]time.Duration
	referenced   map[string]bool // prefixes that a row refers to
	published    []maintenance.Published
	requested    []catalog.ImageID
	ifOld        []catalog.ImageID // requested only if their last request is older than MinAge
	delays       []time.Duration
	reprocessErr error // the error of ReprocessIf
	forgotten    []catalog.ImageID
	forgetErr    error // the error of ForgetOriginal
	onPage       func(prefix string)
	log          []string
}

func newFakeInstallation() *fakeInstallation {
	return &fakeInstallation{
		objects: map[string]maintenance.Object{}, owner: "own", shards: map[string][]*fakeShard{},
		deletions: map[string]time.Duration{}, referenced: map[string]bool{}, onPage: func(string) {},
	}
}

func (f *fakeInstallation) Page(ctx context.Context, prefix, after string, limit int) ([]maintenance.Object, bool, error) {
	f.onPage(prefix)
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
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
	if f.failing != "" && strings.HasPrefix(prefix, f.failing) {
		return nil, false, errors.New("refused")
	}
	return found[:min(limit, len(found))], len(found) > limit, f.bucketErr
}

func (f *fakeInstallation) Owner(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.owner, f.bucketErr
}

func (f *fakeInstallation) Installation(context.Context) (string, int64, error) {
	return "own", 0, f.rowsErr
}

// fakeShard is a row of the checkpoints.
type fakeShard struct {
	maintenance.Shard
	maintenance.Position
	started, due time.Time
}

func (f *fakeInstallation) Pass(_ context.Context, scan string) (pass maintenance.Pass, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pass(scan), f.rowsErr
}

func (f *fakeInstallation) pass(scan string) (pass maintenance.Pass) {
	for _, s := range f.shards[scan] {
		pass.Shards++
		pass.Age = time.Since(s.started)
		if pass.Progress += s.Position.Progress; !s.Done {
			pass.Unfinished++
		}
		if s.Stopped != "" && !slices.Contains(pass.Stopped, s.Stopped) {
			pass.Stopped = append(pass.Stopped, s.Stopped)
		}
	}
	if pass.Shards > 0 {
		pass.Progress /= float64(pass.Shards)
	}
	return pass
}

func (f *fakeInstallation) StartPass(_ context.Context, scan string, ranges []maintenance.Range, every time.Duration,
) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.pass(scan); p.Unfinished > 0 || p.Shards > 0 && p.Age < every {
		return false, f.rowsErr
	}
	f.shards[scan] = nil
	for i, r := range ranges {
		f.shards[scan] = append(f.shards[scan], &fakeShard{
			Shard:    maintenance.Shard{Range: r, Scan: scan, Number: i, Shards: len(ranges)},
			Position: maintenance.Position{Cursor: r.After}, started: time.Now(), due: time.Now(),
		})
	}
	f.passes++
	return true, f.rowsErr
}

func (f *fakeInstallation) Acquire(_ context.Context, scan string, lease time.Duration) (maintenance.Shard, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rowsErr != nil {
		return maintenance.Shard{}, false, f.rowsErr
	}
	for _, s := range f.shards[scan] {
		if s.Done || s.due.After(time.Now()) {
			continue
		}
		f.leases++
		s.due, s.Lease = time.Now().Add(lease), fmt.Sprint(f.leases)
		shard := s.Shard
		shard.Cursor, shard.Progress, shard.PassAge = s.Position.Cursor, s.Position.Progress, time.Since(s.started)
		return shard, true, nil
	}
	return maintenance.Shard{}, false, nil
}

func (f *fakeInstallation) Save(_ context.Context, shard maintenance.Shard, at maintenance.Position, wait time.Duration,
) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.shards[shard.Scan][shard.Number]; s.Lease == shard.Lease {
		s.Position, s.due = at, time.Now().Add(wait)
	}
	return f.rowsErr
}

// at returns the position of the only shard of a scan.
func (f *fakeInstallation) at(t *testing.T, scan string) maintenance.Position {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.shards[scan]) != 1 {
		t.Fatalf("the scan of %s has %d shards, want one", scan, len(f.shards[scan]))
	}
	return f.shards[scan][0].Position
}

func (f *fakeInstallation) Extent(context.Context) (catalog.ProductID, catalog.ImageID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	products, images := f.products, catalog.ImageID(0)
	for _, p := range f.published {
		products, images = max(products, p.ProductID), max(images, p.ImageID)
	}
	return products, images, f.rowsErr
}

func (f *fakeInstallation) Unreferenced(_ context.Context, prefixes []catalog.ScheduledDeletion,
) ([]catalog.ScheduledDeletion, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, "unreferenced")
	return f.unreferenced(prefixes), f.rowsErr
}

func (f *fakeInstallation) unreferenced(prefixes []catalog.ScheduledDeletion) []catalog.ScheduledDeletion {
	return slices.DeleteFunc(slices.Clone(prefixes), func(d catalog.ScheduledDeletion) bool {
		_, scheduled := f.deletions[d.Prefix]
		return scheduled || f.referenced[d.Prefix]
	})
}

func (f *fakeInstallation) ScheduleOrphans(_ context.Context, prefixes []catalog.ScheduledDeletion) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	scheduled := f.unreferenced(prefixes)
	for _, d := range scheduled {
		f.deletions[d.Prefix] = d.Delay
	}
	return len(scheduled), f.rowsErr
}

func (f *fakeInstallation) Published(_ context.Context, after, until catalog.ImageID, limit int,
) (found []maintenance.Published, next catalog.ImageID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.published {
		if p.ImageID > after && p.ImageID <= until && len(found) < limit {
			found = append(found, p)
		}
	}
	if len(found) == limit {
		next = found[limit-1].ImageID
	}
	return found, next, f.rowsErr
}

func (f *fakeInstallation) ReprocessIf(_ context.Context, _ catalog.ProductID, image catalog.ImageID, filter catalog.Filter,
	delay time.Duration,
) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch filter {
	case catalog.Filter{Status: catalog.Ready}:
	case catalog.Filter{Status: catalog.Ready, OlderThan: 24 * time.Hour}:
		f.ifOld = append(f.ifOld, image)
	default:
		return fmt.Errorf("unexpected filter %+v", filter)
	}
	if f.reprocessErr != nil {
		return f.reprocessErr
	}
	f.requested, f.delays = append(f.requested, image), append(f.delays, delay)
	f.published = slices.DeleteFunc(f.published, func(p maintenance.Published) bool { return p.ImageID == image })
	return nil
}

func (f *fakeInstallation) ForgetOriginal(_ context.Context, _ catalog.ProductID, image catalog.ImageID, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.forgetErr != nil {
		return f.forgetErr
	}
	for _, p := range f.published {
		if p.ImageID == image && p.Original.Key == key {
			f.forgotten = append(f.forgotten, image)
		}
	}
	return nil
}

// place adds an object of 5 bytes and that age to the bucket.
func (f *fakeInstallation) place(key string, age time.Duration) {
	f.objects[key] = maintenance.Object{Key: key, Size: 5, Modified: time.Now().Add(-age)}
}

// putOrphans adds n old attempts of one object each, without references.
func (f *fakeInstallation) putOrphans(n int) {
	for i := range n {
		f.place(fmt.Sprintf("products/1/2/%d-orphan/x", i+1), 25*time.Hour)
	}
}

// publish publishes an image with two objects.
func (f *fakeInstallation) publish(image catalog.ImageID) {
	prefix := fmt.Sprintf("products/1/%d/1-a/", image)
	p := maintenance.Published{ImageRef: maintenance.ImageRef{ProductID: 1, ImageID: image}, FencingToken: 1}
	for _, name := range []string{"card.webp", "full.jpg"} {
		f.place(prefix+name, 48*time.Hour)
		p.Objects = append(p.Objects, maintenance.Object{Key: prefix + name, Size: 5})
	}
	f.referenced[prefix] = true
	f.published = append(f.published, p)
}

func auditorConfig() maintenance.AuditorConfig {
	return maintenance.AuditorConfig{
		Enabled: true, Interval: time.Minute, Pass: time.Hour, Lease: time.Minute, Batch: 10, Rows: 2,
		MaxObjectRate: 1000, MaxRowRate: 1000, MinAge: 24 * time.Hour, Grace: 10 * time.Minute,
		ToleratedShare: 0.01, ToleratedCount: 2,
	}
}

// auditor is an auditor of a fakeInstallation, with its metrics and logs.
type auditor struct {
	*maintenance.Auditor
	reg  *prometheus.Registry
	logs *observer.ObservedLogs
}

func newAuditor(f *fakeInstallation, cfg maintenance.AuditorConfig) auditor {
	core, logs := observer.New(zapcore.DebugLevel)
	reg := prometheus.NewRegistry()
	return auditor{maintenance.NewAuditor(maintenance.AuditorDeps{
		Checkpoints: f, References: f, Bucket: f, Catalog: f, Now: time.Now, Log: zap.New(core),
	}, cfg, reg), reg, logs}
}

func (a auditor) value(t *testing.T, name string) float64 {
	t.Helper()
	return catalogtest.Metric(t, a.reg, "vitrine_maintenance_auditor_"+name)
}

func (a auditor) want(t *testing.T, values map[string]float64) {
	t.Helper()
	for name, want := range values {
		if got := a.value(t, name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}
