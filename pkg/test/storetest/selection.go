package storetest

import (
	"time"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/media"
	"vitrine.io/pkg/worker"
)

func selections() []test {
	return []test{
		{name: "each condition selects the pictures that it says", run: selected},
		{name: "a selection leaves out what is in work and what is deleted", run: notSelected},
		{name: "a selection goes on after the last picture", run: selectedByPages},
	}
}

// pick returns what is selected, and after which picture there may be more.
func (b *bench) pick(which catalog.Selection, after catalog.ImageID, limit int) ([]worker.Picture, catalog.ImageID) {
	b.Helper()
	found, next, err := b.Selected.SelectImages(b.ctx(), which, after, limit)
	b.must(err, "select images")
	return found, next
}

// idle ends every picture's work.
func (b *bench) idle(p catalog.Product) catalog.Product {
	b.Helper()
	return b.change(p.ID, func(p *catalog.Product) catalog.Change {
		for i := range p.Images {
			p.Images[i] = finished(p.Images[i], "products/1/1/1-a/")
		}
		return catalog.Change{}
	})
}

func selected(b *bench) {
	p := b.idle(b.product(5))
	var at time.Time
	p, err := b.Store.Edit(b.ctx(), p.ID, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
		at = now
		img := p.Images
		img[0].Status, img[0].ErrorCode = catalog.Failed, media.HTTPStatus
		img[1].Status, img[1].ErrorCode, img[1].RequestedAt = catalog.Failed, media.Timeout, now.Add(-2*time.Hour)
		img[2].RemakeError, img[2].PipelineHash = media.Timeout, "old"
		img[3].RequestedAt = now.Add(-2 * time.Hour)
		return catalog.Change{}, nil
	})
	b.must(err, "edit")
	for name, row := range map[string]struct {
		which catalog.Selection
		want  []int
	}{
		"no condition":       {catalog.Selection{}, []int{0, 1, 2, 3, 4}},
		"failed":             {catalog.Selection{Status: catalog.Failed}, []int{0, 1}},
		"ready":              {catalog.Selection{Status: catalog.Ready}, []int{2, 3, 4}},
		"a code":             {catalog.Selection{Code: media.Timeout}, []int{1, 2}},
		"another code":       {catalog.Selection{Code: media.HTTPStatus}, []int{0}},
		"a code that is not": {catalog.Selection{Code: media.Corrupt}, nil},
		"older":              {catalog.Selection{OlderThan: time.Hour}, []int{1, 3}},
		"older by far":       {catalog.Selection{OlderThan: 24 * time.Hour}, nil},
		"a pipeline":         {catalog.Selection{PipelineHash: "old"}, []int{2}},
		"two conditions":     {catalog.Selection{Status: catalog.Failed, OlderThan: time.Hour}, []int{1}},
		"all conditions": {catalog.Selection{
			Status: catalog.Failed, Code: media.Timeout, OlderThan: time.Hour, PipelineHash: "hash",
		}, []int{1}},
	} {
		var want []worker.Picture
		for _, i := range row.want {
			want = append(want, worker.Picture{ProductID: p.ID, ImageID: p.Images[i].ID})
		}
		found, next := b.pick(row.which, 0, 10)
		b.same(found, want, name)
		b.same(next, catalog.ImageID(0), name+": more")
		for i, img := range p.Images { // what the store selects is what the catalogue means
			meant := row.which.Matches(img, at)
			found := false
			for _, k := range row.want {
				found = found || k == i
			}
			if meant != found {
				b.Errorf("%s: picture %d matches: %v, is selected: %v", name, i, meant, found)
			}
		}
	}
}

func notSelected(b *bench) {
	working, gone, kept := b.idle(b.product(2)), b.idle(b.product(1)), b.idle(b.product(1))
	b.change(working.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0].Work, p.Images[1].Work = catalog.Queued, catalog.Processing
		return catalog.Change{}
	})
	b.remove(gone.ID)
	found, _ := b.pick(catalog.Selection{}, 0, 10)
	b.same(found, []worker.Picture{{ProductID: kept.ID, ImageID: kept.Images[0].ID}}, "selected")
}

func selectedByPages(b *bench) {
	var want []worker.Picture
	for range 3 {
		p := b.idle(b.product(3))
		for _, img := range p.Images {
			want = append(want, worker.Picture{ProductID: p.ID, ImageID: img.ID})
		}
	}
	var got []worker.Picture
	for after := catalog.ImageID(0); ; {
		page, next := b.pick(catalog.Selection{Status: catalog.Ready}, after, 4)
		got = append(got, page...)
		if next == 0 {
			break
		}
		b.same(next, page[len(page)-1].ImageID, "next")
		after = next
	}
	b.same(got, want, "all pages")
}
