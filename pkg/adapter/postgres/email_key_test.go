package postgres_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/servers"
)

// The migration of e-mail keys, on both kinds of database.
func TestEmailKeys(t *testing.T) {
	t.Parallel()
	for _, locale := range []string{"C", "C.UTF-8"} {
		t.Run("old_users_get_keys_under_"+locale, func(t *testing.T) {
			t.Parallel()
			testEmailKeysOldUsers(t, servers.PostgresLocale(t, locale))
		})
	}
	t.Run("two_spellings_of_one_address_are_reported", testEmailKeysConflict)
}

// withOldUsers returns a connection to a database as it was before the migration of e-mail keys, with a user for each
// address.
func withOldUsers(t *testing.T, dsn string, emails ...string) *pgx.Conn {
	t.Helper()
	cfg := postgres.Config{DSN: dsn}
	if err := postgres.Migrate(t.Context(), cfg, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, dsn)
	for scalar[bool](t, conn, "SELECT max(version_id) >= 8 FROM goose_db_version WHERE is_applied") {
		if err := postgres.MigrateDown(t.Context(), cfg, zap.NewNop()); err != nil {
			t.Fatal(err)
		}
	}
	for _, email := range emails {
		run(t, conn, "INSERT INTO users (name, email) VALUES ('u', $1)", email)
	}
	return conn
}

func testEmailKeysOldUsers(t *testing.T, dsn string) {
	t.Helper()
	emails := []string{"Ada@Example.com", "ÄB@x.de", "e\u0301va@example.com", "ДОМ@пример.рф"}
	conn := withOldUsers(t, dsn, emails...)
	for range 2 {
		if err := postgres.Migrate(t.Context(), postgres.Config{DSN: dsn}, zap.NewNop()); err != nil {
			t.Fatal(err)
		}
		for _, email := range emails {
			got := scalar[string](t, conn, "SELECT email_key FROM users WHERE email = $1", email)
			if want := catalog.EmailKey(email); got != want {
				t.Errorf("%s: got the key %s, want %s", email, got, want)
			}
		}
	}
	if err := postgres.CheckSchema(t.Context(), postgres.Config{DSN: dsn}); err != nil {
		t.Errorf("check: %v", err)
	}
}

func testEmailKeysConflict(t *testing.T) {
	t.Parallel()
	cfg := postgres.Config{DSN: servers.PostgresLocale(t, "C")}
	conn := withOldUsers(t, cfg.DSN, "WEISS@x.de", "Éva@x.de", "weiß@x.de", "éva@x.de", "ada@x.de")
	for range 2 { // a repetition reports it again
		err := postgres.Migrate(t.Context(), cfg, zap.NewNop())
		if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "1, 3; 2, 4.") {
			t.Fatalf("got %v, want a conflict of the users 1 and 3, and of 2 and 4", err)
		}
		if err := postgres.CheckSchema(t.Context(), cfg); !fault.Is(err, fault.Unavailable) {
			t.Errorf("check: got %v, want unavailable", err)
		}
	}
	run(t, conn, "UPDATE users SET email = 'other' || id || '@x.de', email_key = NULL WHERE id IN (1, 4)")
	if err := postgres.Migrate(t.Context(), cfg, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	if got := scalar[string](t, conn, "SELECT string_agg(email_key, ' ' ORDER BY id) FROM users"); got !=
		"other1@x.de éva@x.de weiss@x.de other4@x.de ada@x.de" {
		t.Errorf("got the keys %s", got)
	}
}
