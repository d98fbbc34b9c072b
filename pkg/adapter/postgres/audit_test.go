package postgres_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/test/storetest"
)

func TestAudit(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "rows_and_scheduled_deletions_are_references", run: referenced},
		{name: "unreferenced_prefix_is_scheduled_once", run: orphansScheduled},
		{name: "original_is_a_reference_and_is_listed", run: originalReferenced},
		{name: "ready_idle_images_are_listed_by_id", run: published},
	})
}

// prefixOf returns the prefix of an attempt's objects for a product's n-th image.
func prefixOf(p catalog.Product, n int, attempt string) string {
	return fmt.Sprintf("products/%d/%d/%s/", p.ID, p.Images[n].ID, attempt)
}

// unreferenced returns those attempts at a product's n-th image whose prefix has no reference.
func (f *fixture) unreferenced(p catalog.Product, n int, attempts ...string) []string {
	f.Helper()
	requested := make([]catalog.ScheduledDeletion, len(attempts))
	for i, attempt := range attempts {
		requested[i] = catalog.ScheduledDeletion{Prefix: prefixOf(p, n, attempt), ImageID: p.Images[n].ID, Delay: time.Minute}
	}
	found, err := f.store.Unreferenced(f.Context(), requested)
	f.Must(err, "find unreferenced")
	names := make([]string, 0, len(found))
	for _, deletion := range found {
		if deletion.ImageID != p.Images[n].ID || deletion.Delay != time.Minute {
			f.Errorf("got %+v, want what was requested", deletion)
		}
		for i, attempt := range attempts {
			if requested[i].Prefix == deletion.Prefix {
				names = append(names, attempt)
			}
		}
	}
	return names
}

// publish makes a product's n-th image ready, with two objects below an attempt's prefix.
func (f *fixture) publish(p catalog.Product, n int, attempt string) catalog.Product {
	f.Helper()
	return f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		prefix := prefixOf(*p, n, attempt)
		p.Images[n] = storetest.Idle(p.Images[n])
		p.Images[n].Status, p.Images[n].Prefix, p.Images[n].FencingToken = catalog.Ready, prefix, p.Images[n].FencingToken+1
		p.Images[n].Renditions = []catalog.Rendition{
			{Name: "full", Format: "jpeg", Width: 10, Height: 10, Bytes: 7, Key: prefix + "full.jpg", Default: true},
			{Name: "card", Format: "jpeg", Width: 10, Height: 10, Bytes: 7, Key: prefix + "full.jpg"},
			{Name: "card", Format: "webp", Width: 10, Height: 10, Bytes: 5, Key: prefix + "card.webp"},
		}
		p.Version++
		return catalog.Change{}
	})
}

// inWork returns img with a job.
func inWork(img catalog.Image, state catalog.JobState) catalog.Image {
	img.JobState, img.JobID, img.Class = state, uuid.NewString(), catalog.Bulk
	return img
}

func referenced(f *fixture) {
	p := f.publish(f.Product(2), 0, "4-live")
	f.Change(p.ID, func(p *catalog.Product) catalog.Change { // processed a second time: the old objects are still visible
		p.Images[0] = inWork(p.Images[0], catalog.Processing)
		p.Images[0].Prefix = prefixOf(*p, 0, "6-work")
		return catalog.Change{}
	})
	f.ScheduleDeletion(p.ID, prefixOf(p, 0, "5-scheduled"), time.Hour)
	f.ScheduleDeletion(p.ID, prefixOf(p, 0, "3-started"), 0)
	f.startDue(1, time.Hour)
	all := []string{"1-gone", "2-gone", "3-started", "4-liv", "4-live", "5-scheduled", "6-work", "7-gone"}
	f.Same(f.unreferenced(p, 0, all...), []string{"1-gone", "2-gone", "4-liv", "7-gone"}, "unreferenced")
	f.Change(p.ID, func(p *catalog.Product) catalog.Change { // released: the attempt may still be storing
		p.Images[0].JobState = catalog.Queued
		return catalog.Change{}
	})
	f.Same(f.unreferenced(p, 0, "4-live", "6-work"), []string{}, "unreferenced while queued")
	f.Same(f.unreferenced(p, 1, "4-live"), []string{"4-live"}, "below an image that is not ready")
	f.Same(f.unreferenced(p, 1), []string{}, "nothing requested")

	f.Change(p.ID, func(p *catalog.Product) catalog.Change { // idle again: only what is visible counts
		p.Images[0] = storetest.Idle(p.Images[0])
		return catalog.Change{}
	})
	f.Same(f.unreferenced(p, 0, "4-live", "6-work"), []string{"6-work"}, "unreferenced once idle")
	f.Delete(p.ID)
	f.Same(f.unreferenced(p, 0, "4-live", "5-scheduled"), []string{"4-live"}, "unreferenced once the product is deleted")
}

func originalReferenced(f *fixture) {
	p := f.publish(f.Product(1), 0, "4-live")
	prefix := fmt.Sprintf("originals/%d/%d/4-kept/", p.ID, p.Images[0].ID)
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0].OriginalKey, p.Images[0].SourceBytes = prefix+"source", 99
		return catalog.Change{}
	})
	unreferenced := func() []catalog.ScheduledDeletion {
		found, err := f.store.Unreferenced(f.Context(), []catalog.ScheduledDeletion{
			{Prefix: prefix, ImageID: p.Images[0].ID}, {Prefix: prefix[:len(prefix)-2] + "/", ImageID: p.Images[0].ID},
		})
		f.Must(err, "find unreferenced")
		return found
	}
	if got := unreferenced(); len(got) != 1 || got[0].Prefix == prefix {
		f.Errorf("got %v, want only the other prefix", got)
	}
	found, _, err := f.store.Published(f.Context(), 0, math.MaxInt64, 10)
	f.Must(err, "list published images")
	f.Same(found[0].Original, maintenance.Object{Key: prefix + "source", Size: 99}, "the original")
	f.Delete(p.ID)
	if got := unreferenced(); len(got) != 2 {
		f.Errorf("deleted: got %v, want both", got)
	}
}

func orphansScheduled(f *fixture) {
	p := f.publish(f.Product(1), 0, "2-live")
	f.ScheduleDeletion(p.ID, prefixOf(p, 0, "3-scheduled"), time.Hour)
	schedule := func() int {
		var requested []catalog.ScheduledDeletion
		for _, attempt := range []string{"1-gone", "2-live", "3-scheduled"} {
			requested = append(requested, catalog.ScheduledDeletion{
				Prefix: prefixOf(p, 0, attempt), ImageID: p.Images[0].ID, Delay: -time.Second,
			})
		}
		n, err := f.store.ScheduleOrphans(f.Context(), requested)
		f.Must(err, "schedule orphans")
		return n
	}
	for _, want := range []int{1, 0} {
		if got := schedule(); got != want {
			f.Errorf("got %d scheduled, want %d", got, want)
		}
	}
	f.Same(f.startDue(10, time.Hour), []string{prefixOf(p, 0, "1-gone")}, "started")
	if got := schedule(); got != 0 {
		f.Errorf("got %d scheduled that has started already", got)
	}
	later := catalog.ScheduledDeletion{Prefix: prefixOf(p, 0, "4-gone"), ImageID: p.Images[0].ID, Delay: time.Hour}
	if n, err := f.store.ScheduleOrphans(f.Context(), []catalog.ScheduledDeletion{later}); err != nil || n != 1 {
		f.Errorf("got %d scheduled and %v, want one", n, err)
	}
	f.Same(f.startDue(10, time.Hour), []string{}, "started before it is due")
}

func published(f *fixture) {
	p, deleted := f.Product(4), f.Product(1)
	for _, n := range []int{2, 0, 1} {
		p = f.publish(p, n, fmt.Sprint(n+1, "-a"))
	}
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[1] = inWork(p.Images[1], catalog.Queued)
		p.Images[2].ReprocessError = media.HTTPStatus
		p.Images[3] = storetest.Idle(p.Images[3])
		p.Images[3].Status = catalog.Failed
		return catalog.Change{}
	})
	p.Images[2].ReprocessError = media.HTTPStatus
	f.publish(deleted, 0, "1-a")
	f.Delete(deleted.ID)
	of := func(n int) maintenance.Published {
		prefix := prefixOf(p, n, fmt.Sprint(n+1, "-a"))
		return maintenance.Published{
			ImageRef: maintenance.ImageRef{ProductID: p.ID, ImageID: p.Images[n].ID}, FencingToken: p.Images[n].FencingToken,
			ReprocessError: p.Images[n].ReprocessError,
			Objects:        []maintenance.Object{{Key: prefix + "card.webp", Size: 5}, {Key: prefix + "full.jpg", Size: 7}},
		}
	}
	type page struct {
		found []maintenance.Published
		next  catalog.ImageID
	}
	list := func(after, until catalog.ImageID, limit int) page {
		found, next, err := f.store.Published(f.Context(), after, until, limit)
		f.Must(err, "list published images")
		return page{found, next}
	}
	const last = math.MaxInt64
	id := func(n int) catalog.ImageID { return p.Images[n].ID }
	f.Same(list(0, last, 10), page{[]maintenance.Published{of(0), of(2)}, 0}, "published")
	f.Same(list(0, last, 1), page{[]maintenance.Published{of(0)}, id(0)}, "the first")
	f.Same(list(id(0), last, 1), page{nil, id(1)}, "one that is not published")
	f.Same(list(id(0), last, 2), page{[]maintenance.Published{of(2)}, id(2)}, "two, one of them published")
	f.Same(list(0, id(1), 10), page{[]maintenance.Published{of(0)}, 0}, "up to the second")
	f.Same(list(id(2), last, 10), page{}, "after the last")
}

// Long runs of images that are not published do not keep a pass from its end.
func TestPublishedRuns(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	conn := connect(t, dsn)
	cfg := config(dsn)
	cfg.StatementTimeout = time.Second
	store := postgres.NewStore(open(t, cfg, prometheus.NewRegistry()))
	seed(t, conn)
	run(t, conn, `INSERT INTO images (product_id, position, source_url, status)
		SELECT 1, n, 'x', CASE WHEN n < 100000 THEN 'pending' ELSE 'ready' END FROM generate_series(1, 100001) n`)
	var found []maintenance.Published
	calls := 0
	for after := catalog.ImageID(0); ; calls++ {
		page, next, err := store.Published(t.Context(), after, math.MaxInt64, 1000)
		if err != nil || next != 0 && next != after+1000 {
			t.Fatalf("after %d: got next %d and %v, want a thousand rows further", after, next, err)
		}
		found = append(found, page...)
		if after = next; after == 0 {
			break
		}
	}
	if len(found) != 3 || calls != 100 {
		t.Errorf("found %d images by %d calls, want three by 100", len(found), calls)
	}
	if products, images, err := store.Extent(t.Context()); products != 5 || images != 100_002 || err != nil {
		t.Errorf("got product %d, image %d and %v, want 5 and 100002", products, images, err)
	}
	empty := postgres.NewStore(open(t, config(migrated(t)), prometheus.NewRegistry()))
	if products, images, err := empty.Extent(t.Context()); products != 0 || images != 0 || err != nil {
		t.Errorf("an empty database: got %d, %d and %v", products, images, err)
	}
}
