package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/event"
	"vitrine.io/pkg/fault"
)

func users() []test {
	return []test{
		{name: "a user is read back", run: userReadBack},
		{name: "an e-mail address is taken whatever its case", run: emailTaken},
		{name: "a user that never was is not found", run: userNotFound},
	}
}

func userReadBack(b *bench) {
	made, err := b.Store.InsertUser(b.ctx(), catalog.User{Name: "Žofie O'Neil", Email: "Zofie@Example.com"})
	b.must(err, "insert user")
	if made.ID == 0 || made.CreatedAt.IsZero() {
		b.Errorf("got %+v, want an id and a time", made)
	}
	got, err := b.Store.User(b.ctx(), made.ID)
	b.must(err, "load user")
	b.same(got, made, "the user")
	if got.Email != "Zofie@Example.com" {
		b.Errorf("got %q, want the address as it was given", got.Email)
	}
}

func emailTaken(b *bench) {
	_, err := b.Store.InsertUser(b.ctx(), catalog.User{Name: "Ada", Email: "ada@example.com"})
	b.must(err, "insert user")
	_, err = b.Store.InsertUser(b.ctx(), catalog.User{Name: "Ada", Email: "ADA@example.com"})
	b.kind(err, fault.Conflict, "a second user")
	if got, want := fault.CodeOf(err), "email_taken"; got != want {
		b.Errorf("got code %q, want %q", got, want)
	}
}

func userNotFound(b *bench) {
	_, err := b.Store.User(b.ctx(), 404)
	b.kind(err, fault.NotFound, "load user")
}

func inserts() []test {
	return []test{
		{name: "a product is read back as it was inserted", run: productReadBack},
		{name: "prices are exact", run: pricesExact},
		{name: "pictures that are given ready are kept whole", run: wholeImages},
		{name: "a request that comes with the product is dated", run: requestsDated},
		{name: "announce sees all ids, and its messages wait byte for byte", run: announced},
		{name: "a message that cannot be stored undoes the product", run: insertUndone},
		{name: "an unknown user is a wrong field", run: unknownUser},
		{name: "a text that cannot be stored is the caller's fault", run: impossibleText},
		{name: "a product that never was is not found", run: productNotFound},
		{name: "the end of the caller's context is returned as it is", run: callerGone},
		{name: "a pipeline is kept byte for byte, once", run: pipelines},
	}
}

func productReadBack(b *bench) {
	for _, pictures := range []int{0, 1, 20} {
		draft := b.draft(pictures)
		draft.Name, draft.Description = `a "quoted" \ 100% ☕ {name}`, "two\nlines, 'one' @product ? $1"
		if pictures > 1 { // the same picture twice stands twice
			draft.ImageURLs[1], draft.Images[1].SourceURL = draft.ImageURLs[0], draft.ImageURLs[0]
		}
		made := b.insert(draft)
		b.same(b.load(made.ID), made, "the product as read")
		draft.ID, draft.CreatedAt, draft.UpdatedAt = made.ID, made.CreatedAt, made.CreatedAt
		for i := range draft.Images {
			img, given := made.Images[i], &draft.Images[i]
			if img.ID == 0 {
				b.Errorf("picture %d has no id", i)
			}
			given.ID, given.ProductID, given.RequestedAt, given.DueAt = img.ID, made.ID, made.CreatedAt, made.CreatedAt
		}
		b.same(made, draft, "the product as inserted")
	}
}

func pricesExact(b *bench) {
	for _, price := range []string{"0", "0.01", "0.10", "0.29", "19.99", "1234567.80", "9999999999.99"} {
		draft := b.draft(0)
		draft.Price = decimal.RequireFromString(price)
		if got := b.load(b.insert(draft).ID).Price; !got.Equal(draft.Price) {
			b.Errorf("got %s, want %s", got, price)
		}
	}
}

func wholeImages(b *bench) {
	draft := b.draft(2)
	draft.Images[1] = finished(draft.Images[1], "products/1/2/1-x/")
	draft.Compressed = draft.CompressedKeys()
	made := b.insert(draft)
	got := b.load(made.ID)
	b.same(got, made, "the product")
	b.same(got.Compressed, []string{"products/1/2/1-x/full.jpg"}, "compressed")
	b.same(got.Images[1].Renditions, draft.Images[1].Renditions, "renditions")
}

func requestsDated(b *bench) {
	draft := b.draft(2)
	draft.Images[1].Work, draft.Images[1].Ticket = catalog.Idle, ""
	before := time.Now().Add(-time.Hour)
	p := b.insert(draft)
	asked, idle := p.Images[0], p.Images[1]
	if !asked.RequestedAt.Equal(p.CreatedAt) || !asked.DueAt.Equal(p.CreatedAt) || p.CreatedAt.Before(before) {
		b.Errorf("got requested %s and due %s, want %s", asked.RequestedAt, asked.DueAt, p.CreatedAt)
	}
	if !idle.RequestedAt.IsZero() || !idle.DueAt.IsZero() {
		b.Errorf("got requested %s and due %s for an idle picture, want neither", idle.RequestedAt, idle.DueAt)
	}
}

func announced(b *bench) {
	var seen []catalog.Product
	var sent []event.Message
	made, err := b.Store.Insert(b.ctx(), b.draft(2), func(p catalog.Product) []catalog.Outgoing {
		seen = append(seen, p)
		odd := message(p.ID)
		odd.Body = []byte("{\"b\": 1.50,\n \"a\": \"<&>\\u0000\\u00e9\", \"b\": 2}") // bytes that a rewriting would change
		sent = []event.Message{message(p.ID), odd}
		return []catalog.Outgoing{{Message: sent[0]}, {Message: sent[1]}}
	})
	b.must(err, "insert product")
	b.same(seen, []catalog.Product{made}, "what announce saw")
	got, _ := b.drain(10, nil)
	b.same(got, sent, "what waits")
}

func insertUndone(b *bench) {
	draft := b.draft(1)
	_, err := b.Store.Insert(b.ctx(), draft, func(p catalog.Product) []catalog.Outgoing {
		broken := message(p.ID)
		broken.ID = "not a UUID"
		return []catalog.Outgoing{{Message: message(p.ID)}, {Message: broken}}
	})
	if err == nil {
		b.Error("a message without a UUID was taken")
	}
	b.nothingOf(draft.UserID)
}

// nothingOf reports products of a user and messages, of which there should be none.
func (b *bench) nothingOf(user catalog.UserID) {
	b.Helper()
	page, err := b.Store.List(b.ctx(), catalog.Query{UserID: user, Sort: catalog.NewestFirst, Limit: 10})
	b.must(err, "list")
	waiting, _ := b.drain(10, nil)
	if len(page.Products) > 0 || len(waiting) > 0 {
		b.Errorf("got %d products and %d messages, want none", len(page.Products), len(waiting))
	}
}

func unknownUser(b *bench) {
	draft := b.draft(1)
	draft.UserID += 1000
	_, err := b.Store.Insert(b.ctx(), draft, func(p catalog.Product) []catalog.Outgoing {
		return []catalog.Outgoing{{Message: message(p.ID)}}
	})
	b.kind(err, fault.Invalid, "insert product")
	if f := fault.From(err); f != nil && (len(f.Fields) != 1 || f.Fields[0].Path != "user_id") {
		b.Errorf("got fields %+v, want /user_id", f.Fields)
	}
	b.nothingOf(draft.UserID)
}

func impossibleText(b *bench) {
	draft := b.draft(1)
	draft.Name = "a\x00b"
	_, err := b.Store.Insert(b.ctx(), draft, silent)
	b.kind(err, fault.Invalid, "a NUL in the name")
	draft = b.draft(1)
	draft.Images[0].SourceURL = "https://example.com/\x00"
	_, err = b.Store.Insert(b.ctx(), draft, silent)
	b.kind(err, fault.Invalid, "a NUL in a source")
}

func productNotFound(b *bench) {
	_, err := b.Store.Product(b.ctx(), 404)
	b.kind(err, fault.NotFound, "load product")
	_, err = b.Store.Edit(b.ctx(), 404, func(*catalog.Product, time.Time) (catalog.Change, error) {
		b.Error("there is no product to edit")
		return catalog.Change{}, nil
	})
	b.kind(err, fault.NotFound, "edit product")
}

func callerGone(b *bench) {
	ctx, cancel := context.WithCancel(b.ctx())
	cancel()
	_, err := b.Store.Product(ctx, 1)
	b.is(err, context.Canceled, "load product")
	_, err = b.Store.Insert(ctx, catalog.Product{}, silent)
	b.is(err, context.Canceled, "insert product")
	if fault.From(err) != nil {
		b.Errorf("got a fault, %v: the caller's own end is none", err)
	}
	if errors.Is(err, catalog.ErrOutcomeUnknown) {
		b.Errorf("got %v, though nothing was sent", err)
	}
}

func pipelines(b *bench) {
	first, second := []byte("{\"spec\":  {\"b\":1, \"a\":2}}"), []byte(`{"spec":{}}`)
	b.must(b.Pipelines.SavePipeline(b.ctx(), "hash", first), "save")
	b.must(b.Pipelines.SavePipeline(b.ctx(), "hash", second), "save again")
	got, err := b.Pipelines.Pipeline(b.ctx(), "hash")
	b.must(err, "load pipeline")
	if string(got) != string(first) {
		b.Errorf("got %s, want %s", got, first)
	}
	_, err = b.Pipelines.Pipeline(b.ctx(), uuid.NewString())
	b.kind(err, fault.NotFound, "an unknown hash")
}
