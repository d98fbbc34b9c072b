package postgres_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/foundation/fault"
)

// login is what a client sends to log in.
type login struct{ user, password, database string }

// rejectingServer starts a server that requests a cleartext password, records the login and rejects it.
func rejectingServer(t *testing.T) (addr string, seen <-chan login) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	logins, closed := make(chan login, 16), make(chan struct{})
	go func() {
		defer close(closed)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if l, err := readLogin(conn); err == nil {
				logins <- l
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-closed })
	return l.Addr().String(), logins
}

func readLogin(conn net.Conn) (login, error) {
	server := pgproto3.NewBackend(conn, conn)
	startup, err := server.ReceiveStartupMessage()
	if err != nil {
		return login{}, err
	}
	server.Send(&pgproto3.AuthenticationCleartextPassword{})
	if err := server.Flush(); err != nil {
		return login{}, err
	}
	if err := server.SetAuthType(pgproto3.AuthTypeCleartextPassword); err != nil {
		return login{}, err
	}
	reply, err := server.Receive()
	if err != nil {
		return login{}, err
	}
	l := login{database: "?"}
	if password, ok := reply.(*pgproto3.PasswordMessage); ok {
		l.password = password.Password
	}
	if message, ok := startup.(*pgproto3.StartupMessage); ok {
		l.user, l.database = message.Parameters["user"], message.Parameters["database"]
	}
	server.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "rejected"})
	return l, server.Flush()
}

// Username and Password replace those of the DSN in every connection.
func TestLogin(t *testing.T) {
	t.Parallel()
	const awkward = `p@ss:w/o?r#d%20 '"\ ü&` // characters that have a meaning in a URL
	addr, seen := rejectingServer(t)
	for name, test := range map[string]struct {
		dsn, user, password string
		want                login
	}{
		"the DSN alone":    {"u:p@", "", "", login{"u", "p", "shop"}},
		"both":             {"u:p@", "ada", awkward, login{"ada", awkward, "shop"}},
		"nothing in a DSN": {"", "ada", awkward, login{"ada", awkward, "shop"}},
		"a password":       {"u@", "", awkward, login{"u", awkward, "shop"}},
		"a user":           {"u:p@", "ada", "", login{"ada", "p", "shop"}},
	} {
		cfg := config("postgres://" + test.dsn + addr + "/shop?sslmode=disable")
		cfg.Username, cfg.Password = test.user, test.password
		if wrong := cfg.Validate(); wrong != nil {
			t.Errorf("%s: %v", name, wrong)
		}
		db := open(t, cfg, prometheus.NewRegistry())
		outbox := outboxOf(t, db)
		for call, do := range map[string]func(context.Context) error{
			"store":  db.Ping,
			"outbox": func(ctx context.Context) error { _, err := outbox.PublishBatch(ctx, 1, nil); return err },
			"up":     func(ctx context.Context) error { return postgres.Migrate(ctx, cfg, zap.NewNop()) },
			"down":   func(ctx context.Context) error { return postgres.MigrateDown(ctx, cfg, zap.NewNop()) },
			"status": func(ctx context.Context) error { _, err := postgres.MigrationStatus(ctx, cfg); return err },
			"check":  func(ctx context.Context) error { return postgres.CheckSchema(ctx, cfg) },
		} {
			err := do(t.Context())
			if !fault.Is(err, fault.Unavailable) || strings.Contains(err.Error(), awkward) {
				t.Errorf("%s, %s: got %v, want unavailable and no password", name, call, err)
			}
			if got := <-seen; got != test.want {
				t.Errorf("%s, %s: got %+v, want %+v", name, call, got, test.want)
			}
		}
	}
}

func testConfigCertificate(t *testing.T) {
	t.Parallel()
	garbage := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(garbage, []byte("not PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"/nowhere/ca.crt": "open /nowhere/ca.crt: no such file", garbage: "without a certificate",
	} {
		wrong := config("postgres://u:secret@h/d?sslmode=verify-full&sslrootcert=" + file).Validate()
		if len(wrong) != 1 || wrong[0].Path != "DSN" || !strings.Contains(wrong[0].Detail, want) ||
			strings.Contains(wrong[0].Detail, "secret") {
			t.Errorf("%s: got %+v, want the DSN, with %q", file, wrong, want)
		}
	}
}
