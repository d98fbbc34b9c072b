package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// once returns an unused key.
func once() catalog.IdempotencyKey {
	return catalog.IdempotencyKey{Principal: "7", Key: uuid.NewString(), Fingerprint: "print"}
}

// created returns a response with the product's id.
func created(p catalog.Product) (catalog.SavedResponse, error) {
	return fmt.Appendf(nil, `{"id":%d}`, p.ID), nil
}

// ask inserts a product under a key and announces it with one message.
func (f *Fixture) ask(key catalog.IdempotencyKey, draft catalog.Product) (catalog.Product, catalog.SavedResponse, bool, error) {
	return f.Store.InsertOnce(f.Context(), key, draft, func(p catalog.Product) []catalog.Outgoing {
		return []catalog.Outgoing{{Message: Message(p.ID)}}
	}, created)
}

// made returns the user's products.
func (f *Fixture) made(user catalog.UserID) []catalog.Product {
	f.Helper()
	page, err := f.Store.List(f.Context(), catalog.Query{UserID: user, Sort: catalog.NewestFirst, Limit: 100})
	f.Must(err, "list")
	return page.Products
}

func onceOnly(f *Fixture) {
	key, draft := once(), f.Draft(2)
	p, first, replayed, err := f.ask(key, draft)
	f.Must(err, "ask")
	if replayed {
		f.Error("the first request was handled as a repetition")
	}
	f.Same(f.Load(p.ID), p, "the product")
	want, _ := created(p)
	f.Same(first, want, "the first answer")
	for range 2 {
		anew := func(catalog.Product) (catalog.SavedResponse, error) {
			f.Error("a repetition was answered anew")
			return nil, nil
		}
		none, again, replayed, err := f.Store.InsertOnce(f.Context(), key, draft, Silent, anew)
		f.Must(err, "ask again")
		f.Same(none, catalog.Product{}, "the product of a repetition")
		if !replayed {
			f.Error("a repetition was handled as a first request")
		}
		f.Same(again, first, "the repeated answer")
	}
	if got := f.made(draft.UserID); len(got) != 1 {
		f.Errorf("got %d products, want 1", len(got))
	}
	f.Same(len(f.takeDue()), 1, "waiting")
}

func responseKept(f *Fixture) {
	for name, want := range map[string]catalog.SavedResponse{
		"odd bytes": []byte("\x00\xff{ \"a\" : 1.50, \"ä\": 1 }\n"),
		"empty":     {},
	} {
		key, draft := once(), f.Draft(0)
		for range 2 {
			_, got, _, err := f.Store.InsertOnce(f.Context(), key, draft, Silent, func(catalog.Product) (catalog.SavedResponse, error) {
				return want, nil
			})
			f.Must(err, name)
			f.Same(got, want, name)
		}
	}
}

func keyReused(f *Fixture) {
	key, draft := once(), f.Draft(0)
	_, first, _, err := f.ask(key, draft)
	f.Must(err, "ask")
	other := key
	other.Fingerprint = "another"
	_, _, _, err = f.ask(other, draft)
	if err != catalog.ErrKeyReused { //nolint:errorlint // as it is means unwrapped
		f.Errorf("got %v, want %v itself", err, catalog.ErrKeyReused)
	}
	_, again, replayed, err := f.ask(key, draft)
	f.Must(err, "ask again")
	if !replayed {
		f.Error("the key was forgotten")
	}
	f.Same(again, first, "the answer")
	if got := f.made(draft.UserID); len(got) != 1 {
		f.Errorf("got %d products, want 1", len(got))
	}
}

func keyOfAnother(f *Fixture) {
	key, draft := once(), f.Draft(0)
	other, longer := key, key
	other.Principal = "8"
	longer.Principal, longer.Key = "7 x", "7 x "+key.Key
	for _, k := range []catalog.IdempotencyKey{key, other, longer} {
		_, _, replayed, err := f.ask(k, draft)
		f.Must(err, "ask")
		if replayed {
			f.Errorf("%+v was answered what another principal had requested", k)
		}
	}
	if got := f.made(draft.UserID); len(got) != 3 {
		f.Errorf("got %d products, want 3", len(got))
	}
}

// keyInProgress sends the second request from inside the first one's transaction. If it waited, it would block forever.
func keyInProgress(f *Fixture) {
	key, draft := once(), f.Draft(1)
	other, another := key, key
	other.Key, another.Principal = uuid.NewString(), "8"
	_, _, _, err := f.Store.InsertOnce(f.Context(), key, draft, Silent, func(p catalog.Product) (catalog.SavedResponse, error) {
		_, _, _, err := f.ask(key, draft)
		if err != catalog.ErrInProgress { //nolint:errorlint // as it is means unwrapped
			f.Errorf("got %v, want %v itself", err, catalog.ErrInProgress)
		}
		f.unused(other, draft)
		f.unused(another, draft)
		return created(p)
	})
	f.Must(err, "ask")
	_, _, replayed, err := f.ask(key, draft)
	if err != nil || !replayed {
		f.Errorf("after the first has ended: got %v, replayed %v, want its answer", err, replayed)
	}
}

// keyFreed repeats a request from inside other requests. Each of those holds a connection, so the repetitions use several.
func keyFreed(f *Fixture) {
	key, draft := once(), f.Draft(0)
	f.unused(key, draft)
	var beside func(others int)
	beside = func(others int) {
		if _, _, replayed, err := f.ask(key, draft); err != nil || !replayed {
			f.Errorf("beside %d others: got %v, replayed %v, want the answer", 3-others, err, replayed)
		}
		if others == 0 {
			return
		}
		_, _, _, err := f.Store.InsertOnce(f.Context(), once(), draft, Silent, func(p catalog.Product) (catalog.SavedResponse, error) {
			beside(others - 1)
			return created(p)
		})
		f.Must(err, "ask")
	}
	beside(3)
}

func answerFails(f *Fixture) {
	key, draft, want := once(), f.Draft(1), fmt.Errorf("encode: %w", context.DeadlineExceeded) // not an error of the database
	_, _, _, err := f.Store.InsertOnce(f.Context(), key, draft, func(p catalog.Product) []catalog.Outgoing {
		return []catalog.Outgoing{{Message: Message(p.ID)}}
	}, func(catalog.Product) (catalog.SavedResponse, error) { return nil, want })
	if err != want { //nolint:errorlint // as it is means unwrapped
		f.Errorf("got %v, want %v itself", err, want)
	}
	f.nothingOf(draft.UserID)
	f.unused(key, draft)
}

// unused inserts a product under a key, and reports it if the key has been used.
func (f *Fixture) unused(key catalog.IdempotencyKey, draft catalog.Product) {
	f.Helper()
	_, _, replayed, err := f.ask(key, draft)
	if err != nil || replayed {
		f.Errorf("got %v, replayed %v, want a first request", err, replayed)
	}
}

func keyOfUnknownUser(f *Fixture) {
	key, draft := once(), f.Draft(1)
	lost := draft
	lost.UserID += 1000
	_, _, _, err := f.ask(key, lost)
	f.WantKind(err, fault.Invalid, "ask")
	f.nothingOf(lost.UserID)
	f.unused(key, draft)
}

func keyUndone(f *Fixture) {
	key, draft := once(), f.Draft(1)
	_, _, _, err := f.Store.InsertOnce(f.Context(), key, draft, func(p catalog.Product) []catalog.Outgoing {
		broken := Message(p.ID)
		broken.ID = "not a UUID"
		return []catalog.Outgoing{{Message: broken}}
	}, created)
	if err == nil {
		f.Error("a message without a UUID was accepted")
	}
	f.nothingOf(draft.UserID)
	f.unused(key, draft)
}

func onceTogether(f *Fixture) {
	key, draft := once(), f.Draft(1)
	var mu sync.Mutex
	var first, replays, busy int
	responses := map[string]bool{}
	Together(6, func(int) {
		for range 5 {
			_, saved, replayed, err := f.ask(key, draft)
			mu.Lock()
			switch {
			case errors.Is(err, catalog.ErrInProgress):
				busy++
			case err != nil:
				f.Errorf("ask: %v", err)
			case replayed:
				replays++
			default:
				first++
			}
			if err == nil {
				responses[string(saved)] = true
			}
			mu.Unlock()
		}
	})
	f.Logf("%d replayed, %d in progress", replays, busy)
	if got := f.made(draft.UserID); len(got) != 1 || first != 1 || len(responses) != 1 {
		f.Errorf("got %d products, %d first requests and answers %v, want one each", len(got), first, responses)
	}
}
