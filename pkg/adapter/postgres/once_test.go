package postgres_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/shopspring/decimal"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
)

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	t.Run("schemas_of_one_database_have_separate_keys", testKeysOfSchemas)
	t.Run("first_saved_response_is_kept", testFirstSavedResponseIsKept)
}

// insertOnce inserts a product of the only user with a key, and calls respond inside the transaction.
func insertOnce(t *testing.T, store *postgres.Store, key string, respond func()) {
	t.Helper()
	_, _, replayed, err := store.InsertOnce(t.Context(), catalog.IdempotencyKey{Principal: "1", Key: key, Fingerprint: "print"},
		catalog.Product{UserID: 1, Name: "Lamp", Price: decimal.New(1250, -2), Version: 1, Revision: 1},
		func(catalog.Product) []catalog.Outgoing { return nil },
		func(catalog.Product) (catalog.SavedResponse, error) {
			respond()
			return catalog.SavedResponse("response"), nil
		})
	if err != nil || replayed {
		t.Errorf("key %s: got %v, replayed %v, want a first request", key, err, replayed)
	}
}

func testKeysOfSchemas(t *testing.T) {
	t.Parallel()
	var stores []*postgres.Store
	for range 2 {
		dsn := migrated(t)
		seed(t, connect(t, dsn))
		stores = append(stores, postgres.NewStore(open(t, config(dsn), prometheus.NewRegistry())))
	}
	key := uuid.NewString()
	insertOnce(t, stores[0], key, func() { insertOnce(t, stores[1], key, func() {}) })
}

func testFirstSavedResponseIsKept(t *testing.T) {
	t.Parallel()
	store := postgres.NewStore(open(t, config(migrated(t)), prometheus.NewRegistry()))
	key := catalog.IdempotencyKey{Principal: "images", Key: uuid.NewString(), Fingerprint: "print"}
	if saved, found, err := store.SavedResponse(t.Context(), key); err != nil || found {
		t.Errorf("an unused key: got %s, found %v and %v", saved, found, err)
	}
	for _, response := range []string{"first", "second"} {
		saved, err := store.SaveResponse(t.Context(), key, catalog.SavedResponse(response))
		if err != nil || string(saved) != "first" {
			t.Errorf("save %s: got %s and %v, want the first one", response, saved, err)
		}
	}
	if saved, found, err := store.SavedResponse(t.Context(), key); err != nil || !found || string(saved) != "first" {
		t.Errorf("got %s, found %v and %v", saved, found, err)
	}
	key.Fingerprint = "another"
	if _, _, err := store.SavedResponse(t.Context(), key); !errors.Is(err, catalog.ErrKeyReused) {
		t.Errorf("another request: got %v, want reused", err)
	}
	if _, err := store.SaveResponse(t.Context(), key, catalog.SavedResponse("third")); !errors.Is(err, catalog.ErrKeyReused) {
		t.Errorf("save for another request: got %v, want reused", err)
	}
}
