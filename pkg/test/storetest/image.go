package storetest

import (
	"fmt"
	"slices"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

func imagesAddedRemovedAndMoved(f *Fixture) {
	p := f.Product(4)
	first, last := Finished(p.Images[0], "products/1/1/1-a/"), p.Images[3]
	var at time.Time
	edited, err := f.Store.Edit(f.Context(), p.ID, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
		at = now
		Arrange(p, last, NewImage(0, last.SourceURL), first, NewImage(0, "https://images.example.com/new.jpg"))
		p.Version++
		return catalog.Change{}, nil
	})
	f.Must(err, "edit")
	got := f.Load(p.ID)
	f.Same(got, edited, "the product as read, compared with the result of Edit")
	first.Position, last.Position = 2, 0
	f.Same(got.Images[0], last, "the image that was last")
	f.Same(got.Images[2], first, "the finished image that moved")
	seen := map[catalog.ImageID]bool{}
	for _, img := range p.Images {
		seen[img.ID] = true
	}
	for _, i := range []int{1, 3} {
		img := got.Images[i]
		if img.ID == 0 || seen[img.ID] || img.ProductID != p.ID {
			f.Errorf("a new image is %d of product %d, want a new id", img.ID, img.ProductID)
		}
		seen[img.ID] = true
		if !img.RequestedAt.Equal(at.Truncate(time.Microsecond)) || !img.DueAt.Equal(img.RequestedAt) ||
			!img.NotBefore.Equal(img.RequestedAt) {
			f.Errorf("a new image was requested at %s and is due at %s, want %s", img.RequestedAt, img.DueAt, at)
		}
	}
	f.Same(got.ImageURLs, []string{
		last.SourceURL, last.SourceURL, first.SourceURL, "https://images.example.com/new.jpg",
	}, "product_images")
}

func twoImagesSwap(f *Fixture) {
	p := f.Product(3)
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		Arrange(p, p.Images[1], p.Images[0], p.Images[2])
		return catalog.Change{}
	})
	want := slices.Clone(p.Images)
	want[0], want[1] = want[1], want[0]
	want[0].Position, want[1].Position = 0, 1
	f.Same(f.Load(p.ID).Images, want, "the images")
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		f.Same(p.Images, want, "what the next edit sees")
		return catalog.Change{}
	})
}

func allImagesMoveUp(f *Fixture) {
	p := f.Product(catalog.MaxImages)
	for n := catalog.MaxImages - 1; n > 0; n-- {
		edited := f.Change(p.ID, func(p *catalog.Product) catalog.Change {
			rest := slices.Clone(p.Images[1:])
			slices.Reverse(rest)
			Arrange(p, rest...)
			return catalog.Change{}
		})
		got := f.Load(p.ID)
		f.Same(got, edited, "the product")
		if len(got.Images) != n {
			f.Fatalf("got %d images, want %d", len(got.Images), n)
		}
	}
}

func allImagesReplaced(f *Fixture) {
	p := f.Product(2)
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		Arrange(p)
		return catalog.Change{}
	})
	if got := f.Load(p.ID); len(got.Images) != 0 || len(got.ImageURLs) != 0 {
		f.Errorf("got images %+v of %v, want none", got.Images, got.ImageURLs)
	}
	f.Change(p.ID, func(q *catalog.Product) catalog.Change {
		Arrange(q, NewImage(0, p.ImageURLs[0]))
		return catalog.Change{}
	})
	if got := f.Load(p.ID).Images; len(got) != 1 || got[0].ID <= p.Images[1].ID {
		f.Errorf("got %+v, want an image with a new id", got)
	}
}

func unstorableMessageUndoesImageChanges(f *Fixture) {
	p := f.Product(3)
	_, err := f.Store.Edit(f.Context(), p.ID, Unfailing(func(p *catalog.Product) catalog.Change {
		Arrange(p, p.Images[2], NewImage(0, "https://images.example.com/new.jpg"), p.Images[0])
		p.Version++
		broken := Message(p.ID)
		broken.ID = "not a UUID"
		return catalog.Change{
			Deletions: []catalog.ScheduledDeletion{{Prefix: "products/1/1/1-a/", ImageID: p.Images[0].ID}},
			Outbox:    []catalog.Outgoing{{Message: Message(p.ID)}, {Message: broken}},
		}
	}))
	if err == nil {
		f.Error("a message without a UUID was accepted")
	}
	f.Same(f.Load(p.ID), p, "the product")
	f.WantError(f.CancelDeletions(p.ID, "products/1/1/1-a/"), catalog.ErrDeletionStarted, "cancel a deletion that was undone")
	f.Same(len(f.takeDue()), 0, "due messages")
}

func inconsistentImagesAreRefused(f *Fixture) {
	const url = "https://example.com/a.jpg"
	p, foreign := f.Product(2), f.Product(1).Images[0]
	for name, fn := range map[string]func(p *catalog.Product){
		"added beyond the end":     func(p *catalog.Product) { p.Images = append(p.Images, NewImage(5, url)) },
		"added over another":       func(p *catalog.Product) { p.Images = append(p.Images, NewImage(1, url)) },
		"moved away":               func(p *catalog.Product) { p.Images[0].Position = 5 },
		"left a gap":               func(p *catalog.Product) { p.Images = p.Images[1:] },
		"swapped without position": func(p *catalog.Product) { p.Images[0], p.Images[1] = p.Images[1], p.Images[0] },
		"of another source":        func(p *catalog.Product) { p.Images[0].SourceURL = "https://example.com/other.jpg" },
		"of another product":       func(p *catalog.Product) { p.Images[1].ProductID = foreign.ProductID },
		"of an unknown id":         func(p *catalog.Product) { Arrange(p, p.Images[0], p.Images[1], foreign) },
		"twice":                    func(p *catalog.Product) { Arrange(p, p.Images[0], p.Images[0]) },
		"of a missing id":          func(p *catalog.Product) { p.Images[1].ID += 1000 },
	} {
		_, err := f.Store.Edit(f.Context(), p.ID, Unfailing(func(p *catalog.Product) catalog.Change {
			fn(p)
			return catalog.Change{}
		}))
		f.WantKind(err, fault.Internal, name)
	}
	f.Same(f.Load(p.ID), p, "the product")
	if got := f.Load(foreign.ProductID).Images; len(got) != 1 || got[0].ID != foreign.ID {
		f.Errorf("the other product has %+v, want its own image", got)
	}
}

func revisionNeverFalls(f *Fixture) {
	p := f.Product(0)
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Revision++
		return catalog.Change{}
	})
	if got := f.Load(p.ID).Revision; got != 2 {
		f.Errorf("got revision %d, want 2", got)
	}
	_, err := f.Store.Edit(f.Context(), p.ID, Unfailing(func(p *catalog.Product) catalog.Change {
		p.Revision--
		return catalog.Change{}
	}))
	f.WantKind(err, fault.Internal, "an older revision")
	page, err := f.Store.List(f.Context(), catalog.Query{UserID: p.UserID, Sort: catalog.NewestFirst, Limit: 10})
	f.Must(err, "list")
	if len(page.Products) != 1 || page.Products[0].Revision != 2 {
		f.Errorf("got %+v, want revision 2 in a list, too", page.Products)
	}
}

// removedImageKeepsScheduledDeletions removes an image whose attempt has stored objects. The deletions that
// the attempt and the edit have scheduled stay.
func removedImageKeepsScheduledDeletions(f *Fixture) {
	p := f.Product(1)
	f.ScheduleDeletion(p.ID, "products/1/1/1-a/", 0)
	prefix := fmt.Sprintf("products/%d/%d/2-b/", p.ID, p.Images[0].ID)
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		removed := p.Images[0]
		Arrange(p)
		return catalog.Change{Deletions: []catalog.ScheduledDeletion{{Prefix: prefix, ImageID: removed.ID}}}
	})
	f.Must(f.CancelDeletions(p.ID, "products/1/1/1-a/", prefix), "cancel both deletions")
}
