package maintenance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
)

// Rescuer publishes overdue jobs again that the workers have passed over: their records are lost, or were handled without an
// outcome. Jobs that merely wait in Kafka are left alone. The new message has the same job id, so the outbox has at most one
// copy of it, and only one worker can begin the job, even when several rescuers run.
type Rescuer struct {
	periodicTask
	jobs        OverdueJobs
	progress    Progress
	catalog     Republisher
	cfg         RescuerConfig
	republished prometheus.Counter
	after       ReleasedJob // where the next scan starts; zero: at the first overdue job
}

// NewRescuer returns a Rescuer and registers its metrics with reg.
func NewRescuer(jobs OverdueJobs, progress Progress, republisher Republisher, cfg RescuerConfig, reg prometheus.Registerer,
	log *zap.Logger,
) *Rescuer {
	r := &Rescuer{
		jobs: jobs, progress: progress, catalog: republisher, cfg: cfg,
		republished: counter(reg, "vitrine_maintenance_rescuer_republished_total", "Overdue jobs that were published again."),
	}
	failed := counter(reg, "vitrine_maintenance_rescuer_errors_total", "Scans, and images of a scan, that failed.")
	r.periodicTask = periodicTask{cfg.Interval, log, failed, r.scan}
	return r
}

// scan publishes one batch of overdue jobs. An image that fails does not stop the others. more reports whether the batch
// was full, unless every image failed: the next scan would find the same ones.
func (r *Rescuer) scan(ctx context.Context) (more bool, err error) {
	overdue, now, err := r.jobs.OverdueJobs(ctx, r.after, r.cfg.Batch, r.cfg.OverdueAfter)
	if err != nil {
		return false, fmt.Errorf("find overdue jobs: %w", err)
	}
	r.after = ReleasedJob{}
	if len(overdue) == 0 {
		return false, nil
	}
	passed, err := r.progress.Passed(ctx, now)
	if err != nil {
		return false, fmt.Errorf("read the workers' progress: %w", err)
	}
	failed := 0
	for _, job := range overdue {
		before := passed(job.ProductID)
		if !job.ReleasedAt.Before(before) {
			continue
		}
		if err := r.republish(ctx, job, before); err != nil {
			failed++
			r.failed(ctx, fmt.Errorf("publish job of image %d again: %w", job.ImageID, err))
		}
	}
	if more = len(overdue) == r.cfg.Batch; more {
		r.after = overdue[len(overdue)-1]
	}
	return more && failed < len(overdue), nil
}

func (r *Rescuer) republish(ctx context.Context, job ReleasedJob, before time.Time) error {
	err := r.catalog.Republish(ctx, job.ProductID, job.ImageID, before, r.cfg.OverdueAfter)
	if errors.Is(err, catalog.ErrDone) {
		return nil
	}
	if err == nil {
		r.republished.Inc()
		r.log.Warn("overdue job published again",
			zap.Int64("product_id", int64(job.ProductID)), zap.Int64("image_id", int64(job.ImageID)))
	}
	return err
}
