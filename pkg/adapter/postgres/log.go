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

// gormLogger passes gorm's messages to zap. Slow statements are warnings, without their parameters, which are data of
// clients. Errors are not logged here, because the caller that handles an error logs it.
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

// Trace implements gorm's logger.Interface. gorm calls it after every statement.
func (l gormLogger) Trace(_ context.Context, start time.Time, statement func() (string, int64), _ error) {
	if elapsed := time.Since(start); l.isSlow(elapsed) {
		text, rows := statement()
		l.report(elapsed, text, rows)
	}
}

func (l gormLogger) isSlow(elapsed time.Duration) bool { return l.slow > 0 && elapsed >= l.slow }

// report logs a statement if it was slow.
func (l gormLogger) report(elapsed time.Duration, text string, rows int64) {
	if l.isSlow(elapsed) {
		l.log.Warn("slow statement", zap.Duration("duration", elapsed), zap.Int64("rows", rows),
			zap.String("sql", strings.Join(strings.Fields(text), " ")))
	}
}

// dialector is gorm's dialector for Postgres, but does not insert parameters into statements for the log.
type dialector struct{ gorm.Dialector }

// Explain implements gorm.Dialector.
func (dialector) Explain(statement string, _ ...any) string { return statement }
