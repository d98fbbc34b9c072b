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

// newKey returns an unused key of principal 7.
func newKey() catalog.IdempotencyKey {
	return catalog.IdempotencyKey{Principal: "7", Key: uuid.NewString(), Fingerprint: "print"}
}

// respondID returns a response with the product's id.
func respondID(p catalog.Product) (catalog.SavedResponse, error) {
	return fmt.Appendf(nil, `{"id":%d}`, p.ID), nil
}

// insertOnce inserts a product under a key and announces it with one message.
func (f *Fixture) insertOnce(key catalog.IdempotencyKey, draft catalog.Product,
) (catalog.Product, catalog.SavedResponse, bool, error) {
	return f.Store.InsertOnce(f.Context(), key, draft, func(p catalog.Product) []catalog.Outgoing {
		return []catalog.Outgoing{{Message: Message(p.ID)}}
	}, respondID)
}

// productsOf returns the user's products.
func (f *Fixture) productsOf(user catalog.UserID) []catalog.Product {
	f.Helper()
	page, err := f.Store.List(f.Context(), catalog.Query{UserID: user, Sort: catalog.NewestFirst, Limit: 100})
	f.Must(err, "list")
	return page.Products
}

func repetitionGetsSavedResponse(f *Fixture) {
	key, draft := newKey(), f.Draft(2)
	p, first, replayed, err := f.insertOnce(key, draft)
	f.Must(err, "insert once")
	if replayed {
		f.Error("the first request is reported as replayed")
	}
	f.Same(f.Load(p.ID), p, "the product")
	want, _ := respondID(p)
	f.Same(first, want, "the first response")
	for range 2 {
		respond := func(catalog.Product) (catalog.SavedResponse, error) {
			f.Error("respond was called for a repetition")
			return nil, nil
		}
		none, second, replayed, err := f.Store.InsertOnce(f.Context(), key, draft, Silent, respond)
		f.Must(err, "repeat")
		f.Same(none, catalog.Product{}, "the product of a repetition")
		if !replayed {
			f.Error("a repetition is not reported as replayed")
		}
		f.Same(second, first, "the repeated response")
	}
	if got := f.productsOf(draft.UserID); len(got) != 1 {
		f.Errorf("got %d products, want 1", len(got))
	}
	f.Same(len(f.takeDue()), 1, "due messages")
}

func responseIsKeptByteForByte(f *Fixture) {
	for name, want := range map[string]catalog.SavedResponse{
		"unusual bytes": []byte("\x00\xff{ \"a\" : 1.50, \"ä\": 1 }\n"),
		"empty":         {},
	} {
		key, draft := newKey(), f.Draft(0)
		respond := func(catalog.Product) (catalog.SavedResponse, error) { return want, nil }
		for range 2 {
			_, got, _, err := f.Store.InsertOnce(f.Context(), key, draft, Silent, respond)
			f.Must(err, name)
			f.Same(got, want, name)
		}
	}
}

func otherFingerprintIsRefused(f *Fixture) {
	key, draft := newKey(), f.Draft(0)
	_, first, _, err := f.insertOnce(key, draft)
	f.Must(err, "insert once")
	other := key
	other.Fingerprint = "another"
	_, _, _, err = f.insertOnce(other, draft)
	if err != catalog.ErrKeyReused { //nolint:errorlint // the error must be unwrapped
		f.Errorf("got %v, want %v itself", err, catalog.ErrKeyReused)
	}
	_, second, replayed, err := f.insertOnce(key, draft)
	f.Must(err, "repeat")
	if !replayed {
		f.Error("the key was lost")
	}
	f.Same(second, first, "the response")
	if got := f.productsOf(draft.UserID); len(got) != 1 {
		f.Errorf("got %d products, want 1", len(got))
	}
}

func otherPrincipalHasOwnKeys(f *Fixture) {
	key, draft := newKey(), f.Draft(0)
	other, longer := key, key
	other.Principal = "8"
	longer.Principal, longer.Key = "7 x", "7 x "+key.Key
	for _, k := range []catalog.IdempotencyKey{key, other, longer} {
		_, _, replayed, err := f.insertOnce(k, draft)
		f.Must(err, "insert once")
		if replayed {
			f.Errorf("%+v got the response of another principal", k)
		}
	}
	if got := f.productsOf(draft.UserID); len(got) != 3 {
		f.Errorf("got %d products, want 3", len(got))
	}
}

// requestInProgressIsRefused sends the second request from inside the first one's transaction. If the store waited for
// the first, the test would not end.
func requestInProgressIsRefused(f *Fixture) {
	key, draft := newKey(), f.Draft(1)
	other, another := key, key
	other.Key, another.Principal = uuid.NewString(), "8"
	_, _, _, err := f.Store.InsertOnce(f.Context(), key, draft, Silent, func(p catalog.Product) (catalog.SavedResponse, error) {
		_, _, _, err := f.insertOnce(key, draft)
		if err != catalog.ErrInProgress { //nolint:errorlint // the error must be unwrapped
			f.Errorf("got %v, want %v itself", err, catalog.ErrInProgress)
		}
		f.wantUnused(other, draft)
		f.wantUnused(another, draft)
		return respondID(p)
	})
	f.Must(err, "insert once")
	_, _, replayed, err := f.insertOnce(key, draft)
	if err != nil || !replayed {
		f.Errorf("after the first request: got %v, replayed %v, want its response", err, replayed)
	}
}

// endedRequestFreesKey repeats a request from inside other requests. Each of those holds a connection, so that each
// repetition uses another one.
func endedRequestFreesKey(f *Fixture) {
	key, draft := newKey(), f.Draft(0)
	f.wantUnused(key, draft)
	var repeat func(open int)
	repeat = func(open int) {
		if _, _, replayed, err := f.insertOnce(key, draft); err != nil || !replayed {
			f.Errorf("inside %d other requests: got %v, replayed %v, want the response", 3-open, err, replayed)
		}
		if open == 0 {
			return
		}
		respond := func(p catalog.Product) (catalog.SavedResponse, error) {
			repeat(open - 1)
			return respondID(p)
		}
		_, _, _, err := f.Store.InsertOnce(f.Context(), newKey(), draft, Silent, respond)
		f.Must(err, "insert once")
	}
	repeat(3)
}

func responseErrorUndoesInsert(f *Fixture) {
	key, draft := newKey(), f.Draft(1)
	want := fmt.Errorf("encode: %w", context.DeadlineExceeded) // it must not be taken for an error of the database
	_, _, _, err := f.Store.InsertOnce(f.Context(), key, draft, func(p catalog.Product) []catalog.Outgoing {
		return []catalog.Outgoing{{Message: Message(p.ID)}}
	}, func(catalog.Product) (catalog.SavedResponse, error) { return nil, want })
	if err != want { //nolint:errorlint // the error must be unwrapped
		f.Errorf("got %v, want %v itself", err, want)
	}
	f.wantNothingOf(draft.UserID)
	f.wantUnused(key, draft)
}

// wantUnused inserts a product under a key, and reports a key that has been used.
func (f *Fixture) wantUnused(key catalog.IdempotencyKey, draft catalog.Product) {
	f.Helper()
	_, _, replayed, err := f.insertOnce(key, draft)
	if err != nil || replayed {
		f.Errorf("got %v, replayed %v, want a first request", err, replayed)
	}
}

func unknownUserLeavesKeyUnused(f *Fixture) {
	key, draft := newKey(), f.Draft(1)
	orphan := draft
	orphan.UserID += 1000
	_, _, _, err := f.insertOnce(key, orphan)
	f.WantKind(err, fault.Invalid, "insert once")
	f.wantNothingOf(orphan.UserID)
	f.wantUnused(key, draft)
}

func unstorableMessageLeavesKeyUnused(f *Fixture) {
	key, draft := newKey(), f.Draft(1)
	_, _, _, err := f.Store.InsertOnce(f.Context(), key, draft, func(p catalog.Product) []catalog.Outgoing {
		broken := Message(p.ID)
		broken.ID = "not a UUID"
		return []catalog.Outgoing{{Message: broken}}
	}, respondID)
	if err == nil {
		f.Error("a message without a UUID was accepted")
	}
	f.wantNothingOf(draft.UserID)
	f.wantUnused(key, draft)
}

func concurrentRequestsInsertOnce(f *Fixture) {
	key, draft := newKey(), f.Draft(1)
	var mu sync.Mutex
	var first, replays, busy int
	responses := map[string]bool{}
	Together(6, func(int) {
		for range 5 {
			_, saved, replayed, err := f.insertOnce(key, draft)
			mu.Lock()
			switch {
			case errors.Is(err, catalog.ErrInProgress):
				busy++
			case err != nil:
				f.Errorf("insert once: %v", err)
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
	if got := f.productsOf(draft.UserID); len(got) != 1 || first != 1 || len(responses) != 1 {
		f.Errorf("got %d products, %d first requests and responses %v, want one each", len(got), first, responses)
	}
}
