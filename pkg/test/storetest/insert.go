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

func userIsReadBack(f *Fixture) {
	created, err := f.Store.InsertUser(f.Context(), catalog.User{Name: "Žofie O'Neil", Email: "Zofie@Example.com"})
	f.Must(err, "insert user")
	if created.ID == 0 || created.CreatedAt.IsZero() {
		f.Errorf("got %+v, want an id and a time", created)
	}
	got, err := f.Store.User(f.Context(), created.ID)
	f.Must(err, "load user")
	f.Same(got, created, "the user")
	if got.Email != "Zofie@Example.com" {
		f.Errorf("got %q, want the address in its original case", got.Email)
	}
}

func emailConflictsInAnySpelling(f *Fixture) {
	for _, spelling := range [][2]string{
		{"ada@example.com", "ADA@example.com"},
		{"äb@x.de", "ÄB@x.de"},
		{"\u00e9va@example.com", "e\u0301va@example.com"}, // composed, and decomposed
		{"дом@пример.рф", "ДОМ@ПРИМЕР.РФ"},
		{"weiß@example.com", "WEISS@example.com"},
		{"σίσυφος@example.com", "ΣΊΣΥΦΟΣ@example.com"},
	} {
		_, err := f.Store.InsertUser(f.Context(), catalog.User{Name: "Ada", Email: spelling[0]})
		f.Must(err, "insert user")
		_, err = f.Store.InsertUser(f.Context(), catalog.User{Name: "Ada", Email: spelling[1]})
		f.WantKind(err, fault.Conflict, "a second user, "+spelling[1])
		if got, want := fault.CodeOf(err), "email_taken"; got != want {
			f.Errorf("%s: got code %q, want %q", spelling[1], got, want)
		}
	}
	_, err := f.Store.InsertUser(f.Context(), catalog.User{Name: "Ada", Email: "ab@x.de"})
	f.Must(err, "insert user with another letter")
}

func concurrentSameEmailConflicts(f *Fixture) {
	var mu sync.Mutex
	created := 0
	Together(4, func(int) {
		_, err := f.Store.InsertUser(f.Context(), catalog.User{Name: "Ada", Email: "ada@example.com"})
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			created++
		}
	})
	if created != 1 {
		f.Errorf("got %d users with one address, want 1", created)
	}
}

func unknownUserIDIsNotFound(f *Fixture) {
	_, err := f.Store.User(f.Context(), 404)
	f.WantKind(err, fault.NotFound, "load user")
}

func productIsReadBack(f *Fixture) {
	for _, images := range []int{0, 1, 20} {
		draft := f.Draft(images)
		draft.Name, draft.Description = `a "quoted" \ 100% ☕ {name}`, "two\nlines, 'one' @product ? $1"
		if images > 1 { // duplicates are kept
			draft.ImageURLs[1], draft.Images[1].SourceURL = draft.ImageURLs[0], draft.ImageURLs[0]
		}
		created := f.Insert(draft)
		f.Same(f.Load(created.ID), created, "the product as read")
		draft.ID, draft.CreatedAt, draft.UpdatedAt = created.ID, created.CreatedAt, created.CreatedAt
		for i := range draft.Images {
			img, given := created.Images[i], &draft.Images[i]
			if img.ID == 0 {
				f.Errorf("image %d has no id", i)
			}
			given.ID, given.ProductID, given.RequestedAt, given.DueAt = img.ID, created.ID, created.CreatedAt, created.CreatedAt
		}
		f.Same(created, draft, "the product as inserted")
	}
}

func pricesAreExact(f *Fixture) {
	for _, price := range []string{"0", "0.01", "0.10", "0.29", "19.99", "1234567.80", "9999999999.99"} {
		draft := f.Draft(0)
		draft.Price = decimal.RequireFromString(price)
		if got := f.Load(f.Insert(draft).ID).Price; !got.Equal(draft.Price) {
			f.Errorf("got %s, want %s", got, price)
		}
	}
}

func finishedImagesAreKept(f *Fixture) {
	draft := f.Draft(2)
	draft.Images[1] = Finished(draft.Images[1], "products/1/2/1-x/")
	draft.Compressed = draft.CompressedKeys()
	created := f.Insert(draft)
	got := f.Load(created.ID)
	f.Same(got, created, "the product")
	f.Same(got.Compressed, []string{"products/1/2/1-x/full.jpg"}, "compressed")
	f.Same(got.Images[1].Renditions, draft.Images[1].Renditions, "renditions")
}

func queuedImagesAreDated(f *Fixture) {
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

func announceSeesIDs(f *Fixture) {
	var seen []catalog.Product
	var sent []event.Message
	created, err := f.Store.Insert(f.Context(), f.Draft(2), func(p catalog.Product) []catalog.Outgoing {
		seen = append(seen, p)
		unusual := Message(p.ID)
		unusual.Body = []byte("{\"b\": 1.50,\n \"a\": \"<&>\\u0000\\u00e9\", \"b\": 2}") // JSON would encode it otherwise
		sent = []event.Message{Message(p.ID), unusual}
		return []catalog.Outgoing{{Message: sent[0]}, {Message: sent[1]}}
	})
	f.Must(err, "insert product")
	f.Same(seen, []catalog.Product{created}, "what announce saw")
	got := f.takeDue()
	f.Same(got, sent, "the due messages")
}

func unstorableMessageUndoesInsert(f *Fixture) {
	draft := f.Draft(1)
	_, err := f.Store.Insert(f.Context(), draft, func(p catalog.Product) []catalog.Outgoing {
		broken := Message(p.ID)
		broken.ID = "not a UUID"
		return []catalog.Outgoing{{Message: Message(p.ID)}, {Message: broken}}
	})
	if err == nil {
		f.Error("a message without a UUID was accepted")
	}
	f.wantNothingOf(draft.UserID)
}

// wantNothingOf reports products of a user and due messages.
func (f *Fixture) wantNothingOf(user catalog.UserID) {
	f.Helper()
	page, err := f.Store.List(f.Context(), catalog.Query{UserID: user, Sort: catalog.NewestFirst, Limit: 10})
	f.Must(err, "list")
	due := f.takeDue()
	if len(page.Products) > 0 || len(due) > 0 {
		f.Errorf("got %d products and %d messages, want none", len(page.Products), len(due))
	}
}

func unknownUserIsInvalid(f *Fixture) {
	draft := f.Draft(1)
	draft.UserID += 1000
	_, err := f.Store.Insert(f.Context(), draft, func(p catalog.Product) []catalog.Outgoing {
		return []catalog.Outgoing{{Message: Message(p.ID)}}
	})
	f.WantKind(err, fault.Invalid, "insert product")
	if e := fault.From(err); e != nil && (len(e.Fields) != 1 || e.Fields[0].Path != "user_id") {
		f.Errorf("got fields %+v, want user_id", e.Fields)
	}
	f.wantNothingOf(draft.UserID)
}

func unknownProductIsNotFound(f *Fixture) {
	_, err := f.Store.Product(f.Context(), 404)
	f.WantKind(err, fault.NotFound, "load product")
	_, err = f.Store.Edit(f.Context(), 404, func(*catalog.Product, time.Time) (catalog.Change, error) {
		f.Error("there is no product to edit")
		return catalog.Change{}, nil
	})
	f.WantKind(err, fault.NotFound, "edit product")
}

func cancelledContextIsReturned(f *Fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	_, err := f.Store.Product(ctx, 1)
	f.WantError(err, context.Canceled, "load product")
	_, err = f.Store.Insert(ctx, catalog.Product{}, Silent)
	f.WantError(err, context.Canceled, "insert product")
	if fault.From(err) != nil {
		f.Errorf("got the fault %v, want the context's error", err)
	}
	if errors.Is(err, catalog.ErrOutcomeUnknown) {
		f.Errorf("got %v, want another error: no statement was sent", err)
	}
}

func firstDocumentIsKept(f *Fixture) {
	first, second := []byte("{\"spec\":  {\"b\":1, \"a\":2}}"), []byte(`{"spec":{}}`)
	f.Must(f.Pipelines.SavePipeline(f.Context(), "hash", first), "save")
	f.Must(f.Pipelines.SavePipeline(f.Context(), "hash", second), "save a second document")
	got, err := f.Pipelines.Pipeline(f.Context(), "hash")
	f.Must(err, "load pipeline")
	if string(got) != string(first) {
		f.Errorf("got %s, want %s", got, first)
	}
	_, err = f.Pipelines.Pipeline(f.Context(), uuid.NewString())
	f.WantKind(err, fault.NotFound, "an unknown hash")
}
