package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

func usersOnce() []test {
	return []test{
		{"repetition_gets_saved_response", repeatedUserGetsSavedResponse},
		{"other_fingerprint_is_refused", otherUserUnderOneKeyIsRefused},
		{"request_in_progress_is_refused", userInProgressIsRefused},
		{"failure_leaves_key_unused", failedUserLeavesKeyUnused},
	}
}

func editsOnce() []test {
	return []test{
		{"repetition_gets_saved_response", repeatedEditGetsSavedResponse},
		{"edit_without_effect_is_saved", editWithoutEffectIsSaved},
		{"other_fingerprint_is_refused", otherEditUnderOneKeyIsRefused},
		{"failure_undoes_edit_and_key", failedEditLeavesKeyUnused},
	}
}

func respondUser(u catalog.User) (catalog.SavedResponse, error) {
	return fmt.Appendf(nil, `{"id":%d}`, u.ID), nil
}

func newUser() catalog.User {
	return catalog.User{Name: "Ada", Email: uuid.NewString() + "@example.com"}
}

func repeatedUserGetsSavedResponse(f *Fixture) {
	key, u := newKey(), newUser()
	saved, replayed, err := f.Store.InsertUserOnce(f.Context(), key, u, func(u catalog.User) (catalog.SavedResponse, error) {
		if u.ID == 0 || u.CreatedAt.IsZero() {
			f.Errorf("respond got %+v, want id and time", u)
		}
		return respondUser(u)
	})
	if err != nil || replayed {
		f.Fatalf("the first request: got replayed %v and %v", replayed, err)
	}
	again, replayed, err := f.Store.InsertUserOnce(f.Context(), key, u, respondUser)
	if err != nil || !replayed || string(again) != string(saved) {
		f.Errorf("the repetition: got %s, replayed %v and %v, want %s", again, replayed, err, saved)
	}
	_, err = f.Store.InsertUser(f.Context(), u)
	f.WantKind(err, fault.Conflict, "insert the same address without the key")
}

func otherUserUnderOneKeyIsRefused(f *Fixture) {
	key, u := newKey(), newUser()
	_, _, err := f.Store.InsertUserOnce(f.Context(), key, u, respondUser)
	f.Must(err, "insert user once")
	other := key
	other.Fingerprint = "another"
	second := newUser()
	_, _, err = f.Store.InsertUserOnce(f.Context(), other, second, respondUser)
	f.WantError(err, catalog.ErrKeyReused, "another user under the key")
	_, err = f.Store.InsertUser(f.Context(), second)
	f.Must(err, "insert the refused user")
}

func userInProgressIsRefused(f *Fixture) {
	key, u := newKey(), newUser()
	_, _, err := f.Store.InsertUserOnce(f.Context(), key, u, func(u catalog.User) (catalog.SavedResponse, error) {
		_, _, err := f.Store.InsertUserOnce(f.Context(), key, newUser(), respondUser)
		f.WantError(err, catalog.ErrInProgress, "a request inside the first")
		return respondUser(u)
	})
	f.Must(err, "insert user once")
}

func failedUserLeavesKeyUnused(f *Fixture) {
	key, u := newKey(), newUser()
	want := errors.New("cannot be encoded")
	_, _, err := f.Store.InsertUserOnce(f.Context(), key, u, func(catalog.User) (catalog.SavedResponse, error) {
		return nil, want
	})
	f.WantError(err, want, "a response that fails")
	_, replayed, err := f.Store.InsertUserOnce(f.Context(), key, u, respondUser)
	if err != nil || replayed {
		f.Errorf("after the failure: got replayed %v and %v, want a first request", replayed, err)
	}
	taken := newKey()
	_, _, err = f.Store.InsertUserOnce(f.Context(), taken, u, respondUser)
	f.WantKind(err, fault.Conflict, "an address that is taken")
	_, replayed, err = f.Store.InsertUserOnce(f.Context(), taken, newUser(), respondUser)
	if err != nil || replayed {
		f.Errorf("after the conflict: got replayed %v and %v, want a first request", replayed, err)
	}
}

// rename returns an edit that changes the name, raises the version and sends a message.
func rename(name string) func(*catalog.Product, time.Time) (catalog.Change, error) {
	return Unfailing(func(p *catalog.Product) catalog.Change {
		p.Name = name
		p.Version++
		return catalog.Change{Outbox: []catalog.Outgoing{{Message: Message(p.ID)}}}
	})
}

func repeatedEditGetsSavedResponse(f *Fixture) {
	key, p := newKey(), f.Product(1)
	edited, saved, replayed, err := f.Store.EditOnce(f.Context(), key, p.ID, rename("Stool"), respondID)
	if err != nil || replayed || edited.Name != "Stool" {
		f.Fatalf("the first request: got %q, replayed %v and %v", edited.Name, replayed, err)
	}
	f.Same(f.Load(p.ID), edited, "the product")
	none, again, replayed, err := f.Store.EditOnce(f.Context(), key, p.ID, rename("Chair"), respondID)
	if err != nil || !replayed || string(again) != string(saved) {
		f.Errorf("the repetition: got %s, replayed %v and %v, want %s", again, replayed, err, saved)
	}
	f.Same(none, catalog.Product{}, "the product of a repetition")
	f.Same(f.Load(p.ID), edited, "the product after the repetition")
	f.Same(len(f.takeDue()), 1, "due messages")
}

func editWithoutEffectIsSaved(f *Fixture) {
	key, p := newKey(), f.Product(0)
	same := Unfailing(func(*catalog.Product) catalog.Change { return catalog.Change{} })
	for n := range 2 {
		_, saved, replayed, err := f.Store.EditOnce(f.Context(), key, p.ID, same, respondID)
		if want, _ := respondID(p); err != nil || replayed != (n > 0) || string(saved) != string(want) {
			f.Errorf("request %d: got %s, replayed %v and %v", n, saved, replayed, err)
		}
	}
	f.Same(f.Load(p.ID), p, "the product")
}

func otherEditUnderOneKeyIsRefused(f *Fixture) {
	key, p := newKey(), f.Product(0)
	_, _, _, err := f.Store.EditOnce(f.Context(), key, p.ID, rename("Stool"), respondID)
	f.Must(err, "edit once")
	other := key
	other.Fingerprint = "another"
	_, _, _, err = f.Store.EditOnce(f.Context(), other, p.ID, rename("Chair"), respondID)
	f.WantError(err, catalog.ErrKeyReused, "another edit under the key")
	f.Same(f.Load(p.ID).Name, "Stool", "the name")
}

func failedEditLeavesKeyUnused(f *Fixture) {
	key, p := newKey(), f.Product(1)
	_, _, _, err := f.Store.EditOnce(f.Context(), key, p.ID+1000, rename("Stool"), respondID)
	f.WantKind(err, fault.NotFound, "a product that does not exist")
	want := errors.New("refused")
	refuse := func(*catalog.Product, time.Time) (catalog.Change, error) { return catalog.Change{}, want }
	_, _, _, err = f.Store.EditOnce(f.Context(), key, p.ID, refuse, respondID)
	f.WantError(err, want, "an edit that fails")
	unencodable := func(catalog.Product) (catalog.SavedResponse, error) { return nil, want }
	_, _, _, err = f.Store.EditOnce(f.Context(), key, p.ID, rename("Stool"), unencodable)
	f.WantError(err, want, "a response that fails")
	f.Same(f.Load(p.ID), p, "the product")
	f.Same(len(f.takeDue()), 0, "due messages")
	_, _, replayed, err := f.Store.EditOnce(f.Context(), key, p.ID, rename("Stool"), respondID)
	if err != nil || replayed {
		f.Errorf("after the failures: got replayed %v and %v, want a first request", replayed, err)
	}
}
