package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// SQLSTATE codes that mean something to a caller. https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	foreignKeyViolation  = "23503"
	uniqueViolation      = "23505"
	notInRepertoire      = "22021" // a NUL or a broken sequence in a text
	untranslatable       = "22P05" // the same, inside JSON
	undefinedTable       = "42P01"
	invalidJSON          = "22P02" // a parameter that is not of its type
	readOnlyTransaction  = "25006" // connected to a server that has become a standby
	idleInTransaction    = "25P03"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	lockNotAvailable     = "55P03"
	queryCanceled        = "57014" // statement_timeout
)

// The classes of SQLSTATE codes that say that the server, not the statement, is in trouble.
const (
	classConnection = "08"
	classLogin      = "28" // credentials are being rotated, or wrong: the caller can only wait for the operator
	classResources  = "53"
	classOperator   = "57" // shutdown, starting up, statement_timeout
	classSystem     = "58" // the server's disk
)

// callerError carries an error through translate untouched: it belongs to the caller's own function.
type callerError struct{ error }

// translate classifies what database/sql, gorm and pgx return. It is called once, where a call leaves the package. What
// is already classified, and a cancelled context, stay as they are; what nothing here knows stays Internal.
func translate(err error) error {
	var verbatim callerError
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &verbatim):
		return verbatim.error
	case fault.From(err) != nil, errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &pg):
		return translateState(pg, err)
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return unavailable(err, "the database did not answer in time")
	case broken(err):
		return unavailable(err, "the database cannot be reached")
	default:
		return err
	}
}

func translateState(pg *pgconn.PgError, err error) error {
	switch pg.Code {
	case notInRepertoire, untranslatable:
		return fault.Wrap(err, fault.Invalid, "invalid_text", "a text holds a character that cannot be stored")
	case serializationFailure, deadlockDetected, lockNotAvailable, readOnlyTransaction, idleInTransaction:
		return unavailable(err, "the database is busy")
	}
	switch pg.Code[:min(2, len(pg.Code))] {
	case classConnection, classLogin, classResources, classOperator, classSystem:
		return unavailable(err, "the database is not available")
	}
	return err
}

func unavailable(cause error, detail string) error {
	return fault.Wrap(cause, fault.Unavailable, "database_unavailable", detail)
}

// broken reports whether err is a connection that could not be made or did not last.
func broken(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone)
}

// translateCommit classifies an error of COMMIT itself: did it certainly not happen, or is that unknown?
func translateCommit(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrTxDone): // the end of ctx has rolled it back before COMMIT was sent
		if cause := ctx.Err(); cause != nil {
			return translate(cause)
		}
		return err
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return err
	case errors.As(err, &pg) && pg.Severity == "ERROR": // the server says it rolled back; FATAL may come after the commit
		return translate(err)
	default: // pgconn.SafeToRetry is no help: of an answer that never came, pgx 5.12 says that nothing was sent
		return fmt.Errorf("commit: %w: %w", catalog.ErrOutcomeUnknown, err)
	}
}

// violates reports whether err is a violation of that constraint, of the kind that state names.
func violates(err error, state, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == state && pg.ConstraintName == constraint
}
