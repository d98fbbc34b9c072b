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

func TestMigrate(t *testing.T) {
	t.Parallel()
	t.Run("concurrent_and_repeated_runs_apply_each_once", testMigrateRace)
	t.Run("down_reverts_up", testMigrateDown)
	t.Run("broken_dsn_is_reported_without_password", testMigrateBrokenDSN)
	t.Run("failed_migration_keeps_earlier_ones", testMigrateFailure)
	t.Run("schemas_of_one_database_do_not_conflict", testMigrateSchemas)
	t.Run("trigram_extension_may_be_in_any_schema", testMigrateExtension)
}

func TestCheckSchema(t *testing.T) {
	t.Parallel()
	t.Run("missing_migration_is_unavailable", testCheckSchemaMissing)
	t.Run("read_privilege_suffices", testCheckSchemaReader)
}

func testMigrateRace(t *testing.T) {
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

func testMigrateDown(t *testing.T) {
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
		for range len(status) + 1 { // one more than there are: it has no effect
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

func testMigrateBrokenDSN(t *testing.T) {
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

func testCheckSchemaMissing(t *testing.T) {
	t.Parallel()
	cfg := postgres.Config{DSN: servers.Postgres(t)}
	conn := connect(t, cfg.DSN)
	wantMissing := func(when, file string) {
		t.Helper()
		err := postgres.CheckSchema(t.Context(), cfg)
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v, want unavailable, with %s", when, err, file)
		}
	}
	wantMissing("an empty database", "00001_")
	if !scalar[bool](t, conn, "SELECT to_regclass('goose_db_version') IS NULL") {
		t.Error("the check created a table")
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
	wantMissing("one step back", status[len(status)-1].Name)
	run(t, conn, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)")
	wantMissing("a newer one is applied, but not ours", status[len(status)-1].Name)
	run(t, conn, "DELETE FROM goose_db_version WHERE version_id = 99999")
	if err := postgres.Migrate(t.Context(), cfg, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	run(t, conn, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)")
	if err := postgres.CheckSchema(t.Context(), cfg); err != nil {
		t.Errorf("with a migration of a newer program: %v", err)
	}
}

func testCheckSchemaReader(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	conn := connect(t, dsn)
	schema := scalar[string](t, conn, "SELECT current_schema()")
	reader := "r_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	run(t, conn, "CREATE ROLE "+reader+" LOGIN")
	t.Cleanup(func() {
		admin, err := pgx.Connect(context.WithoutCancel(t.Context()), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = admin.Close(context.WithoutCancel(t.Context())) }()
		if _, err := admin.Exec(context.WithoutCancel(t.Context()), "DROP OWNED BY "+reader+"; DROP ROLE "+reader); err != nil {
			t.Error(err)
		}
	})
	run(t, conn, "GRANT USAGE ON SCHEMA "+schema+" TO "+reader)
	if err := postgres.CheckSchema(t.Context(), postgres.Config{DSN: dsn, Username: reader}); !fault.Is(err, fault.Internal) {
		t.Errorf("without the privilege: got %v, want an internal error", err)
	}
	run(t, conn, "GRANT SELECT ON goose_db_version TO "+reader)
	if err := postgres.CheckSchema(t.Context(), postgres.Config{DSN: dsn, Username: reader}); err != nil {
		t.Errorf("got %v", err)
	}
}

func testMigrateFailure(t *testing.T) {
	t.Parallel()
	dsn := servers.Postgres(t)
	conn := connect(t, dsn)
	run(t, conn, "CREATE TABLE intents (x integer)") // conflicts with the second migration
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

// newDatabase returns the DSN of a new, empty database without the extension.
func newDatabase(t *testing.T) *url.URL {
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

func testMigrateSchemas(t *testing.T) {
	t.Parallel()
	u := newDatabase(t)
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

func testMigrateExtension(t *testing.T) {
	t.Parallel()
	u := newDatabase(t)
	conn := connect(t, u.String())
	run(t, conn, "CREATE SCHEMA extensions")
	run(t, conn, "CREATE EXTENSION pg_trgm WITH SCHEMA extensions")
	run(t, conn, "CREATE SCHEMA app")
	if err := postgres.Migrate(t.Context(), postgres.Config{DSN: inSchema(u, "app")}, zap.NewNop()); err != nil {
		t.Errorf("migrate: %v", err)
	}
}

// docs/schema.sql is the schema that the migrations create. .ci/generate.sh rewrites it with -run Schema -update.
func TestSchema(t *testing.T) {
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
		t.Errorf("%s differs from the migrations; rewrite it with: go test ./pkg/adapter/postgres -run Schema -update\n%s",
			path, got)
	}
}

// dump returns the schema of a database as SQL, without the parts that differ between two dumps.
func dump(t *testing.T, dsn string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("parse dsn: %v", err)
	}
	schema, _, _ := strings.Cut(cfg.RuntimeParams["search_path"], ",")
	cmd := exec.CommandContext(t.Context(), "pg_dump", "--schema-only", "--no-owner", "--no-privileges",
		"--schema="+schema, "--exclude-table=*.goose_*", "--exclude-table=*.idempotency_keys_2*", // partitions of days
		"--host="+cfg.Host, "--port="+strconv.Itoa(int(cfg.Port)),
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
	return "-- The schema that the migrations create. Written by: go test ./pkg/adapter/postgres -run Schema -update\n\n" +
		strings.TrimSpace(text) + "\n"
}
