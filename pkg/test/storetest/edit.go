package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/fault"
	"vitrine.io/pkg/media"
	"vitrine.io/pkg/pipeline"
)

// unfailing makes an Edit function of one that cannot fail and does not need the time.
func unfailing(fn func(*catalog.Product) catalog.Change) func(*catalog.Product, time.Time) (catalog.Change, error) {
	return func(p *catalog.Product, _ time.Time) (catalog.Change, error) { return fn(p), nil }
}

// finished returns img as an attempt with that prefix leaves it.
func finished(img catalog.Image, prefix string) catalog.Image {
	img.Status, img.Work, img.Ticket, img.Prefix = catalog.Ready, catalog.Idle, "", prefix
	img.Width, img.Height, img.Placeholder, img.Attempts = 4000, 3000, "1QcSHQRnh493V4dIh4eXh1h4kJUI", 1
	img.SourceSHA256, img.SourceBytes = "00ff", 123456
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

func edits() []test {
	return []test{
		{name: "an edit writes every field", run: everyField},
		{name: "an edit of one field alone is written", run: oneField},
		{name: "an edit clears every field", run: clearedFields},
		{name: "an edit sees the pictures in their order and the database's time", run: editSees},
		{name: "only a new version moves the update time", run: updateTime},
		{name: "an edit that changes nothing writes nothing", run: nothingChanged},
		{name: "an error of the function undoes everything and comes back as it is", run: functionFails},
		{name: "a panic of the function undoes everything and frees the product", run: functionPanics},
		{name: "a message that cannot be stored undoes the edit", run: editUndone},
		{name: "a version never falls", run: versionFalls},
	}
}

func everyField(b *bench) {
	p := b.product(3)
	edited := b.change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Name, p.Description, p.Price = "Desk", "A desk.", decimal.RequireFromString("99.99")
		p.Images[0] = finished(p.Images[0], "products/1/1/1-a/")
		img := &p.Images[2]
		img.Status, img.ErrorCode, img.ErrorDetail = catalog.Failed, media.HTTPStatus, "404 not found"
		img.Work, img.Ticket, img.Fence, img.Begins, img.Attempts = catalog.Processing, uuid.NewString(), 7, 2, 3
		img.RemakeError, img.PipelineHash, img.KillerSHA256 = media.Corrupt, "another", "00aa"
		img.RequestedAt = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC) // finer than microseconds
		img.DueAt = img.RequestedAt.Add(time.Minute)
		p.Compressed = p.CompressedKeys()
		p.Version++
		return catalog.Change{}
	})
	got := b.load(p.ID)
	b.same(got, edited, "the product as read, beside what Edit returned")
	b.same(got.Images[1], p.Images[1], "the picture that nobody touched")
	if got.Name != "Desk" || got.Description != "A desk." || got.Price.String() != "99.99" || got.Version != 2 {
		b.Errorf("got %+v, want the edit", got)
	}
	b.same(got.Images[0], finished(p.Images[0], "products/1/1/1-a/"), "the finished picture")
	if d := got.Images[0].Dropped; len(d) != 2 || d[1].Reason != media.LargerThanSibling {
		b.Errorf("got %+v of what was dropped, want both", d)
	}
	b.same(got.Compressed, []string{"products/1/1/1-a/full.jpg"}, "compressed")
	img := got.Images[2]
	if img.Fence != 7 || img.Begins != 2 || img.Attempts != 3 || img.RemakeError != media.Corrupt ||
		img.ErrorDetail != "404 not found" || img.KillerSHA256 != "00aa" || img.DueAt.Sub(img.RequestedAt) != time.Minute {
		b.Errorf("got %+v, want the edit", img)
	}
}

func oneField(b *bench) {
	p := b.product(0)
	for name, fn := range map[string]func(p *catalog.Product){
		"name":        func(p *catalog.Product) { p.Name = "Desk" },
		"description": func(p *catalog.Product) { p.Description = "A desk." },
		"price":       func(p *catalog.Product) { p.Price = decimal.RequireFromString("99.99") },
		"compressed":  func(p *catalog.Product) { p.Compressed = []string{"products/1/1/1-a/full.jpg"} },
	} {
		want := b.change(p.ID, func(p *catalog.Product) catalog.Change { fn(p); return catalog.Change{} })
		b.same(b.load(p.ID), want, name)
	}
}

func clearedFields(b *bench) {
	p := b.product(1)
	full := b.change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0] = finished(p.Images[0], "products/1/1/1-a/")
		p.Images[0].KillerSHA256 = "00aa"
		p.Compressed = p.CompressedKeys()
		return catalog.Change{}
	})
	if full.Images[0].Ticket != "" || len(full.Compressed) != 1 {
		b.Fatalf("got %+v, want a finished picture", full)
	}
	b.change(p.ID, func(p *catalog.Product) catalog.Change {
		old := p.Images[0]
		p.Images[0] = catalog.Image{
			ID: old.ID, ProductID: old.ProductID, SourceURL: old.SourceURL, Status: catalog.Pending, Work: catalog.Idle,
		}
		p.Description, p.Compressed = "", nil
		return catalog.Change{}
	})
	got := b.load(p.ID)
	want := p.Images[0]
	b.same(got.Images[0], catalog.Image{
		ID: want.ID, ProductID: p.ID, SourceURL: want.SourceURL, Status: catalog.Pending, Work: catalog.Idle,
	}, "the picture")
	if got.Description != "" || len(got.Compressed) != 0 {
		b.Errorf("got %q and %v, want neither", got.Description, got.Compressed)
	}
}

func editSees(b *bench) {
	p := b.product(3)
	_, err := b.Store.Edit(b.ctx(), p.ID, func(seen *catalog.Product, now time.Time) (catalog.Change, error) {
		b.same(*seen, p, "what the function sees")
		if now.Before(p.CreatedAt) || now.Location() != time.UTC {
			b.Errorf("got now %s, want UTC after %s", now, p.CreatedAt)
		}
		return catalog.Change{}, nil
	})
	b.must(err, "edit")
}

func updateTime(b *bench) {
	p := b.product(1)
	quiet := b.change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0].Fence++
		return catalog.Change{}
	})
	if !quiet.UpdatedAt.Equal(p.UpdatedAt) {
		b.Errorf("got %s, want still %s: no client can see a fence", quiet.UpdatedAt, p.UpdatedAt)
	}
	visible := b.change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Version++
		return catalog.Change{}
	})
	if !visible.UpdatedAt.After(p.UpdatedAt) {
		b.Errorf("got %s, want after %s", visible.UpdatedAt, p.UpdatedAt)
	}
	b.same(b.load(p.ID), visible, "the product")
}

func nothingChanged(b *bench) {
	p := b.product(2)
	got := b.change(p.ID, func(*catalog.Product) catalog.Change { return catalog.Change{} })
	b.same(got, p, "what Edit returns")
	b.same(b.load(p.ID), p, "the product")
}

func functionFails(b *bench) {
	p := b.product(1)
	for _, want := range []error{
		errors.New("no"), catalog.ErrSuperseded, fmt.Errorf("ask: %w", context.DeadlineExceeded),
	} {
		_, err := b.Store.Edit(b.ctx(), p.ID, func(p *catalog.Product, _ time.Time) (catalog.Change, error) {
			p.Version++
			p.Images[0].Fence++
			return catalog.Change{Outbox: []catalog.Outgoing{{Message: message(p.ID)}}}, want
		})
		if err != want { //nolint:errorlint // as it is means unwrapped
			b.Errorf("got %v, want %v itself", err, want)
		}
	}
	b.same(b.load(p.ID), p, "the product")
	if seen, _ := b.drain(10, nil); len(seen) != 0 {
		b.Errorf("got %d messages, want none", len(seen))
	}
}

func functionPanics(b *bench) {
	p := b.product(1)
	func() {
		defer func() { _ = recover() }()
		_, _ = b.Store.Edit(b.ctx(), p.ID, func(p *catalog.Product, _ time.Time) (catalog.Change, error) {
			p.Version++
			panic("a defect")
		})
	}()
	b.same(b.load(p.ID), p, "the product")
	b.change(p.ID, func(p *catalog.Product) catalog.Change { // waits for ever if the lock was kept
		p.Version++
		return catalog.Change{}
	})
}

func editUndone(b *bench) {
	p := b.product(1)
	_, err := b.Store.Edit(b.ctx(), p.ID, unfailing(func(p *catalog.Product) catalog.Change {
		p.Version++
		p.Images[0].Fence++
		broken := message(p.ID)
		broken.ID = "not a UUID"
		return catalog.Change{
			Intents: []catalog.Intent{{Prefix: "products/1/1/1-a/", ImageID: p.Images[0].ID}},
			Outbox:  []catalog.Outgoing{{Message: broken}},
		}
	}))
	if err == nil {
		b.Error("a message without a UUID was taken")
	}
	b.same(b.load(p.ID), p, "the product")
	doomed, err := b.Intents.DoomDue(b.ctx(), 10, 0)
	b.must(err, "doom intents")
	b.same(doomed, []string{}, "intents")
}

func versionFalls(b *bench) {
	p := b.product(0)
	b.change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Version = 7 // one less would still be a version
		return catalog.Change{}
	})
	_, err := b.Store.Edit(b.ctx(), p.ID, unfailing(func(p *catalog.Product) catalog.Change {
		p.Version--
		return catalog.Change{}
	}))
	b.kind(err, fault.Internal, "an older version")
}

func deletions() []test {
	return []test{
		{name: "a deleted product keeps its id and version", run: deleted},
		{name: "a deleted product cannot be changed, but may send and intend", run: afterDeletion},
	}
}

// remove deletes a product as the catalogue does: its pictures stop, its version rises.
func (b *bench) remove(id catalog.ProductID) catalog.Product {
	b.Helper()
	return b.change(id, func(p *catalog.Product) catalog.Change {
		p.Deleted = true
		p.Version++
		for i := range p.Images {
			p.Images[i].Fence++
			p.Images[i].Work, p.Images[i].Ticket = catalog.Idle, ""
		}
		return catalog.Change{}
	})
}

func deleted(b *bench) {
	p := b.product(2)
	want := catalog.Product{ID: p.ID, Version: 2, Deleted: true}
	b.same(b.remove(p.ID), want, "what Edit returns")
	b.same(b.load(p.ID), want, "the product")
	b.nothingOf(p.UserID)
}

func afterDeletion(b *bench) {
	p := b.product(1)
	gone := b.remove(p.ID)
	_, err := b.Store.Edit(b.ctx(), p.ID, unfailing(func(p *catalog.Product) catalog.Change {
		b.same(*p, gone, "what the function sees")
		p.Version++
		return catalog.Change{}
	}))
	b.kind(err, fault.Internal, "a change")
	b.change(p.ID, func(p *catalog.Product) catalog.Change {
		return catalog.Change{
			Outbox:  []catalog.Outgoing{{Message: message(p.ID)}},
			Intents: []catalog.Intent{{Prefix: "products/1/1/1-a/", ImageID: 1}},
		}
	})
	sent, _ := b.drain(10, nil)
	doomed, err := b.Intents.DoomDue(b.ctx(), 10, 0)
	b.must(err, "doom intents")
	if len(sent) != 1 || len(doomed) != 1 {
		b.Errorf("got %d messages and %d intents, want one each", len(sent), len(doomed))
	}
}
