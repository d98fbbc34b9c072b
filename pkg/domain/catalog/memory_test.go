package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/storetest"
)

// memory is a catalog.Store over maps, with a clock that the test sets. It passes the suite in pkg/test/storetest. It lists
// only one user's products, newest first. Tests read its outbox and its scheduled deletions.
type memory struct {
	mu        sync.Mutex
	now       time.Time
	step      time.Duration // each insert and edit adds it to now
	users     []catalog.User
	products  map[catalog.ProductID]catalog.Product
	last      catalog.ProductID
	images    catalog.ImageID
	outbox    []outRow
	deletions map[string]*memoryDeletion
	pipelines map[string][]byte
	responses map[memoryKey]*memoryResponse // nil: the request is in progress
	backfill  []catalog.BackfillEvent

	afterCommit func() error // returns the error of a call whose change was committed
	onRead      func()       // called by Product after it has read
}

type outRow struct {
	event.Message
	due time.Time
}

type memoryKey struct{ principal, key string }

type memoryResponse struct {
	fingerprint string
	saved       catalog.SavedResponse
}

type memoryDeletion struct {
	due     time.Time
	started bool
}

// newMemory returns a store with one user.
func newMemory() *memory {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return &memory{
		now: now, users: []catalog.User{{ID: 1, Name: "Ada", Email: "first@example.com", CreatedAt: now}},
		products: map[catalog.ProductID]catalog.Product{}, deletions: map[string]*memoryDeletion{},
		pipelines: map[string][]byte{}, responses: map[memoryKey]*memoryResponse{},
		afterCommit: func() error { return nil }, onRead: func() {},
	}
}

func TestMemoryStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) storetest.Parts {
		m := newMemory()
		m.now, m.step = time.Now().UTC().Truncate(time.Microsecond), time.Microsecond
		return storetest.Parts{Store: m, Pipelines: m, TakeDue: m.takeDue, ReleaseDue: m.releaseDue}
	})
}

func clone(p catalog.Product) catalog.Product {
	p.ImageURLs, p.Compressed, p.Images = slices.Clone(p.ImageURLs), slices.Clone(p.Compressed), slices.Clone(p.Images)
	for i := range p.Images {
		p.Images[i].Renditions, p.Images[i].Dropped = slices.Clone(p.Images[i].Renditions), slices.Clone(p.Images[i].Dropped)
	}
	return p
}

func (m *memory) Insert(ctx context.Context, p catalog.Product,
	announce func(catalog.Product) []catalog.Outgoing,
) (catalog.Product, error) {
	if err := ctx.Err(); err != nil {
		return catalog.Product{}, err
	}
	p, out, err := m.draft(p, announce)
	if err != nil {
		return catalog.Product{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out = append(out, m.release(&p, catalog.Product{})...)
	m.products[p.ID] = p
	m.send(out)
	return clone(p), m.afterCommit()
}

// release releases the jobs of images that had none in was, if they are live and due, and returns their messages.
func (m *memory) release(p *catalog.Product, was catalog.Product) []catalog.Outgoing {
	var out []catalog.Outgoing
	for i := range p.Images {
		img := &p.Images[i]
		worked := func(old catalog.Image) bool { return old.ID == img.ID && old.JobState != catalog.Idle }
		if img.Class == catalog.Live && !img.NotBefore.After(m.now) && !slices.ContainsFunc(was.Images, worked) {
			img.ReleasedAt = m.now
			out = append(out, catalog.Outgoing{Message: img.JobMessage()})
		}
	}
	return out
}

// releaseDue does what the scheduler does while few jobs are in flight: it releases every job that is due.
func (m *memory) releaseDue(testing.TB) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(m.products)) {
		p := clone(m.products[id])
		for i := range p.Images {
			if img := &p.Images[i]; img.JobState == catalog.Queued && img.ReleasedAt.IsZero() && !img.NotBefore.After(m.now) {
				img.ReleasedAt = m.now
				m.send([]catalog.Outgoing{{Message: img.JobMessage()}})
			}
		}
		m.products[id] = p
	}
}

// draft gives p its ids and times, and announces it. Nothing is stored yet.
func (m *memory) draft(p catalog.Product, announce func(catalog.Product) []catalog.Outgoing,
) (catalog.Product, []catalog.Outgoing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.UserID < 1 || int(p.UserID) > len(m.users) {
		return p, nil, fault.InvalidFields([]fault.Field{{Path: "user_id", Code: "unknown", Detail: "no such user"}})
	}
	p = clone(p)
	m.last++
	m.now = m.now.Add(m.step)
	p.ID, p.CreatedAt, p.UpdatedAt = m.last, m.now, m.now
	m.assignIDs(&p)
	out := announce(clone(p))
	return p, out, checkMessages(out)
}

// checkMessages returns an error if an event id is not a UUID.
func checkMessages(out []catalog.Outgoing) error {
	for _, o := range out {
		if _, err := uuid.Parse(o.Message.ID); err != nil {
			return fmt.Errorf("event id: %w", err)
		}
	}
	return nil
}

// snapshot returns the part of a product that a Store returns.
func snapshot(p catalog.Product) catalog.Product {
	if p.Deleted {
		return catalog.Product{ID: p.ID, Version: p.Version, Deleted: true}
	}
	return clone(p)
}

// assignIDs gives new images their ids, and dates those that are queued.
func (m *memory) assignIDs(p *catalog.Product) {
	for i := range p.Images {
		img := &p.Images[i]
		if img.ID != 0 {
			continue
		}
		m.images++
		img.ID, img.ProductID = m.images, p.ID
		if img.JobState == catalog.Queued {
			img.RequestedAt, img.NotBefore, img.DueAt = m.now, m.now, m.now
		}
	}
}

func (m *memory) InsertOnce(ctx context.Context, once catalog.IdempotencyKey, p catalog.Product,
	announce func(catalog.Product) []catalog.Outgoing, respond func(catalog.Product) (catalog.SavedResponse, error),
) (catalog.Product, catalog.SavedResponse, bool, error) {
	if err := ctx.Err(); err != nil {
		return catalog.Product{}, nil, false, err
	}
	key := memoryKey{once.Principal, once.Key}
	if saved, replayed, err := m.reserve(key, once.Fingerprint); replayed || err != nil {
		return catalog.Product{}, saved, replayed, err
	}
	p, out, err := m.draft(p, announce)
	var saved catalog.SavedResponse
	if err == nil {
		saved, err = respond(clone(p)) // not under the lock: it may call the store
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		delete(m.responses, key)
		return catalog.Product{}, nil, false, err
	}
	out = append(out, m.release(&p, catalog.Product{})...)
	m.products[p.ID], m.responses[key] = p, &memoryResponse{once.Fingerprint, saved}
	m.send(out)
	return clone(p), saved, false, m.afterCommit()
}

// reserve marks an unused key as in progress, or returns the response that was saved under it.
func (m *memory) reserve(key memoryKey, fingerprint string) (response catalog.SavedResponse, replayed bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	saved, used := m.responses[key]
	switch {
	case !used:
		m.responses[key] = nil
		return nil, false, nil
	case saved == nil:
		return nil, false, catalog.ErrInProgress
	case saved.fingerprint != fingerprint:
		return nil, false, catalog.ErrKeyReused
	default:
		return saved.saved, true, nil
	}
}

func (m *memory) Product(ctx context.Context, id catalog.ProductID) (catalog.Product, error) {
	m.mu.Lock()
	p, ok := m.products[id]
	p = snapshot(p)
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

func (m *memory) Edit(ctx context.Context, id catalog.ProductID,
	fn func(*catalog.Product, time.Time) (catalog.Change, error),
) (catalog.Product, error) {
	if err := ctx.Err(); err != nil {
		return catalog.Product{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	was, ok := m.products[id]
	if !ok {
		return catalog.Product{}, fault.New(fault.NotFound, "product_not_found", "no such product")
	}
	m.now = m.now.Add(m.step)
	p := snapshot(was)
	c, err := fn(&p, m.now)
	if err != nil {
		return catalog.Product{}, err
	}
	if err := checkEdit(was, p); err != nil {
		return catalog.Product{}, err
	}
	if was.Deleted {
		p = was // fn received only a part of it
	}
	deletions, err := m.apply(c)
	if err != nil {
		return catalog.Product{}, err
	}
	if p.Version != was.Version {
		p.UpdatedAt = m.now
	}
	p = clone(p)
	m.assignIDs(&p)
	out := append(slices.Clip(c.Outbox), m.release(&p, was)...)
	if err := checkMessages(out); err != nil {
		return catalog.Product{}, err
	}
	m.products[id], m.deletions = p, deletions
	m.backfill = append(m.backfill, c.Backfill...)
	m.send(out)
	return snapshot(p), m.afterCommit()
}

// checkEdit returns an error if fn has changed what Edit does not allow to change.
func checkEdit(was, p catalog.Product) error {
	switch {
	case was.Deleted && (!p.Deleted || p.Version != was.Version):
		return errors.New("a deleted product cannot be changed")
	case was.Deleted:
		return nil
	case p.Version < was.Version || p.Revision < was.Revision:
		return fmt.Errorf("version %d or revision %d is older than before", p.Version, p.Revision)
	}
	known := map[catalog.ImageID]catalog.Image{}
	for _, img := range was.Images {
		known[img.ID] = img
	}
	for i, img := range p.Images {
		old, ok := known[img.ID]
		delete(known, img.ID) // each image may occur once
		if img.Position != i || img.ID != 0 && (!ok || old.SourceURL != img.SourceURL || old.ProductID != img.ProductID) {
			return fmt.Errorf("image %d is at position %d, or unknown, or has another source", img.ID, img.Position)
		}
	}
	return nil
}

// apply returns the scheduled deletions after a change.
func (m *memory) apply(c catalog.Change) (map[string]*memoryDeletion, error) {
	deletions := maps.Clone(m.deletions)
	for _, prefix := range c.CancelDeletions {
		if in := deletions[prefix]; in == nil || in.started {
			return nil, catalog.ErrDeletionStarted
		}
		delete(deletions, prefix)
	}
	for _, in := range c.Deletions {
		if deletions[in.Prefix] != nil {
			return nil, fmt.Errorf("prefix %s written twice", in.Prefix)
		}
		deletions[in.Prefix] = &memoryDeletion{due: m.now.Add(in.Delay)}
	}
	return deletions, nil
}

// send adds messages to the outbox; a message whose id exists is not added.
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

// takeDue removes the messages that are due, and returns them in order.
func (m *memory) takeDue(testing.TB) []event.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	var due []event.Message
	m.outbox = slices.DeleteFunc(m.outbox, func(r outRow) bool {
		if r.due.After(m.now) {
			return false
		}
		due = append(due, r.Message)
		return true
	})
	return due
}

// row returns all fields of a product, also of a deleted one.
func (m *memory) row(id catalog.ProductID) catalog.Product {
	m.mu.Lock()
	defer m.mu.Unlock()
	return clone(m.products[id])
}

// change edits a product directly, without the service.
func (m *memory) change(id catalog.ProductID, fn func(*catalog.Product)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := clone(m.products[id])
	fn(&p)
	m.products[id] = p
}

func (m *memory) InsertUser(_ context.Context, u catalog.User) (catalog.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := catalog.EmailKey(u.Email)
	if slices.ContainsFunc(m.users, func(old catalog.User) bool { return catalog.EmailKey(old.Email) == key }) {
		return catalog.User{}, fault.New(fault.Conflict, "email_taken", "the e-mail address is taken")
	}
	u.ID, u.CreatedAt = catalog.UserID(len(m.users)+1), m.now
	m.users = append(m.users, u)
	return u, m.afterCommit()
}

func (m *memory) User(_ context.Context, id catalog.UserID) (catalog.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id < 1 || int(id) > len(m.users) {
		return catalog.User{}, fault.New(fault.NotFound, "user_not_found", "no such user")
	}
	return m.users[id-1], nil
}

func (m *memory) List(_ context.Context, q catalog.Query) (catalog.Page, error) {
	if q.UserID == 0 || q.Name != "" || q.MinPrice != nil || q.MaxPrice != nil || q.Sort != catalog.NewestFirst {
		return catalog.Page{}, fmt.Errorf("list %+v: want a user's products, newest first", q)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	page, size := catalog.Page{Products: []catalog.Product{}}, 0
	for id := m.last; id > 0; id-- {
		p, ok := m.products[id]
		if !ok || p.Deleted || p.UserID != q.UserID || q.After != nil && id >= q.After.ID {
			continue
		}
		if n := len(page.Products); n == q.Limit || q.MaxBytes > 0 && size >= q.MaxBytes {
			end := page.Products[n-1]
			page.Next = &catalog.Cursor{ID: end.ID, Price: end.Price}
			break
		}
		page.Products, size = append(page.Products, clone(p)), size+p.Size()
	}
	return page, m.afterCommit()
}

func (m *memory) SavePipeline(_ context.Context, hash string, document []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.pipelines[hash]; !known {
		m.pipelines[hash] = document
	}
	return m.afterCommit()
}

func (m *memory) Pipeline(_ context.Context, hash string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if doc, ok := m.pipelines[hash]; ok {
		return doc, nil
	}
	return nil, fault.New(fault.NotFound, "pipeline_not_found", "no such pipeline")
}
