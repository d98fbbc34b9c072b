package maintenance

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/backoff"
)

// periodicTask runs a scan regularly.
type periodicTask struct {
	interval time.Duration
	log      *zap.Logger
	errors   prometheus.Counter
	scan     func(context.Context) (more bool, err error) // more: the next scan starts without a pause
}

// Run scans every interval, the first time after one interval, until ctx ends. It counts and logs the errors of scans, and
// returns nil.
func (t periodicTask) Run(ctx context.Context) error {
	for pause := t.interval; backoff.Sleep(ctx, pause); {
		if pause = t.interval; t.once(ctx) {
			pause = 0
		}
	}
	return nil
}

// failed counts and logs the error of one item of a scan. The scan goes on with the others.
func (t periodicTask) failed(ctx context.Context, err error) {
	if ctx.Err() == nil {
		t.errors.Inc()
		t.log.Warn("item failed", zap.Error(err))
	}
}

// once runs one scan, and counts and logs its error. more reports that the next scan starts without a pause.
func (t periodicTask) once(ctx context.Context) (more bool) {
	more, err := t.scan(ctx)
	if err != nil && ctx.Err() == nil {
		t.errors.Inc()
		t.log.Warn("scan failed", zap.Error(err))
	}
	return more && err == nil
}
