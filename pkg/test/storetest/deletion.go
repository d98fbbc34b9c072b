package storetest

import (
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

func deletedProductKeepsIDAndVersion(f *Fixture) {
	p := f.Product(2)
	want := catalog.Product{ID: p.ID, Version: 2, Deleted: true}
	f.Same(f.Delete(p.ID), want, "what Edit returns")
	f.Same(f.Load(p.ID), want, "the product")
	f.wantNothingOf(p.UserID)
}

// deletedProductOnlySendsAndSchedules cancels through another product, since CancelDeletions raises a version.
func deletedProductOnlySendsAndSchedules(f *Fixture) {
	p := f.Product(1)
	gone := f.Delete(p.ID)
	_, err := f.Store.Edit(f.Context(), p.ID, Unfailing(func(p *catalog.Product) catalog.Change {
		f.Same(*p, gone, "what the function sees")
		p.Version++
		return catalog.Change{}
	}))
	f.WantKind(err, fault.Internal, "a change")
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		return catalog.Change{
			Outbox:    []catalog.Outgoing{{Message: Message(p.ID)}},
			Deletions: []catalog.ScheduledDeletion{{Prefix: "products/1/1/1-a/", ImageID: 1}},
		}
	})
	if sent := f.takeDue(); len(sent) != 1 {
		f.Errorf("got %d messages, want one", len(sent))
	}
	f.Must(f.CancelDeletions(f.Product(0).ID, "products/1/1/1-a/"), "cancel the deletion that was scheduled")
}

func prefixIsCancelledOnce(f *Fixture) {
	p := f.Product(1)
	f.ScheduleDeletion(p.ID, "products/1/1/1-a/", 0)
	f.Must(f.CancelDeletions(p.ID, "products/1/1/1-a/"), "cancel")
	f.WantError(f.CancelDeletions(p.ID, "products/1/1/1-a/"), catalog.ErrDeletionStarted, "cancel a second time")
	if got := f.Load(p.ID).Version; got != 2 {
		f.Errorf("got version %d, want 2", got)
	}
}

func cancelWithoutScheduleIsRefused(f *Fixture) {
	p := f.Product(1)
	f.WantError(f.CancelDeletions(p.ID, "products/1/1/1-a/"), catalog.ErrDeletionStarted, "cancel")
	f.Same(f.Load(p.ID), p, "the product")
}

func cancelIsAllOrNothing(f *Fixture) {
	p := f.Product(1)
	f.ScheduleDeletion(p.ID, "products/1/1/1-a/", 0)
	f.WantError(f.CancelDeletions(p.ID, "products/1/1/1-a/", "products/1/1/2-b/"), catalog.ErrDeletionStarted, "cancel both")
	f.Must(f.CancelDeletions(p.ID, "products/1/1/1-a/"), "cancel the scheduled one")
}
