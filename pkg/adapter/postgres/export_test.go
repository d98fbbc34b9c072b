package postgres

import (
	"time"

	"go.uber.org/zap"
	gormlog "gorm.io/gorm/logger"

	"vitrine.io/pkg/domain/catalog"
)

// Internals for tests: the classification of errors, the SQL of lists, and the adapters for gorm.
var (
	Translate       = translate
	TranslateCommit = translateCommit
	Outcome         = outcome
	SelectDepth     = selectDepth
)

// ListQuery returns the SQL of a list and its arguments, without the one for pgx.
func ListQuery(q catalog.Query) (string, []any) {
	text, args := listQuery(q, catalog.Searchable(q.Name))
	return text, args[1:]
}

// JSONColumn is the column type of string lists.
type JSONColumn = asJSON[[]string]

// AnyJSONColumn is the column type of arbitrary values.
type AnyJSONColumn = asJSON[any]

// GormLogger returns the adapter from gorm's log to zap.
func GormLogger(log *zap.Logger, slow time.Duration) gormlog.Interface {
	return gormLogger{log: log, slow: slow}
}

// Edits returns how many edits of a product run or wait.
func (s *Store) Edits(id catalog.ProductID) int { return s.edits.queued.Users(id) }
