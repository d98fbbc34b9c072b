package catalog_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/test/servers"
)

// serverFixture is a product with one queued image on a real Postgres and a real Redis Cluster. The bucket is a map.
type serverFixture struct {
	t       *testing.T
	api     *catalog.Service
	worker  *catalog.Service
	store   *postgres.Store
	objects *objects
	product catalog.Product
}

func newServerFixture(t *testing.T) *serverFixture {
	t.Helper()
	dsn := servers.Postgres(t)
	addrs, prefix := servers.Redis(t)
	if err := postgres.Migrate(t.Context(), postgres.Config{DSN: dsn}, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	f := &serverFixture{
		t: t, api: openService(t, dsn, addrs, prefix), worker: openService(t, dsn, addrs, prefix),
		objects: &objects{stored: map[string]string{}},
	}
	f.store = f.api.Store.(*postgres.Store)
	user, err := f.api.CreateUser(t.Context(), "Ada", "ada@example.com")
	f.must(err)
	in := input("https://example.com/a.jpg")
	in.UserID = user.ID
	f.product, err = f.api.Create(t.Context(), in, "")
	f.must(err)
	return f
}

func (f *serverFixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// load returns the product from the database.
func (f *serverFixture) load() catalog.Product {
	f.t.Helper()
	p, err := f.store.Product(context.WithoutCancel(f.t.Context()), f.product.ID)
	f.must(err)
	return p
}

// job returns the image's current job.
func (f *serverFixture) job() catalog.Job {
	f.t.Helper()
	img := f.load().Images[0]
	return catalog.Job{ProductID: f.product.ID, ImageID: img.ID, JobID: img.JobID}
}

// begin starts an attempt. The deletion of its objects is due after budget.
func (f *serverFixture) begin(job catalog.Job, budget time.Duration) catalog.Attempt {
	f.t.Helper()
	a, err := f.worker.Begin(f.t.Context(), job, budget)
	f.must(err)
	return a
}

// storeObjects stores the attempt's renditions, each with content.
func (f *serverFixture) storeObjects(a catalog.Attempt, content string) {
	for _, r := range result(a).Renditions {
		f.objects.put(r.Key, content)
	}
}

func (f *serverFixture) finish(a catalog.Attempt) error {
	return f.worker.Finish(context.WithoutCancel(f.t.Context()), a, result(a))
}

// wantError reports an error that does not wrap want.
func (f *serverFixture) wantError(got, want error, doing string) {
	f.t.Helper()
	if !errors.Is(got, want) {
		f.t.Errorf("%s: got %v, want %v", doing, got, want)
	}
}

// wantVisible checks that every visible rendition has content.
func (f *serverFixture) wantVisible(content string) {
	f.t.Helper()
	img := f.load().Images[0]
	if img.Status != catalog.Ready || len(img.Renditions) == 0 {
		f.t.Fatalf("the image is %s with %d renditions", img.Status, len(img.Renditions))
	}
	for _, r := range img.Renditions {
		if got := f.objects.get(r.Key); got != content {
			f.t.Errorf("visible object %s is %q, want %q", r.Key, got, content)
		}
	}
}

// collect runs a garbage collector until a scan finds nothing to do.
func (f *serverFixture) collect() {
	f.t.Helper()
	found := &scans{Deletions: f.store, idle: make(chan struct{})}
	cfg := maintenance.GCConfig{Interval: time.Millisecond, Batch: 10, SecondPassAfter: time.Microsecond, Lease: time.Minute}
	c := maintenance.NewGarbageCollector(found, f.objects, cfg, prometheus.NewRegistry(), zap.NewNop())
	ctx, stop := context.WithCancel(f.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	<-found.idle
	stop()
	running.Wait()
}

// scans closes idle when no deletion is due, for the first or the second pass.
type scans struct {
	maintenance.Deletions
	started int
	idle    chan struct{}
	once    sync.Once
}

// StartDue implements maintenance.Deletions.
func (s *scans) StartDue(ctx context.Context, limit int, secondPassAfter time.Duration) ([]string, error) {
	prefixes, err := s.Deletions.StartDue(ctx, limit, secondPassAfter)
	s.started = len(prefixes)
	return prefixes, err
}

// ClaimSecondPass implements maintenance.Deletions.
func (s *scans) ClaimSecondPass(ctx context.Context, limit int, lease time.Duration) ([]string, error) {
	prefixes, err := s.Deletions.ClaimSecondPass(ctx, limit, lease)
	if err == nil && s.started+len(prefixes) == 0 {
		s.once.Do(func() { close(s.idle) })
	}
	return prefixes, err
}

// objects is a bucket in memory.
type objects struct {
	mu       sync.Mutex
	stored   map[string]string
	deleted  int
	onDelete func() // called before the first deletion
}

func (o *objects) put(key, content string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stored[key] = content
}

func (o *objects) get(key string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stored[key]
}

func (o *objects) below(prefix string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for key := range o.stored {
		if strings.HasPrefix(key, prefix) {
			n++
		}
	}
	return n
}

// DeletePrefixes implements maintenance.Objects.
func (o *objects) DeletePrefixes(_ context.Context, prefixes []string) []error {
	o.mu.Lock()
	first := o.deleted == 0
	o.mu.Unlock()
	if first && o.onDelete != nil {
		o.onDelete()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for key := range o.stored {
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			delete(o.stored, key)
		}
	}
	o.deleted += len(prefixes)
	return make([]error, len(prefixes))
}

// TestGuard has one subtest for each guard of the protocol. Each fails if the guard is removed from the code.
func TestGuard(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*serverFixture){
		"job_id":             testGuardJobID,
		"fencing_token":      testGuardFencingToken,
		"prefix":             testGuardPrefix,
		"scheduled_deletion": testGuardScheduledDeletion,
		"deletion_start":     testGuardDeletionStart,
		"tombstone":          testGuardTombstone,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(newServerFixture(t))
		})
	}
}

// testGuardJobID delivers a record again after its attempt has ended, and after another job has replaced its job. Without
// the job id the image would be processed each time.
func testGuardJobID(f *serverFixture) {
	first := f.job()
	a := f.begin(first, time.Hour)
	f.must(f.worker.Retry(f.t.Context(), a, sourceTimeout(), policy()))
	before := f.load()
	_, err := f.worker.Begin(f.t.Context(), first, time.Hour)
	f.wantError(err, catalog.ErrDone, "the record of the attempt before")

	second := f.job()
	a = f.begin(second, time.Hour)
	f.storeObjects(a, "second")
	f.must(f.finish(a))
	for _, job := range []catalog.Job{first, second, {ProductID: first.ProductID, ImageID: first.ImageID}} {
		_, err := f.worker.Begin(f.t.Context(), job, time.Hour)
		f.wantError(err, catalog.ErrDone, "a record of a ready image")
	}
	if got := f.load(); got.Images[0].FencingToken != before.Images[0].FencingToken+1 || got.Version != before.Version+1 {
		f.t.Errorf("fencing token %d and version %d, want one more than %d and %d",
			got.Images[0].FencingToken, got.Version, before.Images[0].FencingToken, before.Version)
	}
	f.wantVisible("second")
}

// testGuardFencingToken lets an attempt continue after another attempt has superseded it. Without the fencing token it would
// publish, fail or release the image of the other attempt.
func testGuardFencingToken(f *serverFixture) {
	job := f.job()
	old := f.begin(job, time.Hour)
	f.storeObjects(old, "old")
	current := f.begin(job, time.Hour)
	before := f.load()
	reportOld := func() {
		f.t.Helper()
		ctx, failure := f.t.Context(), media.Fail(media.Corrupt, "broken", nil)
		f.wantError(f.finish(old), catalog.ErrSuperseded, "Finish of the old attempt")
		f.wantError(f.worker.Fail(ctx, old, failure), catalog.ErrSuperseded, "Fail of the old attempt")
		f.wantError(f.worker.Retry(ctx, old, failure, policy()), catalog.ErrSuperseded, "Retry of the old attempt")
		f.wantError(f.worker.Defer(ctx, old, failure, policy(), 0), catalog.ErrSuperseded, "Defer of the old attempt")
		f.wantError(f.worker.Release(ctx, old), catalog.ErrSuperseded, "Release of the old attempt")
	}
	reportOld()
	if got := f.load(); got.Version != before.Version || got.Images[0].JobID != before.Images[0].JobID {
		f.t.Errorf("the old attempt has changed version %d to %d, or the job", before.Version, got.Version)
	}
	f.storeObjects(current, "current")
	f.must(f.finish(current))
	reportOld()
	f.wantVisible("current")
}

// testGuardPrefix stores objects of a superseded attempt after its successor has published. Without a prefix for each
// attempt they would overwrite visible objects, and their deletion would delete visible objects.
func testGuardPrefix(f *serverFixture) {
	job := f.job()
	old := f.begin(job, 0)
	current := f.begin(job, time.Hour)
	f.storeObjects(current, "current")
	f.must(f.finish(current))
	f.storeObjects(old, "old")
	f.wantVisible("current")
	f.collect()
	f.wantVisible("current")
	if n := f.objects.below(old.Prefix); n != 0 {
		f.t.Errorf("%d objects of the old attempt are left", n)
	}
}

// testGuardScheduledDeletion crashes a worker after it has stored its objects. Without the deletion that Begin schedules
// they would stay for ever. Without its cancellation by Finish, visible objects would be deleted too.
func testGuardScheduledDeletion(f *serverFixture) {
	job := f.job()
	crashed := f.begin(job, 0)
	f.storeObjects(crashed, "crashed")
	current := f.begin(job, 0)
	f.storeObjects(current, "current")
	f.must(f.finish(current))
	f.collect()
	if n := f.objects.below(crashed.Prefix); n != 0 {
		f.t.Errorf("%d objects of the crashed attempt are left", n)
	}
	f.wantVisible("current")
}

// testGuardDeletionStart finishes an attempt while its objects are being deleted. If Finish could cancel a started deletion,
// the image would show objects that do not exist.
func testGuardDeletionStart(f *serverFixture) {
	job := f.job()
	slow := f.begin(job, 0)
	f.storeObjects(slow, "slow")
	f.objects.onDelete = func() {
		f.wantError(f.finish(slow), catalog.ErrDeletionStarted, "Finish while the objects are being deleted")
	}
	f.collect()
	img := f.load().Images[0]
	if img.Status != catalog.Pending || img.JobState != catalog.Processing || img.JobID != job.JobID {
		f.t.Errorf("the image is %s and %s", img.Status, img.JobState)
	}
	next := f.begin(job, time.Hour) // as ErrDeletionStarted requires
	f.storeObjects(next, "next")
	f.must(f.finish(next))
	f.wantVisible("next")
}

// slowStore calls meanwhile after its first read of a product, before it returns the product.
type slowStore struct {
	catalog.Store
	once      sync.Once
	meanwhile func()
}

// Product implements catalog.Store.
func (s *slowStore) Product(ctx context.Context, id catalog.ProductID) (catalog.Product, error) {
	p, err := s.Store.Product(ctx, id)
	s.once.Do(s.meanwhile)
	return p, err
}

// testGuardTombstone changes a product between a reader's read of the database and its Fill. Without a tombstone the cache
// would accept the old version and return it to all readers.
func testGuardTombstone(f *serverFixture) {
	a := f.begin(f.job(), time.Hour)
	f.storeObjects(a, "new")
	deps := f.api.Deps
	deps.Store = &slowStore{Store: f.store, meanwhile: func() { f.wantError(f.finish(a), nil, "Finish during the read") }}
	reader := catalog.New(deps, catalog.Config{LoadTimeout: time.Minute, InvalidateTimeout: time.Minute})
	for i, api := range []*catalog.Service{reader, f.api, reader} {
		doc, err := api.Get(f.t.Context(), f.product.ID)
		f.must(err)
		if want := f.load().Version; doc.Version != want || want != f.product.Version+1 {
			f.t.Errorf("reader %d gets version %d, want %d", i, doc.Version, want)
		}
	}
}
