package postgres

import (
	"context"
	"database/sql"
	"fmt"

	"vitrine.io/pkg/foundation/fault"
)

// selectLocale returns the name, encoding and character type of the database, and the command that creates a suitable one.
const selectLocale = `
SELECT datname, pg_encoding_to_char(encoding), datctype,
    format('CREATE DATABASE %I OWNER %I TEMPLATE template0 ENCODING ''UTF8'' LC_COLLATE ''C.UTF-8'' LC_CTYPE ''C.UTF-8''',
        datname || '_utf8', pg_get_userbyid(datdba))
FROM pg_database WHERE datname = current_database()`

// selectFolding tells whether the database knows the two cases of a Cyrillic letter. The default collation of a database may
// have another provider than the character type, which pg_trgm uses.
const selectFolding = `SELECT chr(1050) ILIKE chr(1082) AND chr(1050) ~ '^[[:alpha:]]$'`

// CheckLocale returns fault.Conflict if the encoding of the database is not UTF-8, or if its character type does not know
// letters outside ASCII: lists could not search names in other scripts, because these would have no trigrams, and would
// compare letters such as "Ä" and "ä" as different. The encoding and the character type of a database cannot be changed, so
// the detail has the command that creates another database. fault.Unavailable if the database cannot be asked.
func CheckLocale(ctx context.Context, cfg Config) error {
	pool, err := migrationPool(cfg, nil)
	if err != nil {
		return fmt.Errorf("check locale: %w", err)
	}
	defer func() { _ = pool.Close() }()
	if err := checkLocale(ctx, pool); err != nil {
		return fmt.Errorf("check locale: %w", translate(err))
	}
	return nil
}

func checkLocale(ctx context.Context, pool *sql.DB) error {
	var name, encoding, ctype, command string
	if err := pool.QueryRowContext(ctx, selectLocale).Scan(&name, &encoding, &ctype, &command); err != nil {
		return err
	}
	suitable := encoding == "UTF8" && ctype != "C" && ctype != "POSIX"
	if suitable {
		if err := pool.QueryRowContext(ctx, selectFolding).Scan(&suitable); err != nil {
			return err
		}
	}
	if suitable {
		return nil
	}
	return fault.New(fault.Conflict, "database_locale", fmt.Sprintf("the database %s has the encoding %s and the character "+
		"type (LC_CTYPE) %s, with which names outside ASCII cannot be searched. Create another database, with C.UTF-8 or another "+
		"UTF-8 locale of the server, and name it in the DSN: %s;", name, encoding, ctype, command))
}
