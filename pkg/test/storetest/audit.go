package storetest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/media"
	"vitrine.io/pkg/worker"
)

func audits() []test {
	return []test{
		{name: "a turn is one caller's, and then not due", run: turns},
		{name: "a cursor is kept until the next turn", run: cursors},
		{name: "of many who come for a turn one takes it", run: raceForTurn},
		{name: "what a row or an intent speaks for is referenced", run: referenced},
		{name: "what nothing speaks for becomes an intent, once", run: condemned},
		{name: "pictures that are ready and idle are published, in the order of their ids", run: published},
	}
}

// turn asks for a turn.
func (b *bench) turn(name string, interval time.Duration) (cursor string, mine bool) {
	b.Helper()
	cursor, mine, err := b.Turns.TakeTurn(b.ctx(), name, interval)
	b.must(err, "take turn")
	return cursor, mine
}

func turns(b *bench) {
	for _, want := range []bool{true, false, false} {
		if cursor, mine := b.turn("objects", time.Hour); mine != want || cursor != "" {
			b.Errorf("got %q, %v, want %v", cursor, mine, want)
		}
	}
	if _, mine := b.turn("rows", time.Hour); !mine {
		b.Error("another's turn was taken")
	}
	for range 3 {
		if _, mine := b.turn("always", -time.Second); !mine {
			b.Error("a turn that is due was refused")
		}
	}
}

func cursors(b *bench) {
	save := func(cursor string, wait time.Duration) {
		b.must(b.Turns.SaveCursor(b.ctx(), "objects", cursor, wait), "save cursor")
	}
	b.turn("objects", time.Hour)
	save("products/7/", -time.Second)
	if cursor, mine := b.turn("objects", time.Hour); cursor != "products/7/" || !mine {
		b.Errorf("got %q, %v, want what was saved", cursor, mine)
	}
	if _, mine := b.turn("objects", time.Hour); mine {
		b.Error("a turn that was due was taken twice")
	}
	save("products/8/", time.Hour)
	if cursor, mine := b.turn("objects", time.Hour); mine {
		b.Errorf("got %q before the wait was over", cursor)
	}
	save("", -time.Second)
	if cursor, mine := b.turn("objects", time.Hour); cursor != "" || !mine {
		b.Errorf("got %q, %v, want the beginning", cursor, mine)
	}
}

func raceForTurn(b *bench) {
	for round := range 5 {
		var taken atomic.Int64
		var group sync.WaitGroup
		for range 6 {
			group.Go(func() {
				_, mine, err := b.Turns.TakeTurn(b.ctx(), fmt.Sprint("round ", round), time.Hour)
				if err != nil {
					b.Errorf("take turn: %v", err)
				}
				if mine {
					taken.Add(1)
				}
			})
		}
		group.Wait()
		if got := taken.Load(); got != 1 {
			b.Errorf("%d took the turn, want one", got)
		}
	}
}

// prefixOf is where an attempt at a product's n-th picture puts its objects.
func prefixOf(p catalog.Product, n int, attempt string) string {
	return fmt.Sprintf("products/%d/%d/%s/", p.ID, p.Images[n].ID, attempt)
}

// unreferenced asks for prefixes of a product's n-th picture.
func (b *bench) unreferenced(p catalog.Product, n int, attempts ...string) []string {
	b.Helper()
	asked := make([]catalog.Intent, len(attempts))
	for i, attempt := range attempts {
		asked[i] = catalog.Intent{Prefix: prefixOf(p, n, attempt), ImageID: p.Images[n].ID, Due: time.Minute}
	}
	found, err := b.Books.Unreferenced(b.ctx(), asked)
	b.must(err, "look for references")
	names := make([]string, 0, len(found))
	for _, f := range found {
		if f.ImageID != p.Images[n].ID || f.Due != time.Minute {
			b.Errorf("got %+v, want what was asked about", f)
		}
		for i, attempt := range attempts {
			if asked[i].Prefix == f.Prefix {
				names = append(names, attempt)
			}
		}
	}
	return names
}

// publish makes a product's n-th picture ready with two objects below an attempt's prefix.
func (b *bench) publish(p catalog.Product, n int, attempt string) catalog.Product {
	b.Helper()
	return b.change(p.ID, func(p *catalog.Product) catalog.Change {
		prefix := prefixOf(*p, n, attempt)
		p.Images[n].Status, p.Images[n].Work, p.Images[n].Prefix = catalog.Ready, catalog.Idle, prefix
		p.Images[n].Ticket, p.Images[n].Fence = "", p.Images[n].Fence+1
		p.Images[n].Renditions = []catalog.Rendition{
			{Name: "full", Format: "jpeg", Width: 10, Height: 10, Bytes: 7, Key: prefix + "full.jpg", Default: true},
			{Name: "card", Format: "jpeg", Width: 10, Height: 10, Bytes: 7, Key: prefix + "full.jpg"},
			{Name: "card", Format: "webp", Width: 10, Height: 10, Bytes: 5, Key: prefix + "card.webp"},
		}
		p.Version++
		return catalog.Change{}
	})
}

func referenced(b *bench) {
	p := b.publish(b.product(2), 0, "4-live")
	b.change(p.ID, func(p *catalog.Product) catalog.Change { // remade: the old objects are still shown
		p.Images[0].Work, p.Images[0].Prefix = catalog.Processing, prefixOf(*p, 0, "6-work")
		return catalog.Change{}
	})
	b.intend(p.ID, prefixOf(p, 0, "5-dying"), time.Hour)
	b.intend(p.ID, prefixOf(p, 0, "3-doomed"), 0)
	b.doom(1, time.Hour)
	all := []string{"1-gone", "2-gone", "3-doomed", "4-liv", "4-live", "5-dying", "6-work", "7-gone"}
	b.same(b.unreferenced(p, 0, all...), []string{"1-gone", "2-gone", "4-liv", "7-gone"}, "unreferenced")
	b.change(p.ID, func(p *catalog.Product) catalog.Change { // handed back: it may be storing still
		p.Images[0].Work = catalog.Queued
		return catalog.Change{}
	})
	b.same(b.unreferenced(p, 0, "4-live", "6-work"), []string{}, "unreferenced while queued")
	b.same(b.unreferenced(p, 1, "4-live"), []string{"4-live"}, "below a picture that is not ready")
	b.same(b.unreferenced(p, 1), []string{}, "nothing asked")

	b.change(p.ID, func(p *catalog.Product) catalog.Change { // idle again: only what is shown counts
		p.Images[0].Work = catalog.Idle
		return catalog.Change{}
	})
	b.same(b.unreferenced(p, 0, "4-live", "6-work"), []string{"6-work"}, "unreferenced once idle")
	b.remove(p.ID)
	b.same(b.unreferenced(p, 0, "4-live", "5-dying"), []string{"4-live"}, "unreferenced once the product is deleted")
}

func condemned(b *bench) {
	p := b.publish(b.product(1), 0, "2-live")
	b.intend(p.ID, prefixOf(p, 0, "3-dying"), time.Hour)
	condemn := func() int {
		var asked []catalog.Intent
		for _, attempt := range []string{"1-gone", "2-live", "3-dying"} {
			asked = append(asked, catalog.Intent{Prefix: prefixOf(p, 0, attempt), ImageID: p.Images[0].ID, Due: -time.Second})
		}
		n, err := b.Books.Condemn(b.ctx(), asked)
		b.must(err, "condemn")
		return n
	}
	for _, want := range []int{1, 0} {
		if got := condemn(); got != want {
			b.Errorf("got %d condemned, want %d", got, want)
		}
	}
	b.same(b.doom(10, time.Hour), []string{prefixOf(p, 0, "1-gone")}, "doomed")
	if got := condemn(); got != 0 {
		b.Errorf("got %d condemned that is doomed already", got)
	}
	later := catalog.Intent{Prefix: prefixOf(p, 0, "4-gone"), ImageID: p.Images[0].ID, Due: time.Hour}
	if n, err := b.Books.Condemn(b.ctx(), []catalog.Intent{later}); err != nil || n != 1 {
		b.Errorf("got %d condemned and %v, want one", n, err)
	}
	b.same(b.doom(10, time.Hour), []string{}, "doomed before the grace is over")
}

func published(b *bench) {
	p, deleted := b.product(4), b.product(1)
	for _, n := range []int{2, 0, 1} {
		p = b.publish(p, n, fmt.Sprint(n+1, "-a"))
	}
	b.change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[1].Work = catalog.Queued
		p.Images[2].RemakeError = media.HTTPStatus
		p.Images[3].Status, p.Images[3].Work, p.Images[3].Ticket = catalog.Failed, catalog.Idle, ""
		return catalog.Change{}
	})
	p.Images[2].RemakeError = media.HTTPStatus
	b.publish(deleted, 0, "1-a")
	b.remove(deleted.ID)
	of := func(n int) worker.Published {
		prefix := prefixOf(p, n, fmt.Sprint(n+1, "-a"))
		return worker.Published{
			Picture: worker.Picture{ProductID: p.ID, ImageID: p.Images[n].ID}, Fence: p.Images[n].Fence,
			RemakeError: p.Images[n].RemakeError,
			Objects:     []worker.Object{{Key: prefix + "card.webp", Size: 5}, {Key: prefix + "full.jpg", Size: 7}},
		}
	}
	list := func(after catalog.ImageID, limit int) []worker.Published {
		found, err := b.Books.Published(b.ctx(), after, limit)
		b.must(err, "list what is published")
		return found
	}
	b.same(list(0, 10), []worker.Published{of(0), of(2)}, "published")
	b.same(list(0, 1), []worker.Published{of(0)}, "the first")
	b.same(list(p.Images[0].ID, 1), []worker.Published{of(2)}, "the one after it")
	b.same(list(p.Images[2].ID, 10), []worker.Published{}, "after the last")
}
