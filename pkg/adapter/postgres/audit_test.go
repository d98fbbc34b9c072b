package postgres_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/test/storetest"
)

func TestAudit(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "checkpoint_belongs_to_one_caller_until_due", run: acquired},
		{name: "cursor_is_kept_until_next_scan", run: cursors},
		{name: "only_one_concurrent_caller_acquires", run: acquiredOnce},
		{name: "rows_and_scheduled_deletions_are_references", run: referenced},
		{name: "unreferenced_prefix_is_scheduled_once", run: orphansScheduled},
		{name: "ready_idle_images_are_listed_by_id", run: published},
	})
}

// acquire calls Acquire and returns the cursor and whether the scan was acquired.
func (f *fixture) acquire(name string, interval time.Duration) (cursor string, acquired bool) {
	f.Helper()
	cursor, acquired, err := f.store.Acquire(f.Context(), name, interval)
	f.Must(err, "acquire")
	return cursor, acquired
}

func acquired(f *fixture) {
	for _, want := range []bool{true, false, false} {
		if cursor, ok := f.acquire("objects", time.Hour); ok != want || cursor != "" {
			f.Errorf("got %q, %v, want %v", cursor, ok, want)
		}
	}
	if _, ok := f.acquire("rows", time.Hour); !ok {
		f.Error("the scan with another name was refused")
	}
	for range 3 {
		if _, ok := f.acquire("always", -time.Second); !ok {
			f.Error("a scan that is due was refused")
		}
	}
}

func cursors(f *fixture) {
	save := func(cursor string, wait time.Duration) {
		f.Must(f.store.SaveCursor(f.Context(), "objects", cursor, wait), "save cursor")
	}
	f.acquire("objects", time.Hour)
	save("products/7/", -time.Second)
	if cursor, ok := f.acquire("objects", time.Hour); cursor != "products/7/" || !ok {
		f.Errorf("got %q, %v, want what was saved", cursor, ok)
	}
	if _, ok := f.acquire("objects", time.Hour); ok {
		f.Error("the scan was acquired twice")
	}
	save("products/8/", time.Hour)
	if cursor, ok := f.acquire("objects", time.Hour); ok {
		f.Errorf("got %q before the wait was over", cursor)
	}
	save("", -time.Second)
	if cursor, ok := f.acquire("objects", time.Hour); cursor != "" || !ok {
		f.Errorf("got %q, %v, want the beginning", cursor, ok)
	}
}

func acquiredOnce(f *fixture) {
	for round := range 5 {
		var acquired atomic.Int64
		var group sync.WaitGroup
		for range 6 {
			group.Go(func() {
				_, ok, err := f.store.Acquire(f.Context(), fmt.Sprint("round ", round), time.Hour)
				if err != nil {
					f.Errorf("acquire: %v", err)
				}
				if ok {
					acquired.Add(1)
				}
			})
		}
		group.Wait()
		if got := acquired.Load(); got != 1 {
			f.Errorf("%d callers acquired the scan, want one", got)
		}
	}
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
	list := func(after catalog.ImageID, limit int) []maintenance.Published {
		found, err := f.store.Published(f.Context(), after, limit)
		f.Must(err, "list published images")
		return found
	}
	f.Same(list(0, 10), []maintenance.Published{of(0), of(2)}, "published")
	f.Same(list(0, 1), []maintenance.Published{of(0)}, "the first")
	f.Same(list(p.Images[0].ID, 1), []maintenance.Published{of(2)}, "the one after it")
	f.Same(list(p.Images[2].ID, 10), []maintenance.Published{}, "after the last")
}
