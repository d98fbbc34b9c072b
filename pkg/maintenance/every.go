package maintenance

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// every calls scan until ctx ends: again at once while there is more, else after interval. It counts and logs an error, and
// the next scan follows after interval.
func every(ctx context.Context, interval time.Duration, log *zap.Logger, failures prometheus.Counter,
	scan func(context.Context) (more bool, err error),
) {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		more, err := scan(ctx)
		if err != nil && ctx.Err() == nil {
			failures.Inc()
			log.Warn("scan failed", zap.Error(err))
		}
		if more && err == nil {
			timer.Reset(0)
		} else {
			timer.Reset(interval)
		}
	}
}
