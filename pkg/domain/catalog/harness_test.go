package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// harness is a service over a memory store and a cache that follows the rules of catalog.Cache.
type harness struct {
	*catalog.Service
	store *memory
	cache *cache
	wakes atomic.Int64
}

// encode is an Encoder whose body has the id and the version.
type encode struct{}

func (encode) Encode(p catalog.Product) ([]byte, string, error) {
	if p.Name == "unencodable" {
		return nil, "", errors.New("no")
	}
	return fmt.Appendf(nil, `{"id":%d,"version":%d}`, p.ID, p.Version), fmt.Sprintf(`"%d-t"`, p.Version), nil
}

// cache keeps the newest document and the newest tombstone of each product.
type cache struct {
	mu         sync.Mutex
	docs       map[catalog.ProductID]catalog.Document
	tombstones map[catalog.ProductID]int64
	broken     error
	fills      int
	filled     func() // when a fill has been accepted
}

func (c *cache) Get(_ context.Context, id catalog.ProductID) (catalog.Document, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	doc, ok := c.docs[id]
	return doc, ok && c.broken == nil, c.broken
}

func (c *cache) Fill(
	_ context.Context, id catalog.ProductID, doc catalog.Document, _ time.Time,
) (catalog.FillResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fills++
	if c.broken != nil {
		return 0, c.broken
	}
	if old, ok := c.docs[id]; ok && old.Version > doc.Version || c.tombstones[id] > doc.Version {
		return catalog.Stale, nil
	}
	c.docs[id] = doc
	if c.filled != nil {
		c.mu.Unlock()
		c.filled()
		c.mu.Lock()
	}
	return catalog.Filled, nil
}

func (c *cache) Invalidate(_ context.Context, id catalog.ProductID, version int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return c.broken
	}
	c.tombstones[id] = max(c.tombstones[id], version)
	if c.docs[id].Version < version {
		delete(c.docs, id)
	}
	return nil
}

func (c *cache) setBroken(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = err
}

// defaultPipeline returns a revision of the default pipeline.
func defaultPipeline() *pipeline.Revision { return pipeline.NewRevision(pipeline.Default()) }

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{
		store: newMemory(),
		cache: &cache{docs: map[catalog.ProductID]catalog.Document{}, tombstones: map[catalog.ProductID]int64{}},
	}
	h.Service = catalog.New(catalog.Deps{
		Store: h.store, Pipelines: h.store, Cache: h.cache, Encoder: encode{}, Pipeline: defaultPipeline,
		NewID: uuid.NewString, Random: func() float64 { return 0.5 }, Now: time.Now,
		Wake: func() { h.wakes.Add(1) }, Log: zap.NewNop(),
	}, catalog.Config{LoadTimeout: time.Minute, InvalidateTimeout: time.Minute, DeletionGrace: time.Hour})
	return h
}

func input(urls ...string) catalog.NewProductInput {
	return catalog.NewProductInput{
		UserID: 1, Name: "Chair", Price: decimal.RequireFromString("12.50"), PriceSet: true, ImageURLs: urls,
	}
}

// create creates a product with n images, whose sources are url(0) to url(n-1).
func (h *harness) create(t *testing.T, n int) catalog.Product {
	t.Helper()
	var urls []string
	for i := range n {
		urls = append(urls, url(i))
	}
	p, err := h.Create(t.Context(), input(urls...), "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (h *harness) product(t *testing.T, id catalog.ProductID) catalog.Product {
	t.Helper()
	p, err := h.store.Product(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sourceTimeout returns a transient failure.
func sourceTimeout() *media.Failure { return media.Fail(media.Timeout, "the source was too slow", nil) }

// storageFailed returns a deferrable failure.
func storageFailed() *media.Failure {
	return media.Fail(media.StorageFailed, "the renditions could not be stored", nil)
}

// hostBusy returns the failure of a job whose host has no free slot.
func hostBusy() *media.Failure { return media.Fail(media.HostBusy, "the host is busy", nil) }

// httpNotFound returns a permanent failure.
func httpNotFound() *media.Failure {
	return media.Fail(media.HTTPStatus, "the source answered 404", nil)
}

const budget = time.Minute

// begin starts an attempt for the current job of the i-th image.
func (h *harness) begin(t *testing.T, p catalog.Product, i int) catalog.Attempt {
	t.Helper()
	a, err := h.Begin(t.Context(), h.job(t, p.ID, i), budget)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (h *harness) job(t *testing.T, id catalog.ProductID, i int) catalog.Job {
	t.Helper()
	img := h.product(t, id).Images[i]
	return catalog.Job{ProductID: id, ImageID: img.ID, JobID: img.JobID}
}

// result returns two renditions below the attempt's prefix, the first one the default.
func result(a catalog.Attempt) catalog.Result {
	return catalog.Result{Width: 10, Height: 20, SourceSHA256: "ab", SourceBytes: 3, Renditions: []catalog.Rendition{
		{Name: "full", Format: pipeline.JPEG, Width: 10, Height: 20, Bytes: 1, Key: a.Prefix + "full.jpg", Default: true},
		{Name: "full", Format: pipeline.WebP, Width: 10, Height: 20, Bytes: 1, Key: a.Prefix + "full.webp"},
	}}
}

func policy() pipeline.Retry { return pipeline.Default().Spec.Retry }

// requeue gives the i-th image, which is idle, a new request.
func (h *harness) requeue(t *testing.T, id catalog.ProductID, i int) {
	t.Helper()
	h.store.change(id, func(p *catalog.Product) {
		p.Images[i].JobState, p.Images[i].JobID, p.Images[i].Attempts = catalog.Queued, "next", 0
		p.Images[i].RequestedAt, p.Images[i].NotBefore, p.Images[i].DueAt = h.store.now, h.store.now, h.store.now
	})
}

// url returns the n-th source of a product that create creates.
func url(n int) string { return fmt.Sprintf("https://example.com/%d.jpg", n) }

// images returns a patch of a product's images.
func images(urls ...string) catalog.ProductPatch { return catalog.ProductPatch{ImageURLs: &urls} }

// patch patches a product of any revision.
func (h *harness) patch(t *testing.T, id catalog.ProductID, patch catalog.ProductPatch) catalog.Product {
	t.Helper()
	p, err := h.Patch(t.Context(), id, patch, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// complete begins and finishes an attempt at the product's i-th image.
func (h *harness) complete(t *testing.T, p catalog.Product, i int) catalog.Attempt {
	t.Helper()
	a := h.begin(t, p, i)
	if err := h.Finish(t.Context(), a, result(a)); err != nil {
		t.Fatal(err)
	}
	return a
}

// requestedImages returns the image of each image.requested event, in order.
func (h *harness) requestedImages(t *testing.T) []catalog.ImageID {
	t.Helper()
	var ids []catalog.ImageID
	for _, m := range h.store.sent(event.TypeImageRequested) {
		r, err := event.Decode[event.ImageRequested](m.Message)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, catalog.ImageID(r.ImageID))
	}
	return ids
}

// wantDeletion reports a prefix whose objects are not scheduled for deletion after the grace.
func (h *harness) wantDeletion(t *testing.T, prefix string) {
	t.Helper()
	if in := h.store.deletions[prefix]; in == nil || !in.due.Equal(h.store.now.Add(time.Hour)) {
		t.Errorf("the deletion of %s is %+v, want due in an hour", prefix, in)
	}
}
