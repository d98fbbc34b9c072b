package postgres

import (
	"time"

	"go.uber.org/zap"
	gormlog "gorm.io/gorm/logger"

	"vitrine.io/pkg/domain/catalog"
)

// What tests see of the inside: the two tables of errors, the text of lists, and the bridges to gorm.
var (
	Translate       = translate
	TranslateCommit = translateCommit
	Outcome         = outcome
)

// ListQuery returns the SQL of a list and its arguments, without the one that is for pgx.
func ListQuery(q catalog.Query) (string, []any) {
	text, args := listQuery(q)
	return text, args[1:]
}

// JSONColumn is the column type of lists of text.
type JSONColumn = asJSON[[]string]

// AnyJSONColumn is the column type of anything.
type AnyJSONColumn = asJSON[any]

// GormLogger returns the bridge from gorm's log to zap.
func GormLogger(log *zap.Logger, slow time.Duration) gormlog.Interface {
	return gormLogger{log: log, slow: slow}
}
