package postgres

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/test/servers"
)

func TestNeverCancel(t *testing.T) {
	t.Parallel()
	cfg, err := Config{DSN: servers.Postgres(t)}.login()
	if err != nil {
		t.Fatal(err)
	}
	neverCancel(cfg)
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	if err := conn.PgConn().CancelRequest(t.Context()); !errors.Is(err, errNoCancel) {
		t.Errorf("got %v, want that no request is sent", err)
	}
}
