package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/fault"
)

func onces() []test {
	return []test{
		{name: "a request under a key acts once and is answered alike", run: onceOnly},
		{name: "responses are kept byte for byte, empty ones too", run: responseKept},
		{name: "a key with another fingerprint is refused", run: keyReused},
		{name: "the same key of somebody else is another key", run: keyOfAnother},
		{name: "while the first is being worked on, the second is told so at once", run: keyInProgress},
		{name: "a request that has ended holds its key no longer", run: keyFreed},
		{name: "an error of the answer undoes everything, the key included", run: answerFails},
		{name: "an unknown user leaves the key unused", run: keyOfUnknownUser},
		{name: "a message that cannot be stored leaves the key unused", run: keyUndone},
		{name: "keys are purged once they are old, oldest first", run: keysPurged},
		{name: "many requests under one key at once make one product", run: onceTogether},
	}
}

// once returns a key that nobody has used.
func once() catalog.IdempotencyKey {
	return catalog.IdempotencyKey{Principal: "7", Key: uuid.NewString(), Fingerprint: "print"}
}

// created responds with the product's id.
func created(p catalog.Product) (catalog.SavedResponse, error) {
	return fmt.Appendf(nil, `{"id":%d}`, p.ID), nil
}

// ask sends a request under a key.
func (b *bench) ask(key catalog.IdempotencyKey, draft catalog.Product,
) (catalog.Product, catalog.SavedResponse, bool, error) {
	return b.Store.InsertOnce(b.ctx(), key, draft, func(p catalog.Product) []catalog.Outgoing {
		return []catalog.Outgoing{{Message: message(p.ID)}}
	}, created)
}

// made returns the user's products.
func (b *bench) made(user catalog.UserID) []catalog.Product {
	b.Helper()
	page, err := b.Store.List(b.ctx(), catalog.Query{UserID: user, Sort: catalog.NewestFirst, Limit: 100})
	b.must(err, "list")
	return page.Products
}

func onceOnly(b *bench) {
	key, draft := once(), b.draft(2)
	p, first, replayed, err := b.ask(key, draft)
	b.must(err, "ask")
	if replayed {
		b.Error("the first request was taken for a repetition")
	}
	b.same(b.load(p.ID), p, "the product")
	want, _ := created(p)
	b.same(first, want, "the first answer")
	for range 2 {
		anew := func(catalog.Product) (catalog.SavedResponse, error) {
			b.Error("a repetition was answered anew")
			return nil, nil
		}
		none, again, replayed, err := b.Store.InsertOnce(b.ctx(), key, draft, silent, anew)
		b.must(err, "ask again")
		b.same(none, catalog.Product{}, "the product of a repetition")
		if !replayed {
			b.Error("a repetition was taken for a first request")
		}
		b.same(again, first, "the repeated answer")
	}
	if got := b.made(draft.UserID); len(got) != 1 {
		b.Errorf("got %d products, want 1", len(got))
	}
	b.same(b.depth().Due, int64(1), "waiting")
}

func responseKept(b *bench) {
	for name, want := range map[string]catalog.SavedResponse{
		"odd bytes": []byte("\x00\xff{ \"a\" : 1.50, \"ä\": 1 }\n"),
		"empty":     {},
	} {
		key, draft := once(), b.draft(0)
		for range 2 {
			_, got, _, err := b.Store.InsertOnce(b.ctx(), key, draft, silent, func(catalog.Product) (catalog.SavedResponse, error) {
				return want, nil
			})
			b.must(err, name)
			b.same(got, want, name)
		}
	}
}

func keyReused(b *bench) {
	key, draft := once(), b.draft(0)
	_, first, _, err := b.ask(key, draft)
	b.must(err, "ask")
	other := key
	other.Fingerprint = "another"
	_, _, _, err = b.ask(other, draft)
	if err != catalog.ErrKeyReused { //nolint:errorlint // as it is means unwrapped
		b.Errorf("got %v, want %v itself", err, catalog.ErrKeyReused)
	}
	_, again, replayed, err := b.ask(key, draft)
	b.must(err, "ask again")
	if !replayed {
		b.Error("the key was forgotten")
	}
	b.same(again, first, "the answer")
	if got := b.made(draft.UserID); len(got) != 1 {
		b.Errorf("got %d products, want 1", len(got))
	}
}

func keyOfAnother(b *bench) {
	key, draft := once(), b.draft(0)
	other, longer := key, key
	other.Principal = "8"
	longer.Principal, longer.Key = "7 x", "7 x "+key.Key
	for _, k := range []catalog.IdempotencyKey{key, other, longer} {
		_, _, replayed, err := b.ask(k, draft)
		b.must(err, "ask")
		if replayed {
			b.Errorf("%+v was answered what somebody else had asked", k)
		}
	}
	if got := b.made(draft.UserID); len(got) != 3 {
		b.Errorf("got %d products, want 3", len(got))
	}
}

// keyInProgress asks the second time from inside the first one's transaction: a second one that waited would wait for ever.
func keyInProgress(b *bench) {
	key, draft := once(), b.draft(1)
	other, another := key, key
	other.Key, another.Principal = uuid.NewString(), "8"
	_, _, _, err := b.Store.InsertOnce(b.ctx(), key, draft, silent, func(p catalog.Product) (catalog.SavedResponse, error) {
		_, _, _, err := b.ask(key, draft)
		if err != catalog.ErrInProgress { //nolint:errorlint // as it is means unwrapped
			b.Errorf("got %v, want %v itself", err, catalog.ErrInProgress)
		}
		b.unused(other, draft)
		b.unused(another, draft)
		return created(p)
	})
	b.must(err, "ask")
	_, _, replayed, err := b.ask(key, draft)
	if err != nil || !replayed {
		b.Errorf("after the first has ended: got %v, replayed %v, want its answer", err, replayed)
	}
}

// keyFreed asks for a key from inside other requests: each of them keeps a connection, so it is looked at from several.
func keyFreed(b *bench) {
	key, draft := once(), b.draft(0)
	b.unused(key, draft)
	var beside func(others int)
	beside = func(others int) {
		if _, _, replayed, err := b.ask(key, draft); err != nil || !replayed {
			b.Errorf("beside %d others: got %v, replayed %v, want the answer", 3-others, err, replayed)
		}
		if others == 0 {
			return
		}
		_, _, _, err := b.Store.InsertOnce(b.ctx(), once(), draft, silent, func(p catalog.Product) (catalog.SavedResponse, error) {
			beside(others - 1)
			return created(p)
		})
		b.must(err, "ask")
	}
	beside(3)
}

func answerFails(b *bench) {
	key, draft, want := once(), b.draft(1), fmt.Errorf("encode: %w", context.DeadlineExceeded) // not the database's
	_, _, _, err := b.Store.InsertOnce(b.ctx(), key, draft, func(p catalog.Product) []catalog.Outgoing {
		return []catalog.Outgoing{{Message: message(p.ID)}}
	}, func(catalog.Product) (catalog.SavedResponse, error) { return nil, want })
	if err != want { //nolint:errorlint // as it is means unwrapped
		b.Errorf("got %v, want %v itself", err, want)
	}
	b.nothingOf(draft.UserID)
	b.unused(key, draft)
}

// unused reports a key that has been used.
func (b *bench) unused(key catalog.IdempotencyKey, draft catalog.Product) {
	b.Helper()
	_, _, replayed, err := b.ask(key, draft)
	if err != nil || replayed {
		b.Errorf("got %v, replayed %v, want a first request", err, replayed)
	}
}

func keyOfUnknownUser(b *bench) {
	key, draft := once(), b.draft(1)
	lost := draft
	lost.UserID += 1000
	_, _, _, err := b.ask(key, lost)
	b.kind(err, fault.Invalid, "ask")
	b.nothingOf(lost.UserID)
	b.unused(key, draft)
}

func keyUndone(b *bench) {
	key, draft := once(), b.draft(1)
	_, _, _, err := b.Store.InsertOnce(b.ctx(), key, draft, func(p catalog.Product) []catalog.Outgoing {
		broken := message(p.ID)
		broken.ID = "not a UUID"
		return []catalog.Outgoing{{Message: broken}}
	}, created)
	if err == nil {
		b.Error("a message without a UUID was taken")
	}
	b.nothingOf(draft.UserID)
	b.unused(key, draft)
}

func keysPurged(b *bench) {
	keys, draft := []catalog.IdempotencyKey{once(), once(), once(), {}}, b.draft(0)
	keys[3] = keys[0]
	keys[3].Principal = "8"
	for _, key := range keys {
		b.unused(key, draft)
	}
	purge := func(limit int, after time.Duration) int {
		n, err := b.Overdue.PurgeKeys(b.ctx(), limit, after)
		b.must(err, "purge keys")
		return n
	}
	if got := purge(10, time.Hour); got != 0 {
		b.Errorf("got %d purged within the hour, want none", got)
	}
	if got := purge(2, -time.Second); got != 2 {
		b.Errorf("got %d purged, want 2", got)
	}
	for _, key := range keys[2:] {
		if _, _, replayed, err := b.ask(key, draft); err != nil || !replayed {
			b.Errorf("one of the newest: got %v, replayed %v, want its answer", err, replayed)
		}
	}
	b.unused(keys[0], draft)
	for _, want := range []int{3, 0} {
		if got := purge(10, -time.Second); got != want {
			b.Errorf("got %d purged, want %d", got, want)
		}
	}
}

func onceTogether(b *bench) {
	key, draft := once(), b.draft(1)
	var mu sync.Mutex
	var first, replays, busy int
	responses := map[string]bool{}
	together(6, func(int) {
		for range 5 {
			_, saved, replayed, err := b.ask(key, draft)
			mu.Lock()
			switch {
			case errors.Is(err, catalog.ErrInProgress):
				busy++
			case err != nil:
				b.Errorf("ask: %v", err)
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
	b.Logf("%d replayed, %d in progress", replays, busy)
	if got := b.made(draft.UserID); len(got) != 1 || first != 1 || len(responses) != 1 {
		b.Errorf("got %d products, %d first requests and responses %v, want one each", len(got), first, responses)
	}
}
