package storetest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

func userReadBack(f *Fixture) {
	made, err := f.Store.InsertUser(f.Context(), catalog.User{Name: "Žofie O'Neil", Email: "Zofie@Example.com"})
	f.Must(err, "insert user")
	if made.ID == 0 || made.CreatedAt.IsZero() {
		f.Errorf("got %+v, want an id and a time", made)
	}
	got, err := f.Store.User(f.Context(), made.ID)
	f.Must(err, "load user")
	f.Same(got, made, "the user")
	if got.Email != "Zofie@Example.com" {
		f.Errorf("got %q, want the address as it was given", got.Email)
	}
}

func emailTaken(f *Fixture) {
	_, err := f.Store.InsertUser(f.Context(), catalog.User{Name: "Ada", Email: "ada@example.com"})
	f.Must(err, "insert user")
	_, err = f.Store.InsertUser(f.Context(), catalog.User{Name: "Ada", Email: "ADA@example.com"})
	f.WantKind(err, fault.Conflict, "a second user")
	if got, want := fault.CodeOf(err), "email_taken"; got != want {
		f.Errorf("got code %q, want %q", got, want)
	}
}

func emailTogether(f *Fixture) {
	var mu sync.Mutex
	made := 0
	Together(4, func(int) {
		_, err := f.Store.InsertUser(f.Context(), catalog.User{Name: "Ada", Email: "ada@example.com"})
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			made++
		}
	})
	if made != 1 {
		f.Errorf("got %d users with one address, want 1", made)
	}
}

func userNotFound(f *Fixture) {
	_, err := f.Store.User(f.Context(), 404)
	f.WantKind(err, fault.NotFound, "load user")
}

func productReadBack(f *Fixture) {
	for _, images := range []int{0, 1, 20} {
		draft := f.Draft(images)
		draft.Name, draft.Description = `a "quoted" \ 100% ☕ {name}`, "two\nlines, 'one' @product ? $1"
		if images > 1 { // duplicates are kept
			draft.ImageURLs[1], draft.Images[1].SourceURL = draft.ImageURLs[0], draft.ImageURLs[0]
		}
		made := f.Insert(draft)
		f.Same(f.Load(made.ID), made, "the product as read")
		draft.ID, draft.CreatedAt, draft.UpdatedAt = made.ID, made.CreatedAt, made.CreatedAt
		for i := range draft.Images {
			img, given := made.Images[i], &draft.Images[i]
			if img.ID == 0 {
				f.Errorf("image %d has no id", i)
			}
			given.ID, given.ProductID, given.RequestedAt, given.DueAt = img.ID, made.ID, made.CreatedAt, made.CreatedAt
		}
		f.Same(made, draft, "the product as inserted")
	}
}

func pricesExact(f *Fixture) {
	for _, price := range []string{"0", "0.01", "0.10", "0.29", "19.99", "1234567.80", "9999999999.99"} {
		draft := f.Draft(0)
		draft.Price = decimal.RequireFromString(price)
		if got := f.Load(f.Insert(draft).ID).Price; !got.Equal(draft.Price) {
			f.Errorf("got %s, want %s", got, price)
		}
	}
}

func wholeImages(f *Fixture) {
	draft := f.Draft(2)
	draft.Images[1] = Finished(draft.Images[1], "products/1/2/1-x/")
	draft.Compressed = draft.CompressedKeys()
	made := f.Insert(draft)
	got := f.Load(made.ID)
	f.Same(got, made, "the product")
	f.Same(got.Compressed, []string{"products/1/2/1-x/full.jpg"}, "compressed")
	f.Same(got.Images[1].Renditions, draft.Images[1].Renditions, "renditions")
}

func requestsDated(f *Fixture) {
	draft := f.Draft(2)
	draft.Images[1].JobState, draft.Images[1].JobID = catalog.Idle, ""
	before := time.Now().Add(-time.Hour)
	p := f.Insert(draft)
	queued, idle := p.Images[0], p.Images[1]
	if !queued.RequestedAt.Equal(p.CreatedAt) || !queued.DueAt.Equal(p.CreatedAt) || p.CreatedAt.Before(before) {
		f.Errorf("got requested %s and due %s, want %s", queued.RequestedAt, queued.DueAt, p.CreatedAt)
	}
	if !idle.RequestedAt.IsZero() || !idle.DueAt.IsZero() {
		f.Errorf("got requested %s and due %s for an idle image, want neither", idle.RequestedAt, idle.DueAt)
	}
}

func announced(f *Fixture) {
	var seen []catalog.Product
	var sent []event.Message
	made, err := f.Store.Insert(f.Context(), f.Draft(2), func(p catalog.Product) []catalog.Outgoing {
		seen = append(seen, p)
		odd := Message(p.ID)
		odd.Body = []byte("{\"b\": 1.50,\n \"a\": \"<&>\\u0000\\u00e9\", \"b\": 2}") // encoding it again would change these bytes
		sent = []event.Message{Message(p.ID), odd}
		return []catalog.Outgoing{{Message: sent[0]}, {Message: sent[1]}}
	})
	f.Must(err, "insert product")
	f.Same(seen, []catalog.Product{made}, "what announce saw")
	got := f.takeDue()
	f.Same(got, sent, "what waits")
}

func insertUndone(f *Fixture) {
	draft := f.Draft(1)
	_, err := f.Store.Insert(f.Context(), draft, func(p catalog.Product) []catalog.Outgoing {
		broken := Message(p.ID)
		broken.ID = "not a UUID"
		return []catalog.Outgoing{{Message: Message(p.ID)}, {Message: broken}}
	})
	if err == nil {
		f.Error("a message without a UUID was accepted")
	}
	f.nothingOf(draft.UserID)
}

// nothingOf reports products of a user and due messages.
func (f *Fixture) nothingOf(user catalog.UserID) {
	f.Helper()
	page, err := f.Store.List(f.Context(), catalog.Query{UserID: user, Sort: catalog.NewestFirst, Limit: 10})
	f.Must(err, "list")
	waiting := f.takeDue()
	if len(page.Products) > 0 || len(waiting) > 0 {
		f.Errorf("got %d products and %d messages, want none", len(page.Products), len(waiting))
	}
}

func unknownUser(f *Fixture) {
	draft := f.Draft(1)
	draft.UserID += 1000
	_, err := f.Store.Insert(f.Context(), draft, func(p catalog.Product) []catalog.Outgoing {
		return []catalog.Outgoing{{Message: Message(p.ID)}}
	})
	f.WantKind(err, fault.Invalid, "insert product")
	if e := fault.From(err); e != nil && (len(e.Fields) != 1 || e.Fields[0].Path != "user_id") {
		f.Errorf("got fields %+v, want /user_id", e.Fields)
	}
	f.nothingOf(draft.UserID)
}

func productNotFound(f *Fixture) {
	_, err := f.Store.Product(f.Context(), 404)
	f.WantKind(err, fault.NotFound, "load product")
	_, err = f.Store.Edit(f.Context(), 404, func(*catalog.Product, time.Time) (catalog.Change, error) {
		f.Error("there is no product to edit")
		return catalog.Change{}, nil
	})
	f.WantKind(err, fault.NotFound, "edit product")
}

func callerGone(f *Fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	_, err := f.Store.Product(ctx, 1)
	f.WantError(err, context.Canceled, "load product")
	_, err = f.Store.Insert(ctx, catalog.Product{}, Silent)
	f.WantError(err, context.Canceled, "insert product")
	if fault.From(err) != nil {
		f.Errorf("got a fault, %v: the caller's own end is none", err)
	}
	if errors.Is(err, catalog.ErrOutcomeUnknown) {
		f.Errorf("got %v, though nothing was sent", err)
	}
}

func pipelines(f *Fixture) {
	first, second := []byte("{\"spec\":  {\"b\":1, \"a\":2}}"), []byte(`{"spec":{}}`)
	f.Must(f.Pipelines.SavePipeline(f.Context(), "hash", first), "save")
	f.Must(f.Pipelines.SavePipeline(f.Context(), "hash", second), "save again")
	got, err := f.Pipelines.Pipeline(f.Context(), "hash")
	f.Must(err, "load pipeline")
	if string(got) != string(first) {
		f.Errorf("got %s, want %s", got, first)
	}
	_, err = f.Pipelines.Pipeline(f.Context(), uuid.NewString())
	f.WantKind(err, fault.NotFound, "an unknown hash")
}
