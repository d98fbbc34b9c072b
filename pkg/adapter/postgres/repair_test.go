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
		{name: "overdue_images_come_longest_overdue_first", run: overdue},
		{name: "deleted_product_has_no_overdue_images", run: overdueDeleted},
		{name: "deleted_products_are_purged_with_their_images", run: purged},
	})
}

// overdueNow returns the images that are overdue by more than timeout.
func (f *fixture) overdueNow(limit int, timeout time.Duration) []maintenance.ImageRef {
	f.Helper()
	found, err := f.store.OverdueImages(f.Context(), limit, timeout)
	f.Must(err, "find overdue images")
	return found
}

func overdue(f *fixture) {
	p := f.Product(4)
	_, err := f.store.Edit(f.Context(), p.ID, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
		p.Images[0].DueAt = now.Add(-time.Hour)
		p.Images[1].DueAt, p.Images[1].JobState = now.Add(-3*time.Hour), catalog.Processing
		p.Images[2].DueAt, p.Images[2].JobState = now.Add(-5*time.Hour), catalog.Idle
		p.Images[3].DueAt = now.Add(time.Minute)
		return catalog.Change{}, nil
	})
	f.Must(err, "edit")
	first := maintenance.ImageRef{ProductID: p.ID, ImageID: p.Images[1].ID}
	second := maintenance.ImageRef{ProductID: p.ID, ImageID: p.Images[0].ID}
	f.Same(f.overdueNow(10, time.Minute), []maintenance.ImageRef{first, second}, "overdue")
	f.Same(f.overdueNow(10, 2*time.Hour), []maintenance.ImageRef{first}, "overdue with a longer timeout")
	f.Same(f.overdueNow(1, time.Minute), []maintenance.ImageRef{first}, "the first")
}

func overdueDeleted(f *fixture) {
	p := f.Product(1)
	_, err := f.store.Edit(f.Context(), p.ID, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
		p.Images[0].DueAt = now.Add(-time.Hour)
		p.Deleted = true
		return catalog.Change{}, nil
	})
	f.Must(err, "edit")
	f.Same(f.overdueNow(10, time.Minute), []maintenance.ImageRef{}, "overdue")
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
