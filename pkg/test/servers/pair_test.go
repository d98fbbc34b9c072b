package servers_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/test/servers"
)

func TestPair(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a server; `make test` runs it")
	}
	p, err := servers.StartPair(os.Getenv, func(primary string) string { return primary })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	conn := connect(t, p.DSN)
	exec(t, conn, "CREATE TABLE thing (id int)")
	if err := p.Standby.Kill(); err != nil {
		t.Fatal(err)
	}
	inserted := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "INSERT INTO thing VALUES (1)")
		inserted <- err
	}()
	other := connect(t, p.DSN)
	eventually(ctx, t, "the commit waits for the standby", func() bool {
		var waiting int
		const query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
		return other.QueryRow(ctx, query).Scan(&waiting) == nil && waiting == 1
	})
	if err := p.Standby.Start(); err != nil {
		t.Fatal(err)
	}
	if err := <-inserted; err != nil {
		t.Fatal(err)
	}
	if err := p.Primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Standby.Await(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	promoted, err := pgx.Connect(ctx, p.StandbyDSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { promoted.Close(t.Context()) })
	exec(t, promoted, "INSERT INTO thing VALUES (2)") // no commit waits any more
	var rows int
	if err := promoted.QueryRow(ctx, "SELECT count(*) FROM thing").Scan(&rows); err != nil || rows != 2 {
		t.Errorf("got %d rows, error %v; want that of the primary and the new one", rows, err)
	}
}
