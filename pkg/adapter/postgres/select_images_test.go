package postgres_test

import (
	"testing"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/test/storetest"
)

func TestSelectImages(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "each_condition_selects_its_images", run: selected},
		{name: "images_in_work_or_deleted_are_left_out", run: notSelected},
		{name: "pages_go_on_after_last_image", run: selectedByPages},
	})
}

// pick returns the selected images, and the image after which there may be more, or 0.
func (f *fixture) pick(which catalog.Filter, after catalog.ImageID, limit int) ([]maintenance.ImageRef, catalog.ImageID) {
	f.Helper()
	found, next, err := f.store.SelectImages(f.Context(), which, after, limit)
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
		which catalog.Filter
		want  []int
	}{
		"no condition":       {catalog.Filter{}, []int{0, 1, 2, 3, 4}},
		"failed":             {catalog.Filter{Status: catalog.Failed}, []int{0, 1}},
		"ready":              {catalog.Filter{Status: catalog.Ready}, []int{2, 3, 4}},
		"a code":             {catalog.Filter{Code: media.Timeout}, []int{1, 2}},
		"another code":       {catalog.Filter{Code: media.HTTPStatus}, []int{0}},
		"a code that is not": {catalog.Filter{Code: media.Corrupt}, nil},
		"older":              {catalog.Filter{OlderThan: time.Hour}, []int{1, 3}},
		"older by far":       {catalog.Filter{OlderThan: 24 * time.Hour}, nil},
		"a pipeline":         {catalog.Filter{PipelineHash: "old"}, []int{2}},
		"two conditions":     {catalog.Filter{Status: catalog.Failed, OlderThan: time.Hour}, []int{1}},
		"all conditions": {catalog.Filter{
			Status: catalog.Failed, Code: media.Timeout, OlderThan: time.Hour, PipelineHash: "hash",
		}, []int{1}},
	} {
		var want []maintenance.ImageRef
		for _, i := range row.want {
			want = append(want, maintenance.ImageRef{ProductID: p.ID, ImageID: p.Images[i].ID})
		}
		found, next := f.pick(row.which, 0, 10)
		f.Same(found, want, name)
		f.Same(next, catalog.ImageID(0), name+": more")
		for i, img := range p.Images { // the store selects what Matches accepts
			meant := row.which.Matches(img, at)
			found := false
			for _, k := range row.want {
				found = found || k == i
			}
			if meant != found {
				f.Errorf("%s: image %d matches: %v, is selected: %v", name, i, meant, found)
			}
		}
	}
}

func notSelected(f *fixture) {
	working, gone, kept := f.idle(f.Product(2)), f.idle(f.Product(1)), f.idle(f.Product(1))
	f.Change(working.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0].JobState, p.Images[1].JobState = catalog.Queued, catalog.Processing
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
