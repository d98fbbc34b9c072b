package postgres_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/test/storetest"
)

func TestSelectImages(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "each_condition_selects_its_images", run: selected},
		{name: "busy_or_deleted_images_are_not_selected", run: notSelected},
		{name: "next_page_starts_after_last_image", run: selectedByPages},
	})
}

// pick returns the selected images and the last image that was read, or 0 at the end.
func (f *fixture) pick(filter catalog.Filter, after catalog.ImageID, limit int) ([]maintenance.ImageRef, catalog.ImageID) {
	f.Helper()
	found, next, err := f.store.SelectImages(f.Context(), filter, after, limit)
	f.Must(err, "select images")
	return found, next
}

// idle finishes every image.
func (f *fixture) idle(p catalog.Product) catalog.Product {
	f.Helper()
	return f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		for i := range p.Images {
			p.Images[i] = storetest.Finished(p.Images[i], "products/1/1/1-a/")
		}
		return catalog.Change{}
	})
}

func selected(f *fixture) {
	p := f.idle(f.Product(5))
	var at time.Time
	p, err := f.store.Edit(f.Context(), p.ID, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
		at = now
		img := p.Images
		img[0].Status, img[0].ErrorCode = catalog.Failed, media.HTTPStatus
		img[1].Status, img[1].ErrorCode, img[1].RequestedAt = catalog.Failed, media.Timeout, now.Add(-2*time.Hour)
		img[2].ReprocessError, img[2].PipelineHash = media.Timeout, "old"
		img[3].RequestedAt = now.Add(-2 * time.Hour)
		return catalog.Change{}, nil
	})
	f.Must(err, "edit")
	for name, row := range map[string]struct {
		filter catalog.Filter
		want   []int
	}{
		"no condition":   {catalog.Filter{}, []int{0, 1, 2, 3, 4}},
		"failed":         {catalog.Filter{Status: catalog.Failed}, []int{0, 1}},
		"ready":          {catalog.Filter{Status: catalog.Ready}, []int{2, 3, 4}},
		"a code":         {catalog.Filter{Code: media.Timeout}, []int{1, 2}},
		"another code":   {catalog.Filter{Code: media.HTTPStatus}, []int{0}},
		"an absent code": {catalog.Filter{Code: media.Corrupt}, nil},
		"older":          {catalog.Filter{OlderThan: time.Hour}, []int{1, 3}},
		"older by far":   {catalog.Filter{OlderThan: 24 * time.Hour}, nil},
		"a pipeline":     {catalog.Filter{PipelineHash: "old"}, []int{2}},
		"two conditions": {catalog.Filter{Status: catalog.Failed, OlderThan: time.Hour}, []int{1}},
		"all conditions": {catalog.Filter{
			Status: catalog.Failed, Code: media.Timeout, OlderThan: time.Hour, PipelineHash: "hash",
		}, []int{1}},
	} {
		var want []maintenance.ImageRef
		for _, i := range row.want {
			want = append(want, maintenance.ImageRef{ProductID: p.ID, ImageID: p.Images[i].ID})
		}
		found, next := f.pick(row.filter, 0, 10)
		f.Same(found, want, name)
		f.Same(next, catalog.ImageID(0), name+": more")
		for i, img := range p.Images { // the store selects what Matches accepts
			matches := row.filter.Matches(img, at)
			found := false
			for _, k := range row.want {
				found = found || k == i
			}
			if matches != found {
				f.Errorf("%s: image %d matches: %v, is selected: %v", name, i, matches, found)
			}
		}
	}
}

func notSelected(f *fixture) {
	working, gone, kept := f.idle(f.Product(2)), f.idle(f.Product(1)), f.idle(f.Product(1))
	f.Change(working.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0], p.Images[1] = inWork(p.Images[0], catalog.Queued), inWork(p.Images[1], catalog.Processing)
		return catalog.Change{}
	})
	f.Delete(gone.ID)
	found, _ := f.pick(catalog.Filter{}, 0, 10)
	f.Same(found, []maintenance.ImageRef{{ProductID: kept.ID, ImageID: kept.Images[0].ID}}, "selected")
}

func selectedByPages(f *fixture) {
	var want []maintenance.ImageRef
	for range 3 {
		p := f.idle(f.Product(3))
		for _, img := range p.Images {
			want = append(want, maintenance.ImageRef{ProductID: p.ID, ImageID: img.ID})
		}
	}
	var got []maintenance.ImageRef
	for after := catalog.ImageID(0); ; {
		page, next := f.pick(catalog.Filter{Status: catalog.Ready}, after, 4)
		got = append(got, page...)
		if next == 0 {
			break
		}
		f.Same(next, page[len(page)-1].ImageID, "next")
		after = next
	}
	f.Same(got, want, "all pages")
}

// A selection reads a limited number of rows, even if few images match.
func TestSelectImagesScanLimit(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	conn, store := connect(t, dsn), postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry()))
	seed(t, conn)
	run(t, conn, `INSERT INTO images (product_id, position, source_url, status)
		SELECT 1, n, 'x', CASE WHEN n IN (25000, 25001) THEN 'failed' ELSE 'ready' END FROM generate_series(1, 25001) n`)
	failed := catalog.Filter{Status: catalog.Failed}
	find := func(after catalog.ImageID, limit int) ([]maintenance.ImageRef, catalog.ImageID) {
		found, next, err := store.SelectImages(t.Context(), failed, after, limit)
		if err != nil {
			t.Fatal(err)
		}
		return found, next
	}
	if found, next := find(0, 10); len(found) != 0 || next != 20_000 {
		t.Errorf("got %v and %d, want none among the first 20000", found, next)
	}
	if found, next := find(20_000, 10); len(found) != 2 || next != 0 {
		t.Errorf("got %v and %d, want two, and none after them", found, next)
	}
	if found, next := find(5_003, 10); len(found) != 2 || next != 0 {
		t.Errorf("got %v and %d, want two of the last 19999, and none after them", found, next)
	}
	if found, next := find(20_000, 1); len(found) != 1 || next != found[0].ImageID {
		t.Errorf("got %v and %d, want the first, and to go on after it", found, next)
	}
}
