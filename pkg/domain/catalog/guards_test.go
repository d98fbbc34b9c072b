package catalog_test

import (
	"context"
	"errors"
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

// The tests of this file tell, for each guard of the protocol, the story that would end badly without it. They run on a
// real Postgres and a real Redis Cluster; the bucket is a map, which deletes when a test wants it to.

// world is a product with one picture, asked for and not begun, and everything that may happen to it.
type world struct {
	t       *testing.T
	api     *catalog.Service
	worker  *catalog.Service
	store   *postgres.Store
	objects *objects
	product catalog.Product
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dsn := servers.Postgres(t)
	addrs, prefix := servers.Redis(t)
	if err := postgres.Migrate(t.Context(), postgres.Config{DSN: dsn}, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, api: onServers(t, dsn, addrs, prefix), worker: onServers(t, dsn, addrs, prefix),
		objects: &objects{stored: map[string]string{}},
	}
	w.store = w.api.Store.(*postgres.Store)
	user, err := w.api.CreateUser(t.Context(), "Ada", "ada@example.com")
	w.must(err)
	in := input("https://example.com/a.jpg")
	in.UserID = user.ID
	w.product, err = w.api.Create(t.Context(), in, "")
	w.must(err)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// now is the product as its rows say.
func (w *world) now() catalog.Product {
	w.t.Helper()
	p, err := w.store.Product(context.WithoutCancel(w.t.Context()), w.product.ID)
	w.must(err)
	return p
}

// request is what the picture's record in Kafka says now.
func (w *world) request() catalog.Job {
	w.t.Helper()
	img := w.now().Images[0]
	return catalog.Job{ProductID: w.product.ID, ImageID: img.ID, JobID: img.JobID}
}

// begin starts an attempt whose objects are due after that long.
func (w *world) begin(r catalog.Job, due time.Duration) catalog.Attempt {
	w.t.Helper()
	a, err := w.worker.Begin(w.t.Context(), r, due)
	w.must(err)
	return a
}

// puts stores the attempt's renditions.
func (w *world) puts(a catalog.Attempt, bytes string) {
	for _, r := range result(a).Renditions {
		w.objects.put(r.Key, bytes)
	}
}

func (w *world) finish(a catalog.Attempt) error {
	return w.worker.Finish(context.WithoutCancel(w.t.Context()), a, result(a))
}

// is holds an error to what it should be.
func (w *world) is(got, want error, doing string) {
	w.t.Helper()
	if !errors.Is(got, want) {
		w.t.Errorf("%s: got %v, want %v", doing, got, want)
	}
}

// shows checks that what clients see is there, as that attempt has stored it.
func (w *world) shows(bytes string) {
	w.t.Helper()
	img := w.now().Images[0]
	if img.Status != catalog.Ready || len(img.Renditions) == 0 {
		w.t.Fatalf("the picture is %s with %d renditions", img.Status, len(img.Renditions))
	}
	for _, r := range img.Renditions {
		if got := w.objects.get(r.Key); got != bytes {
			w.t.Errorf("clients are shown %s, which is %q, want %q", r.Key, got, bytes)
		}
	}
}

// collect runs a garbage collector until a scan finds nothing to do.
func (w *world) collect() {
	w.t.Helper()
	found := &scans{Deletions: w.store, idle: make(chan struct{})}
	cfg := maintenance.GCConfig{Interval: time.Millisecond, Batch: 10, SecondPassAfter: time.Microsecond}
	c := maintenance.NewGarbageCollector(found, w.objects, cfg, prometheus.NewRegistry(), zap.NewNop())
	ctx, stop := context.WithCancel(w.t.Context())
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
func (s *scans) StartDue(ctx context.Context, limit int, again time.Duration) ([]string, error) {
	prefixes, err := s.Deletions.StartDue(ctx, limit, again)
	s.started = len(prefixes)
	return prefixes, err
}

// SecondPassDue implements maintenance.Deletions.
func (s *scans) SecondPassDue(ctx context.Context, limit int) ([]string, error) {
	prefixes, err := s.Deletions.SecondPassDue(ctx, limit)
	if err == nil && s.started+len(prefixes) == 0 {
		s.once.Do(func() { close(s.idle) })
	}
	return prefixes, err
}

// objects is a bucket.
type objects struct {
	mu       sync.Mutex
	stored   map[string]string
	deleted  int
	onDelete func() // called before the first deletion
}

func (o *objects) put(key, bytes string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stored[key] = bytes
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

// DeletePrefix implements maintenance.Objects.
func (o *objects) DeletePrefix(_ context.Context, prefix string) error {
	o.mu.Lock()
	first := o.deleted == 0
	o.mu.Unlock()
	if first && o.onDelete != nil {
		o.onDelete()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for key := range o.stored {
		if strings.HasPrefix(key, prefix) {
			delete(o.stored, key)
		}
	}
	o.deleted++
	return nil
}

// TestGuardTicket: a record comes again when its work is done, and when another request has taken its place. Without the
// ticket the picture would be fetched and made again each time.
func TestGuardTicket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.request()
	a := w.begin(first, time.Hour)
	w.must(w.worker.Retry(t.Context(), a, media.Fail(media.Timeout, "slow", nil), policy()))
	before := w.now()
	_, err := w.worker.Begin(t.Context(), first, time.Hour)
	w.is(err, catalog.ErrDone, "the record of the attempt before, again")

	second := w.request()
	a = w.begin(second, time.Hour)
	w.puts(a, "second")
	w.must(w.finish(a))
	for _, r := range []catalog.Job{first, second, {ProductID: first.ProductID, ImageID: first.ImageID}} {
		_, err := w.worker.Begin(t.Context(), r, time.Hour)
		w.is(err, catalog.ErrDone, "a record of a picture that is ready")
	}
	if got := w.now(); got.Images[0].FencingToken != before.Images[0].FencingToken+1 || got.Version != before.Version+1 {
		t.Errorf("fence %d and version %d, want one more than %d and %d: something was done twice",
			got.Images[0].FencingToken, got.Version, before.Images[0].FencingToken, before.Version)
	}
	w.shows("second")
}

// TestGuardFence: a worker that was thought dead wakes up when another has taken its picture over. Without the fence it
// would publish, fail or give back what is no longer its own.
func TestGuardFence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.request()
	sleeper := w.begin(r, time.Hour)
	w.puts(sleeper, "sleeper")
	heir := w.begin(r, time.Hour)
	before := w.now()
	late := func() {
		t.Helper()
		f := media.Fail(media.Corrupt, "broken", nil)
		w.is(w.finish(sleeper), catalog.ErrSuperseded, "Finish of the sleeper")
		w.is(w.worker.Fail(t.Context(), sleeper, f), catalog.ErrSuperseded, "Fail of the sleeper")
		w.is(w.worker.Retry(t.Context(), sleeper, f, policy()), catalog.ErrSuperseded, "Retry of the sleeper")
		w.is(w.worker.Defer(t.Context(), sleeper, f, policy(), 0), catalog.ErrSuperseded, "Defer of the sleeper")
		w.is(w.worker.Release(t.Context(), sleeper), catalog.ErrSuperseded, "Release of the sleeper")
	}
	late()
	if got := w.now(); got.Version != before.Version || got.Images[0].JobID != before.Images[0].JobID {
		t.Errorf("the sleeper has changed version %d into %d, or the ticket", before.Version, got.Version)
	}
	w.puts(heir, "heir")
	w.must(w.finish(heir))
	late()
	w.shows("heir")
}

// TestGuardPrefix: a sleeper's last upload arrives after its heir has published. Without a prefix for each attempt it
// would overwrite what clients see, and what is deleted after it would be theirs.
func TestGuardPrefix(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.request()
	sleeper := w.begin(r, 0)
	heir := w.begin(r, time.Hour)
	w.puts(heir, "heir")
	w.must(w.finish(heir))
	w.puts(sleeper, "sleeper")
	w.shows("heir")
	w.collect()
	w.shows("heir")
	if n := w.objects.below(sleeper.Prefix); n != 0 {
		t.Errorf("%d objects of the sleeper are left", n)
	}
}

// TestGuardIntent: a worker dies with its objects stored. Without the intent that Begin wrote nobody would ever know of
// them; and without its removal by Finish, the objects of those that live would be deleted, too.
func TestGuardIntent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.request()
	dead := w.begin(r, 0)
	w.puts(dead, "dead")
	heir := w.begin(r, 0)
	w.puts(heir, "heir")
	w.must(w.finish(heir))
	w.collect()
	if n := w.objects.below(dead.Prefix); n != 0 {
		t.Errorf("%d objects of the dead attempt are left, and nothing says so", n)
	}
	w.shows("heir")
}

// TestGuardDoom: an attempt takes so long that its objects are being deleted when it wants to publish them. Without doom
// it would show what is going.
func TestGuardDoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.request()
	slow := w.begin(r, 0)
	w.puts(slow, "slow")
	w.objects.onDelete = func() { w.is(w.finish(slow), catalog.ErrDeletionStarted, "Finish while its objects are being deleted") }
	w.collect()
	if img := w.now().Images[0]; img.Status != catalog.Pending || img.JobState != catalog.Processing || img.JobID != r.JobID {
		t.Errorf("the picture is %s and %s", img.Status, img.JobState)
	}
	again := w.begin(r, time.Hour) // what ErrDoomed asks for
	w.puts(again, "again")
	w.must(w.finish(again))
	w.shows("again")
}

// slowly is a store whose first read of a product takes until something else is done.
type slowly struct {
	catalog.Store
	once      sync.Once
	meanwhile func()
}

// Product implements catalog.Store.
func (s *slowly) Product(ctx context.Context, id catalog.ProductID) (catalog.Product, error) {
	p, err := s.Store.Product(ctx, id)
	s.once.Do(s.meanwhile)
	return p, err
}

// TestGuardTombstone: a reader has read a product, and is held up; then the product changes, the cache is told, and the
// reader brings what it has read. Without a tombstone there would be nothing to compare it with, and everyone would read
// it.
func TestGuardTombstone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.begin(w.request(), time.Hour)
	w.puts(a, "new")
	parts := w.api.Deps
	parts.Store = &slowly{Store: w.store, meanwhile: func() { w.is(w.finish(a), nil, "Finish beside the reader") }}
	reader := catalog.New(parts, catalog.Config{LoadTimeout: time.Minute, InvalidateTimeout: time.Minute})
	for i, api := range []*catalog.Service{reader, w.api, reader} {
		doc, err := api.Get(t.Context(), w.product.ID)
		w.must(err)
		if want := w.now().Version; doc.Version != want || want != w.product.Version+1 {
			t.Errorf("reader %d answers version %d, want %d", i, doc.Version, want)
		}
	}
}
