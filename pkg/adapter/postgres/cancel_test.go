package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/test/servers"
)

// A COMMIT waits for a standby that is away, and its call ends. Until the standby has the transaction, it stays invisible:
// the same request is in progress. After a cancel request it would be answered with a response that a failover loses.
func TestCommitThatWaitsForStandby(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a server; `make test` runs it")
	}
	pair, err := servers.StartPair(os.Getenv, func(primary string) string { return primary })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pair.Stop(); err != nil {
			t.Error(err)
		}
	})
	cfg := config(pair.DSN)
	if err := postgres.Migrate(t.Context(), cfg, zaptest.NewLogger(t)); err != nil {
		t.Fatal(err)
	}
	store, watcher := postgres.NewStore(open(t, cfg, prometheus.NewRegistry())), connect(t, pair.DSN)
	key := catalog.IdempotencyKey{Principal: "1", Key: "key", Fingerprint: "print"}
	if err := pair.Standby.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	saved := make(chan error, 1)
	go func() {
		_, err := store.SaveResponse(ctx, key, catalog.SavedResponse("response"))
		saved <- err
	}()
	awaitNil(t, "the COMMIT waits for the standby", func() error {
		var waiting int
		err := watcher.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&waiting)
		if err == nil && waiting != 1 {
			err = fmt.Errorf("%d commits wait", waiting)
		}
		return err
	})
	cancel()
	if err := <-saved; !errors.Is(err, catalog.ErrOutcomeUnknown) {
		t.Errorf("got %v, want an unknown outcome", err)
	}
	for range 100 { // a cancel request would need some time
		if _, err := store.SaveResponse(t.Context(), key, nil); !errors.Is(err, catalog.ErrInProgress) {
			t.Fatalf("before the standby has the transaction: got %v, want that it is in progress", err)
		}
	}
	if err := pair.Standby.Start(); err != nil {
		t.Fatal(err)
	}
	awaitNil(t, "the standby has the transaction", func() error {
		response, err := store.SaveResponse(t.Context(), key, nil)
		if err == nil && string(response) != "response" {
			err = fmt.Errorf("got %q", response)
		}
		return err
	})
}
