package storetest

import (
	"time"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/worker"
)

func intents() []test {
	return []test{
		{name: "an adopted prefix is never doomed", run: adopted},
		{name: "a prefix without an intent cannot be adopted", run: adoptMissing},
		{name: "a doomed prefix cannot be adopted", run: adoptDoomed},
		{name: "adopting takes all prefixes or none", run: adoptAll},
		{name: "only what is due is doomed, longest due first", run: doomOrder},
		{name: "what is being adopted is not waited for", run: doomBeside},
		{name: "a doomed intent comes again, until it is removed", run: doomedAgain},
		{name: "of two times for one prefix the later counts", run: laterCounts},
		{name: "an intent that is not doomed cannot be removed", run: removeUndoomed},
	}
}

// intend records an intent that is due after that long.
func (b *bench) intend(id catalog.ProductID, prefix string, due time.Duration) {
	b.Helper()
	b.change(id, func(p *catalog.Product) catalog.Change {
		return catalog.Change{Intents: []catalog.Intent{{Prefix: prefix, ImageID: p.Images[0].ID, Due: due}}}
	})
}

// adopt raises the version and adopts prefixes.
func (b *bench) adopt(id catalog.ProductID, prefixes ...string) error {
	_, err := b.Store.Edit(b.ctx(), id, unfailing(func(p *catalog.Product) catalog.Change {
		p.Version++
		return catalog.Change{Adopt: prefixes}
	}))
	return err
}

// doom dooms what is due.
func (b *bench) doom(limit int, again time.Duration) []string {
	b.Helper()
	prefixes, err := b.Intents.DoomDue(b.ctx(), limit, again)
	b.must(err, "doom intents")
	return prefixes
}

// doomed returns what is due for the second time.
func (b *bench) doomed(limit int) []string {
	b.Helper()
	prefixes, err := b.Intents.DoomedDue(b.ctx(), limit)
	b.must(err, "find doomed intents")
	return prefixes
}

func adopted(b *bench) {
	p := b.product(1)
	b.intend(p.ID, "products/1/1/1-a/", 0)
	b.must(b.adopt(p.ID, "products/1/1/1-a/"), "adopt")
	b.same(b.doom(10, 0), []string{}, "doomed")
	b.is(b.adopt(p.ID, "products/1/1/1-a/"), catalog.ErrDoomed, "adopt again")
	if got := b.load(p.ID).Version; got != 2 {
		b.Errorf("got version %d, want 2", got)
	}
}

func adoptMissing(b *bench) {
	p := b.product(1)
	b.is(b.adopt(p.ID, "products/1/1/1-a/"), catalog.ErrDoomed, "adopt")
	b.same(b.load(p.ID), p, "the product")
}

func adoptDoomed(b *bench) {
	p := b.product(1)
	b.intend(p.ID, "products/1/1/1-a/", 0)
	b.same(b.doom(10, time.Hour), []string{"products/1/1/1-a/"}, "doomed")
	b.is(b.adopt(p.ID, "products/1/1/1-a/"), catalog.ErrDoomed, "adopt")
	b.intend(p.ID, "products/1/1/1-a/", 0) // saying it again does not save it
	b.is(b.adopt(p.ID, "products/1/1/1-a/"), catalog.ErrDoomed, "adopt again")
	b.same(b.load(p.ID), p, "the product")
}

func adoptAll(b *bench) {
	p := b.product(1)
	b.intend(p.ID, "products/1/1/1-a/", 0)
	b.is(b.adopt(p.ID, "products/1/1/1-a/", "products/1/1/2-b/"), catalog.ErrDoomed, "adopt")
	b.must(b.adopt(p.ID, "products/1/1/1-a/"), "adopt what is there")
}

func doomOrder(b *bench) {
	p := b.product(1)
	b.intend(p.ID, "c/", -time.Minute)
	b.intend(p.ID, "a/", -time.Hour)
	b.intend(p.ID, "later/", time.Hour)
	b.intend(p.ID, "b/", -2*time.Minute)
	first := b.doom(2, time.Hour)
	if len(first) != 2 || first[0]+first[1] != "a/b/" && first[0]+first[1] != "b/a/" {
		b.Errorf("got %v, want a/ and b/", first)
	}
	b.same(b.doom(2, time.Hour), []string{"c/"}, "the rest")
	b.same(b.doom(2, time.Hour), []string{}, "nothing more")
}

// doomBeside dooms from inside the edit that adopts: one that waited for the row would wait for itself.
func doomBeside(b *bench) {
	p := b.product(1)
	b.intend(p.ID, "mine/", 0)
	b.intend(p.ID, "other/", 0)
	b.change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Version++
		return catalog.Change{Adopt: []string{"mine/"}, Announce: func(catalog.Product) []catalog.Outgoing {
			b.same(b.doom(10, time.Hour), []string{"other/"}, "doomed beside it")
			return nil
		}}
	})
}

func doomedAgain(b *bench) {
	p := b.product(1)
	b.intend(p.ID, "later/", 0)
	b.doom(10, time.Hour)
	b.intend(p.ID, "now/", 0)
	b.doom(10, -time.Second)
	b.same(b.doom(10, time.Hour), []string{}, "doomed a second time")
	b.intend(p.ID, "now/", time.Hour) // what is doomed stays so
	b.intend(p.ID, "fresh/", -time.Hour)
	b.same(b.doomed(10), []string{"now/"}, "due for the second time")
	b.same(b.doomed(10), []string{"now/"}, "due until it is removed")
	b.doom(10, -time.Minute)
	b.same(b.doomed(10), []string{"fresh/", "now/"}, "longest due first")
	b.same(b.doomed(1), []string{"fresh/"}, "the first")
	b.must(b.Intents.RemoveIntent(b.ctx(), "fresh/"), "remove one of two")
	b.same(b.doomed(10), []string{"now/"}, "the other one")
	b.must(b.Intents.RemoveIntent(b.ctx(), "now/"), "remove")
	b.must(b.Intents.RemoveIntent(b.ctx(), "now/"), "remove again")
	b.same(b.doomed(10), []string{}, "due after that")
}

func laterCounts(b *bench) {
	p := b.product(1)
	b.intend(p.ID, "a/", time.Hour)
	b.intend(p.ID, "a/", 0)
	b.same(b.doom(10, 0), []string{}, "doomed early")
	b.intend(p.ID, "b/", 0)
	b.intend(p.ID, "b/", time.Hour)
	b.same(b.doom(10, 0), []string{}, "doomed before the grace")
}

func removeUndoomed(b *bench) {
	p := b.product(1)
	b.intend(p.ID, "a/", 0)
	b.must(b.Intents.RemoveIntent(b.ctx(), "a/"), "remove")
	b.same(b.doom(10, 0), []string{"a/"}, "still there")
}

func repairs() []test {
	return []test{
		{name: "pictures in work are overdue after the patience, longest first", run: overdue},
		{name: "a deleted product has no overdue pictures", run: overdueDeleted},
		{name: "deleted products are purged with their pictures", run: purged},
	}
}

// overdueNow returns what is overdue.
func (b *bench) overdueNow(limit int, patience time.Duration) []worker.Picture {
	b.Helper()
	found, err := b.Overdue.OverdueImages(b.ctx(), limit, patience)
	b.must(err, "find overdue images")
	return found
}

func overdue(b *bench) {
	p := b.product(4)
	_, err := b.Store.Edit(b.ctx(), p.ID, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
		p.Images[0].DueAt = now.Add(-time.Hour)
		p.Images[1].DueAt, p.Images[1].Work = now.Add(-3*time.Hour), catalog.Processing
		p.Images[2].DueAt, p.Images[2].Work = now.Add(-5*time.Hour), catalog.Idle
		p.Images[3].DueAt = now.Add(time.Minute)
		return catalog.Change{}, nil
	})
	b.must(err, "edit")
	first := worker.Picture{ProductID: p.ID, ImageID: p.Images[1].ID}
	second := worker.Picture{ProductID: p.ID, ImageID: p.Images[0].ID}
	b.same(b.overdueNow(10, time.Minute), []worker.Picture{first, second}, "overdue")
	b.same(b.overdueNow(10, 2*time.Hour), []worker.Picture{first}, "overdue with more patience")
	b.same(b.overdueNow(1, time.Minute), []worker.Picture{first}, "the first")
}

func overdueDeleted(b *bench) {
	p := b.product(1)
	_, err := b.Store.Edit(b.ctx(), p.ID, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
		p.Images[0].DueAt = now.Add(-time.Hour)
		p.Deleted = true
		return catalog.Change{}, nil
	})
	b.must(err, "edit")
	b.same(b.overdueNow(10, time.Minute), []worker.Picture{}, "overdue")
}

func purged(b *bench) {
	kept, gone := b.product(1), []catalog.Product{b.product(2), b.product(0), b.product(1)}
	for _, p := range gone {
		b.remove(p.ID)
	}
	purge := func(limit int, after time.Duration) int {
		n, err := b.Overdue.PurgeDeleted(b.ctx(), limit, after)
		b.must(err, "purge")
		return n
	}
	if got := purge(10, time.Hour); got != 0 {
		b.Errorf("got %d purged within the hour, want none", got)
	}
	b.change(gone[0].ID, func(*catalog.Product) catalog.Change { // held: passed over, and not waited for
		if got := purge(1, -time.Second); got != 1 {
			b.Errorf("got %d purged beside one that is held, want 1", got)
		}
		return catalog.Change{}
	})
	for i, p := range gone { // only the one deleted before the others is left, and the last
		if _, err := b.Store.Product(b.ctx(), p.ID); (err != nil) != (i == 1) {
			b.Errorf("product %d of those deleted: got %v, want the longest deleted of those free gone", i, err)
		}
	}
	for _, want := range []int{1, 1, 0} {
		if got := purge(1, -time.Second); got != want {
			b.Errorf("got %d purged, want %d", got, want)
		}
	}
	for _, p := range gone {
		_, err := b.Store.Product(b.ctx(), p.ID)
		if err == nil {
			b.Errorf("product %d is still there", p.ID)
		}
	}
	b.same(b.load(kept.ID), kept, "the product that lives")
}
