package postgres_test

import (
	"testing"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
)

func TestRepair(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "overdue_jobs_come_in_order_of_release", run: overdue},
		{name: "deleted_products_are_purged_with_their_images", run: purged},
	})
}

// overdueNow returns the jobs that are overdue by more than timeout, from after on.
func (f *fixture) overdueNow(after maintenance.ReleasedJob, limit int, timeout time.Duration) []maintenance.ImageRef {
	f.Helper()
	found, now, err := f.store.OverdueJobs(f.Context(), after, limit, timeout)
	f.Must(err, "find overdue jobs")
	images := []maintenance.ImageRef{}
	for _, job := range found {
		images = append(images, job.ImageRef)
		if !job.ReleasedAt.Before(now) {
			f.Errorf("released at %s, and now is %s", job.ReleasedAt, now)
		}
	}
	return images
}

// overdueProduct returns a product whose images were released 1, 3, 5 and 7 hours ago. The last is being processed until
// the next minute.
func (f *fixture) overdueProduct() (p catalog.Product, releasedAt []time.Time) {
	f.Helper()
	p = f.Product(4)
	p, err := f.store.Edit(f.Context(), p.ID, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
		for i := range p.Images {
			img := &p.Images[i]
			img.ReleasedAt = now.Add(-time.Duration(2*i+1) * time.Hour)
			img.DueAt = img.ReleasedAt
			releasedAt = append(releasedAt, img.ReleasedAt)
		}
		p.Images[3].JobState, p.Images[3].DueAt = catalog.Processing, now.Add(time.Minute)
		return catalog.Change{}, nil
	})
	f.Must(err, "edit")
	return p, releasedAt
}

func overdue(f *fixture) {
	p, releasedAt := f.overdueProduct()
	ref := func(i int) maintenance.ImageRef {
		return maintenance.ImageRef{ProductID: p.ID, ImageID: p.Images[i].ID}
	}
	first := maintenance.ReleasedJob{ImageRef: ref(2), ReleasedAt: releasedAt[2]}
	none := maintenance.ReleasedJob{}
	f.Same(f.overdueNow(none, 10, time.Minute), []maintenance.ImageRef{ref(2), ref(1), ref(0)}, "overdue")
	f.Same(f.overdueNow(none, 10, 4*time.Hour), []maintenance.ImageRef{ref(2)}, "overdue with a longer timeout")
	f.Same(f.overdueNow(none, 1, time.Minute), []maintenance.ImageRef{ref(2)}, "the first")
	f.Same(f.overdueNow(first, 10, time.Minute), []maintenance.ImageRef{ref(1), ref(0)}, "those behind the first")

	f.send(p.ID, catalog.Outgoing{Message: p.Images[2].JobMessage(), Delay: time.Hour})
	f.Same(f.overdueNow(none, 10, time.Minute), []maintenance.ImageRef{ref(1), ref(0)}, "while its message is in the outbox")
	f.Delete(p.ID)
	f.Same(f.overdueNow(none, 10, time.Minute), []maintenance.ImageRef{}, "of a deleted product")
	f.Insert(f.Draft(2))
	f.Same(f.overdueNow(none, 10, -time.Hour), []maintenance.ImageRef{}, "while they wait for the scheduler")
}

func purged(f *fixture) {
	kept, gone := f.Product(1), []catalog.Product{f.Product(2), f.Product(0), f.Product(1)}
	for _, p := range gone {
		f.Delete(p.ID)
	}
	purge := func(limit int, after time.Duration) int {
		n, err := f.store.PurgeDeleted(f.Context(), limit, after)
		f.Must(err, "purge")
		return n
	}
	if got := purge(10, time.Hour); got != 0 {
		f.Errorf("got %d purged within the hour, want none", got)
	}
	f.Change(gone[0].ID, func(*catalog.Product) catalog.Change { // a locked product is skipped
		if got := purge(1, -time.Second); got != 1 {
			f.Errorf("got %d purged while another one is locked, want 1", got)
		}
		return catalog.Change{}
	})
	for i, p := range gone { // the locked one and the one deleted last are left
		if _, err := f.store.Product(f.Context(), p.ID); (err != nil) != (i == 1) {
			f.Errorf("deleted product %d: got %v, want only the unlocked one that was deleted first purged", i, err)
		}
	}
	for _, want := range []int{1, 1, 0} {
		if got := purge(1, -time.Second); got != want {
			f.Errorf("got %d purged, want %d", got, want)
		}
	}
	for _, p := range gone {
		_, err := f.store.Product(f.Context(), p.ID)
		if err == nil {
			f.Errorf("product %d is still there", p.ID)
		}
	}
	f.Same(f.Load(kept.ID), kept, "the product that was not deleted")
}
