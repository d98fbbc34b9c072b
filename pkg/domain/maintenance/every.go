package maintenance

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/backoff"
)

// every runs a scan in each interval.
type every struct {
	interval time.Duration
	log      *zap.Logger
	errors   prometheus.Counter
	scan     func(context.Context) (more bool, err error) // more: the next scan starts without a pause
}

// Run scans every interval, the first time after one interval, until ctx ends. It counts and logs the errors of scans, and
// returns nil.
func (e every) Run(ctx context.Context) error {
	for pause := e.interval; backoff.Sleep(ctx, pause); {
		more, err := e.scan(ctx)
		if err != nil && ctx.Err() == nil {
			e.errors.Inc()
			e.log.Warn("scan failed", zap.Error(err))
		}
		if pause = e.interval; more && err == nil {
			pause = 0
		}
	}
	return nil
}
