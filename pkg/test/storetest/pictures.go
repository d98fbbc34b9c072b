package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/fault"
)

func pictures() []test {
	return []test{
		{name: "pictures come, go and change places in one edit", run: rearranged},
		{name: "two pictures change places", run: swapped},
		{name: "every picture moves when the first one goes", run: movedUp},
		{name: "all pictures may go, and come back as new ones", run: allGone},
		{name: "new pictures are announced with their ids", run: announcedLater},
		{name: "announcing is a change by itself", run: announcedAlone},
		{name: "a message that cannot be stored undoes what became of the pictures", run: rearrangingUndone},
		{name: "an edit leaves no gap, knows each picture once, and never changes a source", run: refusedPictures},
		{name: "a revision is kept, and never falls", run: revisions},
		{name: "what a picture leaves behind goes on without it", run: outlived},
	}
}

// another returns a picture that is asked for.
func another(position int, url string) catalog.Image {
	return catalog.Image{
		Position: position, SourceURL: url, Status: catalog.Pending, Work: catalog.Queued, Ticket: uuid.NewString(),
		PipelineHash: "hash",
	}
}

// arrange gives a product those pictures, each at its place.
func arrange(p *catalog.Product, images ...catalog.Image) {
	p.Images, p.ImageURLs = images, nil
	for i := range p.Images {
		p.Images[i].Position = i
		p.ImageURLs = append(p.ImageURLs, p.Images[i].SourceURL)
	}
}

func rearranged(b *bench) {
	p := b.product(4)
	first, last := finished(p.Images[0], "products/1/1/1-a/"), p.Images[3]
	var at time.Time
	edited, err := b.Store.Edit(b.ctx(), p.ID, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
		at = now
		arrange(p, last, another(0, last.SourceURL), first, another(0, "https://pictures.example.com/new.jpg"))
		p.Version++
		return catalog.Change{}, nil
	})
	b.must(err, "edit")
	got := b.load(p.ID)
	b.same(got, edited, "the product as read, beside what Edit returned")
	first.Position, last.Position = 2, 0
	b.same(got.Images[0], last, "the picture that came from the end")
	b.same(got.Images[2], first, "the picture that was finished and moved")
	seen := map[catalog.ImageID]bool{}
	for _, img := range p.Images {
		seen[img.ID] = true
	}
	for _, i := range []int{1, 3} {
		img := got.Images[i]
		if img.ID == 0 || seen[img.ID] || img.ProductID != p.ID {
			b.Errorf("a new picture is %d of product %d, want an id of its own", img.ID, img.ProductID)
		}
		seen[img.ID] = true
		if !img.RequestedAt.Equal(at.Truncate(time.Microsecond)) || !img.DueAt.Equal(img.RequestedAt) {
			b.Errorf("a new picture was requested at %s and is due at %s, want %s", img.RequestedAt, img.DueAt, at)
		}
	}
	b.same(got.ImageURLs, []string{
		last.SourceURL, last.SourceURL, first.SourceURL, "https://pictures.example.com/new.jpg",
	}, "product_images")
}

func swapped(b *bench) {
	p := b.product(3)
	b.change(p.ID, func(p *catalog.Product) catalog.Change {
		arrange(p, p.Images[1], p.Images[0], p.Images[2])
		return catalog.Change{}
	})
	want := slices.Clone(p.Images)
	want[0], want[1] = want[1], want[0]
	want[0].Position, want[1].Position = 0, 1
	b.same(b.load(p.ID).Images, want, "the pictures")
	b.change(p.ID, func(p *catalog.Product) catalog.Change {
		b.same(p.Images, want, "what the next edit sees")
		return catalog.Change{}
	})
}

func movedUp(b *bench) {
	p := b.product(catalog.MaxImages)
	for left := catalog.MaxImages - 1; left > 0; left-- {
		edited := b.change(p.ID, func(p *catalog.Product) catalog.Change {
			rest := slices.Clone(p.Images[1:])
			slices.Reverse(rest)
			arrange(p, rest...)
			return catalog.Change{}
		})
		got := b.load(p.ID)
		b.same(got, edited, "the product")
		if len(got.Images) != left {
			b.Fatalf("got %d pictures, want %d", len(got.Images), left)
		}
	}
}

func allGone(b *bench) {
	p := b.product(2)
	b.change(p.ID, func(p *catalog.Product) catalog.Change {
		arrange(p)
		return catalog.Change{}
	})
	if got := b.load(p.ID); len(got.Images) != 0 || len(got.ImageURLs) != 0 {
		b.Errorf("got pictures %+v of %v, want none", got.Images, got.ImageURLs)
	}
	b.change(p.ID, func(q *catalog.Product) catalog.Change {
		arrange(q, another(0, p.ImageURLs[0]))
		return catalog.Change{}
	})
	if got := b.load(p.ID).Images; len(got) != 1 || got[0].ID <= p.Images[1].ID {
		b.Errorf("got %+v, want a picture that never was", got)
	}
}

func announcedLater(b *bench) {
	p := b.product(2)
	var seen []catalog.Product
	first, second := message(p.ID), message(p.ID)
	edited := b.change(p.ID, func(p *catalog.Product) catalog.Change {
		arrange(p, another(0, "https://pictures.example.com/new.jpg"), p.Images[1], p.Images[0])
		return catalog.Change{
			Outbox: []catalog.Outgoing{{Message: first}},
			Announce: func(p catalog.Product) []catalog.Outgoing {
				seen = append(seen, p)
				return []catalog.Outgoing{{Message: second}}
			},
		}
	})
	b.same(seen, []catalog.Product{edited}, "what announce saw")
	if edited.Images[0].ID == 0 {
		b.Error("the new picture was announced without an id")
	}
	sent, _ := b.drain(10, nil)
	if len(sent) != 2 || sent[0].ID != first.ID || sent[1].ID != second.ID {
		b.Errorf("got %v, want both messages", sent)
	}
}

func announcedAlone(b *bench) {
	p := b.product(1)
	b.change(p.ID, func(*catalog.Product) catalog.Change {
		return catalog.Change{Announce: func(p catalog.Product) []catalog.Outgoing {
			return []catalog.Outgoing{{Message: message(p.ID)}}
		}}
	})
	b.same(b.depth().Due, int64(1), "waiting")
}

func rearrangingUndone(b *bench) {
	p := b.product(3)
	_, err := b.Store.Edit(b.ctx(), p.ID, unfailing(func(p *catalog.Product) catalog.Change {
		arrange(p, p.Images[2], another(0, "https://pictures.example.com/new.jpg"), p.Images[0])
		p.Version++
		return catalog.Change{
			Intents: []catalog.Intent{{Prefix: "products/1/1/1-a/", ImageID: p.Images[0].ID}},
			Announce: func(p catalog.Product) []catalog.Outgoing {
				broken := message(p.ID)
				broken.ID = "not a UUID"
				return []catalog.Outgoing{{Message: message(p.ID)}, {Message: broken}}
			},
		}
	}))
	if err == nil {
		b.Error("a message without a UUID was taken")
	}
	b.same(b.load(p.ID), p, "the product")
	b.same(b.doom(10, 0), []string{}, "intents")
	b.same(b.depth().Due, int64(0), "waiting")
}

func refusedPictures(b *bench) {
	p, foreign := b.product(2), b.product(1).Images[0]
	for name, fn := range map[string]func(p *catalog.Product){
		"added beyond the end": func(p *catalog.Product) { p.Images = append(p.Images, another(5, "https://example.com/a.jpg")) },
		"added over another":   func(p *catalog.Product) { p.Images = append(p.Images, another(1, "https://example.com/a.jpg")) },
		"moved away":           func(p *catalog.Product) { p.Images[0].Position = 5 },
		"left a gap":           func(p *catalog.Product) { p.Images = p.Images[1:] },
		"swapped by halves":    func(p *catalog.Product) { p.Images[0], p.Images[1] = p.Images[1], p.Images[0] },
		"of another source":    func(p *catalog.Product) { p.Images[0].SourceURL = "https://example.com/other.jpg" },
		"of another product":   func(p *catalog.Product) { p.Images[1].ProductID = foreign.ProductID },
		"a stranger":           func(p *catalog.Product) { arrange(p, p.Images[0], p.Images[1], foreign) },
		"twice":                func(p *catalog.Product) { arrange(p, p.Images[0], p.Images[0]) },
		"one that never was":   func(p *catalog.Product) { p.Images[1].ID += 1000 },
	} {
		_, err := b.Store.Edit(b.ctx(), p.ID, unfailing(func(p *catalog.Product) catalog.Change {
			fn(p)
			return catalog.Change{}
		}))
		b.kind(err, fault.Internal, name)
	}
	b.same(b.load(p.ID), p, "the product")
	if got := b.load(foreign.ProductID).Images; len(got) != 1 || got[0].ID != foreign.ID {
		b.Errorf("the other product has %+v, want its own picture", got)
	}
}

func revisions(b *bench) {
	p := b.product(0)
	b.change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Revision++
		return catalog.Change{}
	})
	if got := b.load(p.ID).Revision; got != 2 {
		b.Errorf("got revision %d, want 2", got)
	}
	_, err := b.Store.Edit(b.ctx(), p.ID, unfailing(func(p *catalog.Product) catalog.Change {
		p.Revision--
		return catalog.Change{}
	}))
	b.kind(err, fault.Internal, "an older revision")
	page, err := b.Store.List(b.ctx(), catalog.Query{UserID: p.UserID, Sort: catalog.NewestFirst, Limit: 10})
	b.must(err, "list")
	if len(page.Products) != 1 || page.Products[0].Revision != 2 {
		b.Errorf("got %+v, want revision 2 in a list, too", page.Products)
	}
}

// outlived drops a picture whose attempt has objects: their intent must stay, and so must what is said of them later.
func outlived(b *bench) {
	p := b.product(1)
	b.intend(p.ID, "products/1/1/1-a/", 0)
	b.change(p.ID, func(p *catalog.Product) catalog.Change {
		gone := p.Images[0]
		arrange(p)
		return catalog.Change{Intents: []catalog.Intent{{
			Prefix: fmt.Sprintf("products/%d/%d/2-b/", p.ID, gone.ID), ImageID: gone.ID,
		}}}
	})
	if got := b.doom(10, 0); len(got) != 2 {
		b.Errorf("got %v, want the attempt's prefix and the published one", got)
	}
}
