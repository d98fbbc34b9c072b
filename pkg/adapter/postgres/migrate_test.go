package postgres_test

import (
	"context"
	"flag"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/servers"
)

var update = flag.Bool("update", false, "rewrite docs/schema.sql from the migrations")

func TestMigrateMayRaceAndBeRepeated(t *testing.T) {
	t.Parallel()
	dsn := servers.Postgres(t)
	core, logs := observer.New(zap.InfoLevel)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := postgres.Migrate(t.Context(), postgres.Config{DSN: dsn}, zap.New(core)); err != nil {
				t.Errorf("migrate: %v", err)
			}
		})
	}
	wg.Wait()
	status, err := postgres.MigrationStatus(t.Context(), postgres.Config{DSN: dsn})
	if err != nil {
		t.Fatalf("status: %v", err)
	}
	for i, m := range status {
		if m.Version != int64(i+1) || !strings.HasSuffix(m.Name, ".sql") || m.AppliedAt.IsZero() {
			t.Errorf("got %+v, want version %d applied", m, i+1)
		}
	}
	if got := logs.FilterMessage("migration applied").Len(); got != len(status) || got == 0 {
		t.Errorf("got %d applications of %d migrations, want each once", got, len(status))
	}
}

func TestMigrationsLeadDownAsWellAsUp(t *testing.T) {
	t.Parallel()
	dsn := servers.Postgres(t)
	log := zaptest.NewLogger(t)
	for range 2 {
		if err := postgres.Migrate(t.Context(), postgres.Config{DSN: dsn}, log); err != nil {
			t.Fatalf("migrate: %v", err)
		}
		status, err := postgres.MigrationStatus(t.Context(), postgres.Config{DSN: dsn})
		if err != nil {
			t.Fatalf("status: %v", err)
		}
		for range len(status) + 1 { // once more than there are
			if err := postgres.MigrateDown(t.Context(), postgres.Config{DSN: dsn}, log); err != nil {
				t.Fatalf("migrate down: %v", err)
			}
		}
		if got := scalar[int64](t, connect(t, dsn), `SELECT count(*) FROM pg_class
			WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname NOT LIKE 'goose%'`); got != 0 {
			t.Errorf("got %d tables left, want none", got)
		}
	}
	status, err := postgres.MigrationStatus(t.Context(), postgres.Config{DSN: dsn})
	if err != nil || !status[0].AppliedAt.IsZero() {
		t.Errorf("got %+v and %v, want nothing applied", status, err)
	}
}

func TestMigrateRefusesABrokenDSN(t *testing.T) {
	t.Parallel()
	broken := postgres.Config{DSN: "postgres://u:secret@h:notaport/d"}
	if err := postgres.Migrate(t.Context(), broken, zap.NewNop()); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want an error without the password", err)
	}
	if err := postgres.CheckSchema(t.Context(), broken); err == nil ||
		strings.Contains(err.Error(), "secret") {
		t.Errorf("check: got %v, want an error without the password", err)
	}
}

func TestTheSchemaIsThereWhenEveryMigrationIs(t *testing.T) {
	t.Parallel()
	cfg := postgres.Config{DSN: servers.Postgres(t)}
	conn := connect(t, cfg.DSN)
	lacks := func(when, file string) {
		t.Helper()
		err := postgres.CheckSchema(t.Context(), cfg)
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v, want unavailable, with %s", when, err, file)
		}
	}
	lacks("an empty database", "00001_")
	if !scalar[bool](t, conn, "SELECT to_regclass('goose_db_version') IS NULL") {
		t.Error("the check has made a table")
	}
	if err := postgres.Migrate(t.Context(), cfg, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	if err := postgres.CheckSchema(t.Context(), cfg); err != nil {
		t.Errorf("migrated: %v", err)
	}
	if err := postgres.MigrateDown(t.Context(), cfg, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	status, err := postgres.MigrationStatus(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	lacks("one step back", status[len(status)-1].Name)
	run(t, conn, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)")
	lacks("a newer one, but not ours", status[len(status)-1].Name)
	run(t, conn, "DELETE FROM goose_db_version WHERE version_id = 99999")
	if err := postgres.Migrate(t.Context(), cfg, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	run(t, conn, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)")
	if err := postgres.CheckSchema(t.Context(), cfg); err != nil {
		t.Errorf("of a newer program: %v", err)
	}
}

func TestToReadIsEnoughToCheckTheSchema(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	conn := connect(t, dsn)
	schema := scalar[string](t, conn, "SELECT current_schema()")
	reader := "r_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	run(t, conn, "CREATE ROLE "+reader+" LOGIN")
	t.Cleanup(func() {
		again, err := pgx.Connect(context.WithoutCancel(t.Context()), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = again.Close(context.WithoutCancel(t.Context())) }()
		if _, err := again.Exec(context.WithoutCancel(t.Context()), "DROP OWNED BY "+reader+"; DROP ROLE "+reader); err != nil {
			t.Error(err)
		}
	})
	run(t, conn, "GRANT USAGE ON SCHEMA "+schema+" TO "+reader)
	if err := postgres.CheckSchema(t.Context(), postgres.Config{DSN: dsn, Username: reader}); !fault.Is(err, fault.Internal) {
		t.Errorf("without the right to read: got %v, want an error that waiting does not mend", err)
	}
	run(t, conn, "GRANT SELECT ON goose_db_version TO "+reader)
	if err := postgres.CheckSchema(t.Context(), postgres.Config{DSN: dsn, Username: reader}); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestAFailedMigrationLeavesWhatStoodBefore(t *testing.T) {
	t.Parallel()
	dsn := servers.Postgres(t)
	conn := connect(t, dsn)
	run(t, conn, "CREATE TABLE intents (x integer)") // in the way of the second migration
	if err := postgres.Migrate(t.Context(), postgres.Config{DSN: dsn}, zap.NewNop()); !fault.Is(err, fault.Internal) {
		t.Errorf("got %v, want an internal error", err)
	}
	if scalar[bool](t, conn, "SELECT to_regclass('products') IS NULL OR to_regclass('outbox') IS NOT NULL") {
		t.Error("want the first migration whole and nothing of the second")
	}
	run(t, conn, "DROP TABLE intents")
	if err := postgres.Migrate(t.Context(), postgres.Config{DSN: dsn}, zap.NewNop()); err != nil {
		t.Errorf("migrate after that: %v", err)
	}
}

// freshDatabase returns the DSN of a database of its own: nothing in it, not even the extension.
func freshDatabase(t *testing.T) *url.URL {
	t.Helper()
	dsn := servers.Postgres(t)
	name := "d_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	administer := func(statement string) {
		conn, err := pgx.Connect(context.WithoutCancel(t.Context()), dsn)
		if err != nil {
			t.Fatalf("connect: %v", err)
		}
		defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
		if _, err := conn.Exec(context.WithoutCancel(t.Context()), statement); err != nil {
			t.Fatalf("run %s: %v", statement, err)
		}
	}
	administer("CREATE DATABASE " + name)
	t.Cleanup(func() { administer("DROP DATABASE " + name + " WITH (FORCE)") })
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatalf("parse dsn: %v", err)
	}
	u.Path = "/" + name
	return u
}

func inSchema(u *url.URL, schema string) string {
	v := *u
	q := v.Query()
	q.Set("search_path", schema)
	v.RawQuery = q.Encode()
	return v.String()
}

func TestInstallationsThatShareADatabaseMigrateAtOnce(t *testing.T) {
	t.Parallel()
	u := freshDatabase(t)
	conn := connect(t, u.String())
	var wg sync.WaitGroup
	for i := range 4 {
		schema := "s" + strconv.Itoa(i)
		run(t, conn, "CREATE SCHEMA "+schema)
		wg.Go(func() {
			if err := postgres.Migrate(t.Context(), postgres.Config{DSN: inSchema(u, schema)}, zap.NewNop()); err != nil {
				t.Errorf("migrate %s: %v", schema, err)
			}
		})
	}
	wg.Wait()
}

func TestTheTrigramExtensionMayBeAnywhere(t *testing.T) {
	t.Parallel()
	u := freshDatabase(t)
	conn := connect(t, u.String())
	run(t, conn, "CREATE SCHEMA extensions")
	run(t, conn, "CREATE EXTENSION pg_trgm WITH SCHEMA extensions")
	run(t, conn, "CREATE SCHEMA app")
	if err := postgres.Migrate(t.Context(), postgres.Config{DSN: inSchema(u, "app")}, zap.NewNop()); err != nil {
		t.Errorf("migrate: %v", err)
	}
}

func TestTheSchemaInTheDocsIsWhatTheMigrationsMake(t *testing.T) {
	t.Parallel()
	const path = "../../../docs/schema.sql"
	got := dump(t, migrated(t))
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatalf("write: %v", err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the migrations make; go test ./pkg/adapter/postgres -run Schema -update rewrites it. Now:\n%s", path, got)
	}
}

// dump returns the schema of a database as SQL, without what differs from one dump to the next.
func dump(t *testing.T, dsn string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("parse dsn: %v", err)
	}
	schema, _, _ := strings.Cut(cfg.RuntimeParams["search_path"], ",")
	cmd := exec.CommandContext(t.Context(), "pg_dump", "--schema-only", "--no-owner", "--no-privileges",
		"--schema="+schema, "--exclude-table=*.goose_*", "--host="+cfg.Host, "--port="+strconv.Itoa(int(cfg.Port)),
		"--username="+cfg.User, cfg.Database)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run pg_dump (apt-get install postgresql-client): %v\n%s", err, stderr.String())
	}
	text := strings.ReplaceAll(string(out), schema+".", "")
	text = regexp.MustCompile(`(?m)^(--|SET |SELECT pg_catalog|CREATE SCHEMA|\\).*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`\n{3,}`).ReplaceAllString(text, "\n\n")
	return "-- What the migrations add up to. Written by: go test ./pkg/adapter/postgres -run Schema -update\n\n" +
		strings.TrimSpace(text) + "\n"
}
