package catalog_test

import (
	"context"
	"time"

	"vitrine.io/pkg/domain/catalog"
)

// The requests with an idempotency key of the store in memory. Like the real store, they save nothing if the change or the
// response fails.

func (m *memory) InsertUserOnce(ctx context.Context, once catalog.IdempotencyKey, u catalog.User,
	respond func(catalog.User) (catalog.SavedResponse, error),
) (catalog.SavedResponse, bool, error) {
	return m.once(once, func() (catalog.SavedResponse, error) {
		m.mu.Lock()
		users := m.users
		m.mu.Unlock()
		u, err := m.InsertUser(ctx, u)
		if err != nil {
			return nil, err
		}
		saved, err := respond(u)
		if err != nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.users = users
		}
		return saved, err
	})
}

func (m *memory) EditOnce(ctx context.Context, once catalog.IdempotencyKey, id catalog.ProductID,
	fn func(*catalog.Product, time.Time) (catalog.Change, error), respond func(catalog.Product) (catalog.SavedResponse, error),
) (edited catalog.Product, saved catalog.SavedResponse, replayed bool, err error) {
	saved, replayed, err = m.once(once, func() (catalog.SavedResponse, error) {
		before, outbox := m.row(id), len(m.sentAll())
		if edited, err = m.Edit(ctx, id, fn); err != nil {
			return nil, err
		}
		saved, err := respond(clone(edited))
		if err != nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.products[id], m.outbox = before, m.outbox[:outbox]
		}
		return saved, err
	})
	if err != nil || replayed {
		return catalog.Product{}, saved, replayed, err
	}
	return edited, saved, false, nil
}

// sentAll returns the messages in the outbox.
func (m *memory) sentAll() []outRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.outbox
}

// once calls act, and saves the response that it returns, unless one is saved.
func (m *memory) once(once catalog.IdempotencyKey, act func() (catalog.SavedResponse, error),
) (catalog.SavedResponse, bool, error) {
	key := memoryKey{once.Principal, once.Key}
	if saved, replayed, err := m.reserve(key, once.Fingerprint); replayed || err != nil {
		return saved, replayed, err
	}
	saved, err := act()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		delete(m.responses, key)
		return nil, false, err
	}
	m.responses[key] = &memoryResponse{once.Fingerprint, saved}
	return saved, false, nil
}
