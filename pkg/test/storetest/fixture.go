package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// Parts is one store with access to its outbox.
type Parts struct {
	Store     catalog.Store
	Pipelines catalog.Pipelines

	// TakeDue removes the messages that are due from the outbox, and returns them in order.
	TakeDue func(t testing.TB) []event.Message

	// ReleaseDue releases all jobs that are due, as the scheduler does.
	ReleaseDue func(t testing.TB)
}

// Open returns an empty store, and closes it when t ends.
type Open func(t *testing.T) Parts

// Fixture is one test with a store of its own. A method that fails ends the test, unless its comment says that it continues.
type Fixture struct {
	*testing.T
	Parts
}

// Must ends the test if err is not nil. doing names the failed call.
func (f *Fixture) Must(err error, doing string) {
	f.Helper()
	if err != nil {
		f.Fatalf("%s: %v", doing, err)
	}
}

// WantKind reports an error of another kind than want, and continues.
func (f *Fixture) WantKind(err error, want fault.Kind, doing string) {
	f.Helper()
	if !fault.Is(err, want) {
		f.Errorf("%s: got %v, want a fault of kind %s", doing, err, want)
	}
}

// WantError reports an error that does not wrap want, and continues.
func (f *Fixture) WantError(err, want error, doing string) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Errorf("%s: got %v, want %v", doing, err, want)
	}
}

// Same reports a difference between two values, compared as JSON, and continues.
func (f *Fixture) Same(got, want any, what string) {
	f.Helper()
	if g, w := Text(got), Text(want); g != w {
		f.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// Text returns a value as JSON. A nil list and an empty one have the same text. An error of the encoder is the text.
func Text(v any) string {
	raw, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err.Error()
	}
	return strings.ReplaceAll(string(raw), "null", "[]")
}

// User adds a user with a unique e-mail address.
func (f *Fixture) User() catalog.User {
	f.Helper()
	u, err := f.Store.InsertUser(f.Context(), catalog.User{Name: "Ada", Email: uuid.NewString() + "@example.com"})
	f.Must(err, "insert user")
	return u
}

// Draft returns a product of a new user with that many images, each queued under a job id of its own. It is not inserted.
// The jobs are of the class that always waits for the scheduler.
func (f *Fixture) Draft(images int) catalog.Product {
	f.Helper()
	p := catalog.Product{
		UserID: f.User().ID, Name: "Lamp", Description: "A lamp.", Price: decimal.RequireFromString("12.50"),
		Version: 1, Revision: 1,
	}
	for i := range images {
		url := fmt.Sprintf("https://images.example.com/%d.jpg", i)
		p.ImageURLs = append(p.ImageURLs, url)
		p.Images = append(p.Images, catalog.Image{
			Position: i, SourceURL: url, Status: catalog.Pending,
			JobState: catalog.Queued, JobID: uuid.NewString(), PipelineHash: "hash", Class: catalog.Bulk, Host: "example.com",
		})
	}
	return p
}

// Silent returns no messages.
func Silent(catalog.Product) []catalog.Outgoing { return nil }

// Insert adds a product without announcing it.
func (f *Fixture) Insert(p catalog.Product) catalog.Product {
	f.Helper()
	p, err := f.Store.Insert(f.Context(), p, Silent)
	f.Must(err, "insert product")
	return p
}

// Product adds a product with that many images.
func (f *Fixture) Product(images int) catalog.Product {
	f.Helper()
	return f.Insert(f.Draft(images))
}

// Load reads a product.
func (f *Fixture) Load(id catalog.ProductID) catalog.Product {
	f.Helper()
	p, err := f.Store.Product(f.Context(), id)
	f.Must(err, "load product")
	return p
}

// Change edits a product with a function that cannot fail.
func (f *Fixture) Change(id catalog.ProductID, fn func(p *catalog.Product) catalog.Change) catalog.Product {
	f.Helper()
	p, err := f.Store.Edit(f.Context(), id, Unfailing(fn))
	f.Must(err, "edit product")
	return p
}

// Message returns a product.changed message with a traceparent.
func Message(id catalog.ProductID) event.Message {
	m := event.New(uuid.NewString(), id.String(), event.ProductChanged{ProductID: int64(id), Version: 1})
	m.Traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	return m
}

// Unfailing turns a function that cannot fail and needs no time into one for Edit.
func Unfailing(fn func(*catalog.Product) catalog.Change) func(*catalog.Product, time.Time) (catalog.Change, error) {
	return func(p *catalog.Product, _ time.Time) (catalog.Change, error) { return fn(p), nil }
}

// Finished returns img as a successful attempt with that prefix leaves it.
func Finished(img catalog.Image, prefix string) catalog.Image {
	img = Idle(img)
	img.Status, img.Prefix = catalog.Ready, prefix
	img.Width, img.Height, img.Placeholder, img.Attempts = 4000, 3000, "1QcSHQRnh493V4dIh4eXh1h4kJUI", 1
	img.SourceSHA256, img.SourceBytes, img.OriginalKey = "00ff", 123456, "originals/1/1/1-b/source"
	img.Renditions = []catalog.Rendition{
		{Name: "thumb", Format: pipeline.WebP, Width: 320, Height: 240, Bytes: 1000, Key: prefix + "thumb.webp"},
		{Name: "full", Format: pipeline.JPEG, Width: 1600, Height: 1200, Bytes: 90000, Score: 70.25, Lowered: 62,
			Key: prefix + "full.jpg", Default: true},
	}
	img.Dropped = []media.Dropped{
		{Name: "full", Format: pipeline.WebP, Reason: media.LargerThanSource},
		{Name: "thumb", Format: pipeline.AVIF, Reason: media.LargerThanSibling},
	}
	return img
}

// Idle returns img without a job.
func Idle(img catalog.Image) catalog.Image {
	img.JobState, img.JobID, img.Class, img.Host, img.Traceparent = catalog.Idle, "", "", "", ""
	img.UnreportedAttempts, img.PoisonSHA256, img.Backfill = 0, "", catalog.BackfillJob{}
	img.NotBefore, img.ReleasedAt, img.DueAt, img.DeferredSince = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return img
}

// Delete deletes a product as the catalog does: it ends the jobs of the images and raises the version.
func (f *Fixture) Delete(id catalog.ProductID) catalog.Product {
	f.Helper()
	return f.Change(id, func(p *catalog.Product) catalog.Change {
		p.Deleted = true
		p.Version++
		for i := range p.Images {
			p.Images[i] = Idle(p.Images[i])
			p.Images[i].FencingToken++
		}
		return catalog.Change{}
	})
}

// ScheduleDeletion schedules the deletion of the objects below prefix, for the first image of a product, after due.
func (f *Fixture) ScheduleDeletion(id catalog.ProductID, prefix string, due time.Duration) {
	f.Helper()
	f.Change(id, func(p *catalog.Product) catalog.Change {
		return catalog.Change{Deletions: []catalog.ScheduledDeletion{{Prefix: prefix, ImageID: p.Images[0].ID, Delay: due}}}
	})
}

// CancelDeletions raises the product's version and cancels the scheduled deletions of prefixes. It returns Edit's error.
func (f *Fixture) CancelDeletions(id catalog.ProductID, prefixes ...string) error {
	_, err := f.Store.Edit(f.Context(), id, Unfailing(func(p *catalog.Product) catalog.Change {
		p.Version++
		return catalog.Change{CancelDeletions: prefixes}
	}))
	return err
}

// NewImage returns a queued image without an id.
func NewImage(position int, url string) catalog.Image {
	return catalog.Image{
		Position: position, SourceURL: url, Status: catalog.Pending, JobState: catalog.Queued, JobID: uuid.NewString(),
		PipelineHash: "hash", Class: catalog.Bulk, Host: "example.com",
	}
}

// Arrange gives a product those images, and sets their positions and the list of URLs.
func Arrange(p *catalog.Product, images ...catalog.Image) {
	p.Images, p.ImageURLs = images, nil
	for i := range p.Images {
		p.Images[i].Position = i
		p.ImageURLs = append(p.ImageURLs, p.Images[i].SourceURL)
	}
}

// Together runs fn n times concurrently and waits for all.
func Together(n int, fn func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			fn(i)
		})
	}
	close(start)
	wg.Wait()
}

// takeDue removes the messages that are due from the outbox, and returns them in order.
func (f *Fixture) takeDue() []event.Message {
	f.Helper()
	return f.TakeDue(f)
}
