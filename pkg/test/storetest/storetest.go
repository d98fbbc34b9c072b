package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/event"
	"vitrine.io/pkg/fault"
	"vitrine.io/pkg/relay"
	"vitrine.io/pkg/worker"
)

// Parts is everything that stands on one database.
type Parts struct {
	Store     catalog.Store
	Pipelines catalog.Pipelines
	Intents   worker.Intents
	Overdue   worker.Overdue
	Selected  worker.Selected
	Outbox    relay.Outbox
	Turns     worker.Turns
	Books     worker.Books
}

// Open returns the parts on an empty database of their own, and closes them when t ends. The outbox parks a message that was
// refused maxTries times.
type Open func(t *testing.T, maxTries int) Parts

// patient is a number of tries that no test uses up.
const patient = 100

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, part := range [][]test{
		users(), inserts(), onces(), edits(), pictures(), deletions(), races(), revisionRaces(), intents(), repairs(),
		selections(), outboxes(), lists(), audits(),
	} {
		for _, one := range part {
			t.Run(one.name, func(t *testing.T) {
				t.Parallel()
				tries := patient
				if one.maxTries > 0 {
					tries = one.maxTries
				}
				one.run(&bench{T: t, Parts: open(t, tries)})
			})
		}
	}
}

type test struct {
	name     string
	run      func(b *bench)
	maxTries int // 0: patient
}

// bench is one test with its parts: errors that it does not expect end it.
type bench struct {
	*testing.T
	Parts
}

func (b *bench) ctx() context.Context { return b.Context() }

// must ends the test if err is one.
func (b *bench) must(err error, doing string) {
	b.Helper()
	if err != nil {
		b.Fatalf("%s: %v", doing, err)
	}
}

// kind reports an error of another kind than want.
func (b *bench) kind(err error, want fault.Kind, doing string) {
	b.Helper()
	if !fault.Is(err, want) {
		b.Errorf("%s: got %v, want a fault of kind %s", doing, err, want)
	}
}

// is reports an error that is not want.
func (b *bench) is(err, want error, doing string) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Errorf("%s: got %v, want %v", doing, err, want)
	}
}

// same reports a difference between two values, as JSON.
func (b *bench) same(got, want any, what string) {
	b.Helper()
	if g, w := text(got), text(want); g != w {
		b.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// text is a value as JSON, with nil and empty lists alike.
func text(v any) string {
	raw, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err.Error()
	}
	return strings.ReplaceAll(string(raw), "null", "[]")
}

// user adds a user with an address of its own.
func (b *bench) user() catalog.User {
	b.Helper()
	u, err := b.Store.InsertUser(b.ctx(), catalog.User{Name: "Ada", Email: uuid.NewString() + "@example.com"})
	b.must(err, "insert user")
	return u
}

// draft returns a product of a new user with that many pictures, each asked for under a ticket of its own.
func (b *bench) draft(pictures int) catalog.Product {
	b.Helper()
	p := catalog.Product{
		UserID: b.user().ID, Name: "Lamp", Description: "A lamp.", Price: decimal.RequireFromString("12.50"),
		Version: 1, Revision: 1,
	}
	for i := range pictures {
		url := fmt.Sprintf("https://pictures.example.com/%d.jpg", i)
		p.ImageURLs = append(p.ImageURLs, url)
		p.Images = append(p.Images, catalog.Image{
			Position: i, SourceURL: url, Status: catalog.Pending,
			Work: catalog.Queued, Ticket: uuid.NewString(), PipelineHash: "hash",
		})
	}
	return p
}

// silent announces nothing.
func silent(catalog.Product) []catalog.Outgoing { return nil }

// insert adds a product without announcing it.
func (b *bench) insert(p catalog.Product) catalog.Product {
	b.Helper()
	p, err := b.Store.Insert(b.ctx(), p, silent)
	b.must(err, "insert product")
	return p
}

// product adds a product with that many pictures.
func (b *bench) product(pictures int) catalog.Product {
	b.Helper()
	return b.insert(b.draft(pictures))
}

// load reads a product.
func (b *bench) load(id catalog.ProductID) catalog.Product {
	b.Helper()
	p, err := b.Store.Product(b.ctx(), id)
	b.must(err, "load product")
	return p
}

// change edits a product with a function that cannot fail.
func (b *bench) change(id catalog.ProductID, fn func(p *catalog.Product) catalog.Change) catalog.Product {
	b.Helper()
	p, err := b.Store.Edit(b.ctx(), id, unfailing(fn))
	b.must(err, "edit product")
	return p
}

// message returns a message about a product.
func message(id catalog.ProductID) event.Message {
	m := event.New(uuid.NewString(), id.String(), event.ProductChanged{ProductID: int64(id), Version: 1})
	m.Traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	return m
}

// send puts messages into the outbox.
func (b *bench) send(id catalog.ProductID, outgoing ...catalog.Outgoing) {
	b.Helper()
	b.change(id, func(*catalog.Product) catalog.Change { return catalog.Change{Outbox: outgoing} })
}

// drain drains one round with the same answer for every message, and returns what was handed out.
func (b *bench) drain(limit int, answer error) ([]event.Message, relay.Drained) {
	b.Helper()
	var seen []event.Message
	drained, err := b.Outbox.Drain(b.ctx(), limit, func(_ context.Context, messages []event.Message) []error {
		seen = append(seen, messages...)
		answers := make([]error, len(messages))
		for i := range answers {
			answers[i] = answer
		}
		return answers
	})
	b.must(err, "drain")
	return seen, drained
}

// depth measures the outbox.
func (b *bench) depth() relay.Depth {
	b.Helper()
	d, err := b.Outbox.Depth(b.ctx())
	b.must(err, "measure outbox")
	return d
}
