package devstack_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/foundation/process"
	"vitrine.io/pkg/platform/devstack"
)

// query runs one statement on the server and returns its single number.
func query(t *testing.T, p *devstack.Postgres, statement string) int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var n int
	if err := conn.QueryRow(t.Context(), statement).Scan(&n); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	return n
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	t.Run("restart_keeps_data", testPostgresRestartKeepsData)
	t.Run("start_errors_name_cause", testPostgresStartErrorsNameCause)
}

func testPostgresRestartKeepsData(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs PostgreSQL's programs; make test runs it")
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) { // Postgres' user has to enter it
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cfg := devstack.PostgresConfig{Dir: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log")}
	thread := process.NewForkThread()
	defer thread.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i, statement := range []string{"CREATE TABLE kept AS SELECT 42 AS n", "SELECT n FROM kept"} {
		p, err := devstack.StartPostgres(ctx, cfg, thread)
		if err != nil {
			t.Fatal(err)
		}
		if got := query(t, p, statement); i == 1 && got != 42 {
			t.Errorf("after a restart: got %d, want 42", got)
		}
		select {
		case <-p.Exited():
			t.Error("Exited is closed")
		default:
		}
		_, err = devstack.StartPostgres(ctx, cfg, thread)
		if err == nil || !strings.Contains(err.Error(), "running in data directory") {
			t.Errorf("a second server on the same data: got %v", err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		<-p.Exited()
	}
}

func testPostgresStartErrorsNameCause(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs PostgreSQL's programs; make test runs it")
	}
	thread := process.NewForkThread()
	defer thread.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := devstack.PostgresConfig{Dir: filepath.Join(t.TempDir(), "data"), Addr: l.Addr().String()}
	if _, err := devstack.StartPostgres(t.Context(), taken, thread); err == nil || !strings.Contains(err.Error(), taken.Addr) {
		t.Errorf("port in use: got %v, want an error with its address", err)
	}
	closed := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(closed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bad := devstack.PostgresConfig{Dir: filepath.Join(closed, "data"), Log: filepath.Join(t.TempDir(), "log")}
	if _, err := devstack.StartPostgres(t.Context(), bad, thread); err == nil {
		t.Error("a directory that cannot be created: got no error")
	}
}

func TestPostgresUser(t *testing.T) {
	t.Parallel()
	if cred, err := devstack.PostgresUser(1000); err != nil || cred != nil {
		t.Errorf("for an ordinary user: got %v, %v, want nil", cred, err)
	}
	if cred, err := devstack.PostgresUser(0); err != nil || cred == nil || cred.Uid == 0 {
		t.Errorf("for root: got %v, %v, want another user", cred, err)
	}
}
