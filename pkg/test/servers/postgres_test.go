package servers_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	t.Run("schema_per_test", testPostgresSchemaPerTest)
	t.Run("trigrams_are_on_search_path", testPostgresTrigramsAreOnSearchPath)
	t.Run("database_of_another_locale", testPostgresDatabaseOfAnotherLocale)
}

func testPostgresSchemaPerTest(t *testing.T) {
	t.Parallel()
	one, other := connect(t, servers.Postgres(t)), connect(t, servers.Postgres(t))
	exec(t, one, "CREATE TABLE thing (id int)")
	exec(t, other, "CREATE TABLE thing (name text)")
	exec(t, other, "INSERT INTO thing VALUES ('x')")
	var got int
	if err := one.QueryRow(t.Context(), "SELECT count(*) FROM thing").Scan(&got); err != nil || got != 0 {
		t.Errorf("got %d rows, error %v; want none: the other test's table is in another schema", got, err)
	}
}

func testPostgresTrigramsAreOnSearchPath(t *testing.T) {
	t.Parallel()
	conn := connect(t, servers.Postgres(t))
	exec(t, conn, "CREATE TABLE thing (name text)")
	exec(t, conn, "CREATE INDEX ON thing USING gin (name gin_trgm_ops)")
}

func testPostgresDatabaseOfAnotherLocale(t *testing.T) {
	t.Parallel()
	for _, locale := range []string{"C", "C.UTF-8"} {
		conn := connect(t, servers.PostgresLocale(t, locale))
		exec(t, conn, "CREATE TABLE thing (name text)")
		exec(t, conn, "CREATE INDEX ON thing USING gin (name gin_trgm_ops)")
		var ctype, encoding string
		err := conn.QueryRow(t.Context(), `SELECT datctype, pg_encoding_to_char(encoding) FROM pg_database
			WHERE datname = current_database()`).Scan(&ctype, &encoding)
		if err != nil || ctype != locale || encoding != "UTF8" {
			t.Errorf("got the character type %s and the encoding %s, error %v; want %s and UTF8", ctype, encoding, err, locale)
		}
	}
}
