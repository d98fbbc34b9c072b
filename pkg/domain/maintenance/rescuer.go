package maintenance

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
)

// Rescuer publishes overdue jobs again. The new message has the same job id, so the outbox has at most one copy of it, and
// only one worker can begin the job, even when several rescuers run.
type Rescuer struct {
	periodicTask
	jobs        OverdueJobs
	catalog     Republisher
	cfg         RescuerConfig
	republished prometheus.Counter
}

// NewRescuer returns a Rescuer and registers its metrics with reg.
func NewRescuer(jobs OverdueJobs, republisher Republisher, cfg RescuerConfig, reg prometheus.Registerer, log *zap.Logger,
) *Rescuer {
	r := &Rescuer{
		jobs: jobs, catalog: republisher, cfg: cfg,
		republished: counter(reg, "vitrine_maintenance_rescuer_republished_total", "Overdue jobs that were published again."),
	}
	failed := counter(reg, "vitrine_maintenance_rescuer_errors_total", "Scans, and images of a scan, that failed.")
	r.periodicTask = periodicTask{cfg.Interval, log, failed, r.scan}
	return r
}

// scan publishes one batch of overdue jobs. An image that fails does not stop the others. more reports whether the batch
// was full, unless every image failed: the next scan would find the same ones.
func (r *Rescuer) scan(ctx context.Context) (more bool, err error) {
	overdue, err := r.jobs.OverdueImages(ctx, r.cfg.Batch, r.cfg.OverdueAfter)
	if err != nil {
		return false, fmt.Errorf("find overdue images: %w", err)
	}
	failed := 0
	for _, img := range overdue {
		switch err := r.catalog.Republish(ctx, img.ProductID, img.ImageID, r.cfg.OverdueAfter); {
		case errors.Is(err, catalog.ErrDone):
		case err != nil:
			failed++
			r.failed(ctx, fmt.Errorf("publish job of image %d again: %w", img.ImageID, err))
		default:
			r.republished.Inc()
			r.log.Warn("overdue job published again",
				zap.Int64("product_id", int64(img.ProductID)), zap.Int64("image_id", int64(img.ImageID)))
		}
	}
	return len(overdue) == r.cfg.Batch && failed < len(overdue), nil
}
