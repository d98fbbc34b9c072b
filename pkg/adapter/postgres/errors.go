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

// SQLSTATE codes that this package handles. https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	foreignKeyViolation  = "23503"
	uniqueViolation      = "23505"
	checkViolation       = "23514" // also: no partition takes the row
	notInRepertoire      = "22021" // a NUL or an invalid sequence in a text
	untranslatable       = "22P05" // the same, inside JSON
	undefinedTable       = "42P01"
	invalidJSON          = "22P02" // a parameter that is not of its type
	readOnlyTransaction  = "25006" // the server has become a standby
	idleInTransaction    = "25P03"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	lockNotAvailable     = "55P03"
	queryCanceled        = "57014" // statement_timeout
)

// Classes of SQLSTATE codes that the server causes, and not the statement.
const (
	classConnection = "08"
	classLogin      = "28" // credentials are wrong or being rotated; only an operator can correct them
	classResources  = "53"
	classOperator   = "57" // shutdown, starting up, statement_timeout
	classSystem     = "58" // the server's disk
)

// callerError passes an error of the caller's own function through translate unchanged.
type callerError struct{ error }

// translate classifies an error of database/sql, gorm or pgx. It is called once, where a call leaves the package. It
// returns context.Canceled and errors that have a kind unchanged. An error that it does not know gets no kind, and so
// counts as fault.Internal.
func translate(err error) error {
	var caller callerError
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &caller):
		return caller.error
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
		return fault.Wrap(err, fault.Invalid, "invalid_text", "a text contains a character that cannot be stored")
	case serializationFailure, deadlockDetected, lockNotAvailable, idleInTransaction:
		return unavailable(err, "the database is busy")
	case readOnlyTransaction:
		return unavailable(err, "the database accepts no writes")
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

// broken reports whether err means that a connection could not be opened, or broke.
func broken(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone)
}

// translateCommit classifies an error of COMMIT: either the transaction was rolled back, or its outcome is unknown
// (catalog.ErrOutcomeUnknown).
func translateCommit(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrTxDone): // the end of ctx rolled it back before COMMIT was sent
		if cause := ctx.Err(); cause != nil {
			return translate(cause)
		}
		return err
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return err
	case errors.As(err, &pg) && pg.Severity == "ERROR": // rolled back; FATAL may come after the commit
		return translate(err)
	default: // pgconn.SafeToRetry does not help: if no reply arrives, pgx 5.12 reports that nothing was sent
		return fmt.Errorf("commit: %w: %w", catalog.ErrOutcomeUnknown, err)
	}
}

// violates reports whether err is a violation of that constraint with that SQLSTATE.
func violates(err error, state, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == state && pg.ConstraintName == constraint
}
