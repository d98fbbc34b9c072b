package catalog_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/event"
	"vitrine.io/pkg/fault"
)

// memory is the part of a store that the service's tests need: Insert, Product and Edit over maps, with a clock that the
// test moves. It keeps what was sent and which objects may exist, so that a test can see both.
type memory struct {
	mu       sync.Mutex
	now      time.Time
	products map[catalog.ProductID]catalog.Product
	last     catalog.ProductID
	images   catalog.ImageID
	outbox   []outRow
	intents  map[string]*memoryIntent
	saved    map[string][]byte
	keys     map[string]memoryKey

	afterCommit func() error // what the caller is told of a commit that happened
	onRead      func()       // called by Product after it has read
}

type outRow struct {
	event.Message
	due time.Time
}

type memoryKey struct {
	fingerprint string
	saved       catalog.SavedResponse
}

type memoryIntent struct {
	due    time.Time
	doomed bool
}

func newMemory() *memory {
	return &memory{
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), products: map[catalog.ProductID]catalog.Product{},
		intents: map[string]*memoryIntent{}, saved: map[string][]byte{}, keys: map[string]memoryKey{},
		afterCommit: func() error { return nil }, onRead: func() {},
	}
}

func clone(p catalog.Product) catalog.Product {
	p.ImageURLs, p.Compressed, p.Images = slices.Clone(p.ImageURLs), slices.Clone(p.Compressed), slices.Clone(p.Images)
	for i := range p.Images {
		p.Images[i].Renditions, p.Images[i].Dropped = slices.Clone(p.Images[i].Renditions), slices.Clone(p.Images[i].Dropped)
	}
	return p
}

func (m *memory) Insert(_ context.Context, p catalog.Product,
	announce func(catalog.Product) []catalog.Outgoing,
) (catalog.Product, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.insert(p, announce), m.afterCommit()
}

func (m *memory) insert(p catalog.Product, announce func(catalog.Product) []catalog.Outgoing) catalog.Product {
	p = clone(p)
	m.last++
	p.ID = m.last
	m.place(&p)
	m.products[p.ID] = p
	m.send(announce(clone(p)))
	return clone(p)
}

// shown is what a store returns of a product.
func shown(p catalog.Product) catalog.Product {
	if p.Deleted {
		return catalog.Product{ID: p.ID, Version: p.Version, Deleted: true}
	}
	return clone(p)
}

// place gives new pictures their ids.
func (m *memory) place(p *catalog.Product) {
	for i := range p.Images {
		if img := &p.Images[i]; img.ID == 0 {
			m.images++
			img.ID, img.ProductID, img.RequestedAt, img.DueAt = m.images, p.ID, m.now, m.now
		}
	}
}

func (m *memory) InsertOnce(_ context.Context, key catalog.IdempotencyKey, p catalog.Product,
	announce func(catalog.Product) []catalog.Outgoing, respond func(catalog.Product) (catalog.SavedResponse, error),
) (catalog.Product, catalog.SavedResponse, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := key.Principal + " " + key.Key
	if k, used := m.keys[name]; used {
		if k.fingerprint != key.Fingerprint {
			return catalog.Product{}, nil, false, catalog.ErrKeyReused
		}
		return catalog.Product{}, k.saved, true, nil
	}
	sent := len(m.outbox)
	p = m.insert(p, announce)
	saved, err := respond(clone(p))
	if err != nil {
		delete(m.products, p.ID)
		m.outbox = m.outbox[:sent]
		return catalog.Product{}, nil, false, err
	}
	m.keys[name] = memoryKey{key.Fingerprint, saved}
	return p, saved, false, m.afterCommit()
}

func (m *memory) Product(ctx context.Context, id catalog.ProductID) (catalog.Product, error) {
	m.mu.Lock()
	p, ok := m.products[id]
	p = shown(p)
	m.mu.Unlock()
	m.onRead()
	if err := ctx.Err(); err != nil {
		return catalog.Product{}, err
	}
	if !ok {
		return catalog.Product{}, fault.New(fault.NotFound, "product_not_found", "no such product")
	}
	return p, nil
}

func (m *memory) Edit(_ context.Context, id catalog.ProductID,
	fn func(*catalog.Product, time.Time) (catalog.Change, error),
) (catalog.Product, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.products[id]
	if !ok {
		return catalog.Product{}, fault.New(fault.NotFound, "product_not_found", "no such product")
	}
	was := p
	p = shown(p)
	c, err := fn(&p, m.now)
	if err != nil {
		return catalog.Product{}, err
	}
	if was.Deleted {
		p = was // there is nothing left to change
	}
	intents := maps.Clone(m.intents)
	for _, prefix := range c.Adopt {
		if in := intents[prefix]; in == nil || in.doomed {
			return catalog.Product{}, catalog.ErrDoomed
		}
		delete(intents, prefix)
	}
	for _, in := range c.Intents {
		if intents[in.Prefix] != nil {
			return catalog.Product{}, fmt.Errorf("prefix %s written twice", in.Prefix)
		}
		intents[in.Prefix] = &memoryIntent{due: m.now.Add(in.Due)}
	}
	m.place(&p)
	m.products[id], m.intents = clone(p), intents
	m.send(c.Outbox)
	if c.Announce != nil {
		m.send(c.Announce(clone(p)))
	}
	return shown(p), m.afterCommit()
}

// send adds messages to the outbox; an event id that is there already is not added again.
func (m *memory) send(out []catalog.Outgoing) {
	for _, o := range out {
		if slices.ContainsFunc(m.outbox, func(r outRow) bool { return r.ID == o.Message.ID }) {
			continue
		}
		m.outbox = append(m.outbox, outRow{Message: o.Message, due: m.now.Add(o.Delay)})
	}
}

// sent returns the messages of a type that were ever sent.
func (m *memory) sent(kind string) []outRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rows []outRow
	for _, r := range m.outbox {
		if r.Type == kind {
			rows = append(rows, r)
		}
	}
	return rows
}

// row is all that is known of a product, deleted or not.
func (m *memory) row(id catalog.ProductID) catalog.Product {
	m.mu.Lock()
	defer m.mu.Unlock()
	return clone(m.products[id])
}

// change alters a product behind the service's back.
func (m *memory) change(id catalog.ProductID, fn func(*catalog.Product)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := clone(m.products[id])
	fn(&p)
	m.products[id] = p
}

func (m *memory) InsertUser(_ context.Context, u catalog.User) (catalog.User, error) {
	u.ID = 1
	return u, m.afterCommit()
}

func (m *memory) User(_ context.Context, id catalog.UserID) (catalog.User, error) {
	if id != 1 {
		return catalog.User{}, fault.New(fault.NotFound, "user_not_found", "no such user")
	}
	return catalog.User{ID: id, Name: "Ada", Email: "ada@example.com"}, nil
}

func (m *memory) List(_ context.Context, q catalog.Query) (catalog.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var page catalog.Page
	for _, p := range m.products {
		if p.UserID == q.UserID {
			page.Products = append(page.Products, clone(p))
		}
	}
	return page, m.afterCommit()
}

func (m *memory) SavePipeline(_ context.Context, hash string, document []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved[hash] = document
	return m.afterCommit()
}

func (m *memory) Pipeline(_ context.Context, hash string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if doc, ok := m.saved[hash]; ok {
		return doc, nil
	}
	return nil, fault.New(fault.NotFound, "pipeline_not_found", "no such pipeline")
}
