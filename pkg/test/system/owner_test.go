package system_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/test/servers"
)

func TestSetupBucketOwner(t *testing.T) {
	t.Parallel()
	env := emptyEnv(t)
	for range 2 { // safe to repeat
		if log, err := runCommand(t, env, nil, "setup"); err != nil || !hasLine(log, `"ready"`, `"owner"`) {
			t.Fatalf("got %v\n%s", err, log)
		}
	}
	log, err := runCommand(t, env, map[string]string{"VITRINE_POSTGRES_DSN": servers.Postgres(t)}, "setup")
	if err == nil || !hasLine(log, `"ended"`, "bucket_of_another", ".vitrine/installation") {
		t.Errorf("got %v, want an error that names the owner of the bucket\n%s", err, log)
	}
	if log, err := runCommand(t, env, nil, "setup"); err != nil {
		t.Errorf("setup by the owner fails: %v\n%s", err, log)
	}
}

func TestSetupLocale(t *testing.T) {
	t.Parallel()
	env := emptyEnv(t)
	dsn := servers.PostgresLocale(t, "C")
	log, err := runCommand(t, env, map[string]string{"VITRINE_POSTGRES_DSN": dsn}, "setup")
	if err == nil || !hasLine(log, `"ended"`, "database_locale", "CREATE DATABASE", "LC_CTYPE 'C.UTF-8'") {
		t.Errorf("got %v, want an error with the command that creates a suitable database\n%s", err, log)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var created bool
	if err := conn.QueryRow(t.Context(), "SELECT to_regclass('users') IS NOT NULL").Scan(&created); err != nil || created {
		t.Errorf("got %t, %v; want that nothing was created", created, err)
	}
}
