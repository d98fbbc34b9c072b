package postgres_test

import (
	"regexp"
	"strings"
	"testing"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/servers"
)

func TestCheckLocale(t *testing.T) {
	t.Parallel()
	t.Run("utf8_character_type_is_accepted", testCheckLocaleAccepted)
	t.Run("character_type_c_gets_a_command", testCheckLocaleC)
	t.Run("encoding_is_checked", testCheckLocaleEncoding)
}

func testCheckLocaleAccepted(t *testing.T) {
	t.Parallel()
	if err := postgres.CheckLocale(t.Context(), postgres.Config{DSN: servers.PostgresLocale(t, "C.UTF-8")}); err != nil {
		t.Error(err)
	}
}

// The command in the error creates a database that is accepted.
func testCheckLocaleC(t *testing.T) {
	t.Parallel()
	for _, locale := range []string{"C", "POSIX"} {
		dsn := servers.PostgresLocale(t, locale)
		err := postgres.CheckLocale(t.Context(), postgres.Config{DSN: dsn})
		if !fault.Is(err, fault.Conflict) || fault.CodeOf(err) != "database_locale" {
			t.Fatalf("%s: got %v, want a conflict database_locale", locale, err)
		}
		command := regexp.MustCompile(`CREATE DATABASE (\w+) [^;]*`).FindStringSubmatch(err.Error())
		if command == nil {
			t.Fatalf("%s: no command in %v", locale, err)
		}
		conn := connect(t, servers.Postgres(t))
		run(t, conn, command[0])
		defer run(t, conn, "DROP DATABASE "+command[1]+" WITH (FORCE)")
		name := scalar[string](t, connect(t, dsn), "SELECT current_database()")
		if err := postgres.CheckLocale(t.Context(), postgres.Config{DSN: strings.Replace(dsn, name, command[1], 1)}); err != nil {
			t.Errorf("the database of the command: %v", err)
		}
	}
}

func testCheckLocaleEncoding(t *testing.T) {
	t.Parallel()
	dsn := servers.PostgresLocale(t, "C")
	name := scalar[string](t, connect(t, dsn), "SELECT current_database()")
	conn := connect(t, servers.Postgres(t))
	run(t, conn, "CREATE DATABASE "+name+"_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
	defer run(t, conn, "DROP DATABASE "+name+"_ascii WITH (FORCE)")
	err := postgres.CheckLocale(t.Context(), postgres.Config{DSN: strings.Replace(dsn, name, name+"_ascii", 1)})
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "SQL_ASCII") {
		t.Errorf("got %v, want a conflict that names the encoding", err)
	}
}
