package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"
	"gorm.io/gorm"
	gormlog "gorm.io/gorm/logger"
)

// gormLogger passes gorm's messages to zap. Slow statements are warnings, without parameters: those hold what clients sent.
// Errors are not logged here but once, by whoever decides what to do about them.
type gormLogger struct {
	log  *zap.Logger
	slow time.Duration
}

// LogMode implements gorm's logger.Interface; the level is zap's.
func (l gormLogger) LogMode(gormlog.LogLevel) gormlog.Interface { return l }

// Info implements gorm's logger.Interface.
func (l gormLogger) Info(_ context.Context, format string, args ...any) {
	l.log.Debug("gorm: " + fmt.Sprintf(format, args...))
}

// Warn implements gorm's logger.Interface.
func (l gormLogger) Warn(_ context.Context, format string, args ...any) {
	l.log.Warn("gorm: " + fmt.Sprintf(format, args...))
}

// Error implements gorm's logger.Interface.
func (l gormLogger) Error(_ context.Context, format string, args ...any) {
	l.log.Error("gorm: " + fmt.Sprintf(format, args...))
}

// Trace is called by gorm after every statement.
func (l gormLogger) Trace(_ context.Context, began time.Time, statement func() (string, int64), _ error) {
	if took := time.Since(began); l.isSlow(took) {
		text, rows := statement()
		l.report(took, text, rows)
	}
}

func (l gormLogger) isSlow(took time.Duration) bool { return l.slow > 0 && took >= l.slow }

// report logs a statement if it took too long.
func (l gormLogger) report(took time.Duration, text string, rows int64) {
	if l.isSlow(took) {
		l.log.Warn("slow statement", zap.Duration("duration", took), zap.Int64("rows", rows),
			zap.String("sql", strings.Join(strings.Fields(text), " ")))
	}
}

// dialector is gorm's for Postgres, except that a statement for the log stays without its parameters.
type dialector struct{ gorm.Dialector }

// Explain implements gorm.Dialector.
func (dialector) Explain(statement string, _ ...any) string { return statement }
