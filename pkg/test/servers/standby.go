package servers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/foundation/process"
)

// replicationSettings let a standby follow the server.
const replicationSettings = postgresSettings + `
wal_level = replica
max_wal_senders = 4
hot_standby = on
`

// PostgresPair starts a Postgres and a standby that replicates it, for this test only.
func PostgresPair(t testing.TB) (primary, standby *Server) {
	t.Helper()
	primary = own(t, func(dir *workDir, n *process.ForkThread) (*server, error) {
		return newPostgres(dir, n, initdb, replicationSettings)
	})
	primary.DSN = postgresDSN(primary.server, postgresDB)
	standby = own(t, buildStandby(primary.DSN))
	standby.DSN = postgresDSN(standby.server, postgresDB)
	return primary, standby
}

// buildStandby describes a server that replicates the primary that dsn leads to.
func buildStandby(dsn string) builder {
	return func(dir *workDir, n *process.ForkThread) (*server, error) {
		s, err := newPostgres(dir, n, func(r postgresRun) error {
			return r.run("pg_basebackup", "--dbname="+dsn, "--pgdata="+r.data, "--write-recovery-conf", "--checkpoint=fast",
				"--no-sync")
		}, "")
		if s != nil {
			s.alive, s.setup = nil, nil // the database comes from the primary
		}
		return s, err
	}
}

// CatchUp waits until a standby has applied everything that its primary has written so far.
func (s *Server) CatchUp(t testing.TB, primary *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	var written string
	if err := queryOne(ctx, primary.DSN, &written, "SELECT pg_current_wal_lsn()::text"); err != nil {
		t.Fatalf("servers: %v", err)
	}
	err := s.server.await(ctx, func(ctx context.Context) error {
		var applied bool
		err := queryOne(ctx, s.DSN, &applied, "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", written)
		if err == nil && !applied {
			err = fmt.Errorf("it has not applied %s", written)
		}
		return err
	})
	if err != nil {
		t.Fatalf("servers: %v", err)
	}
}

// Promote makes a standby accept writes, and returns when it does.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	if err := promote(t.Context(), s.DSN); err != nil {
		t.Fatalf("servers: %v", err)
	}
}

// promote makes the standby that dsn leads to accept writes, and returns when it does.
func promote(ctx context.Context, dsn string) error {
	var promoted bool
	err := queryOne(ctx, dsn, &promoted, "SELECT pg_promote(wait_seconds => $1)", int(startTimeout.Seconds()))
	if err == nil && !promoted {
		err = errors.New("it is still a standby")
	}
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	return nil
}

// BothDSN returns the URL of the database of s on s and on other, in this order.
func (s *Server) BothDSN(t testing.TB, other *Server) string {
	t.Helper()
	u, err := url.Parse(s.DSN)
	if err != nil {
		t.Fatalf("servers: %v", err)
	}
	u.Host += "," + other.Addrs[0]
	return u.String()
}

// queryOne reads one value on a new connection.
func queryOne(ctx context.Context, dsn string, into any, statement string, args ...any) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.QueryRow(ctx, statement, args...).Scan(into); err != nil {
		return fmt.Errorf("run %q: %w", statement, err)
	}
	return nil
}
