package maintenance

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/failpoint"
)

// GarbageCollector deletes the objects of scheduled deletions that are due: objects of attempts that did not finish, and
// objects that were replaced. It marks a deletion as started before it deletes an object, so that no attempt can cancel
// it any more. It deletes a second time after [GCConfig].SecondPassAfter, because an upload may have been in progress
// during the first pass.
type GarbageCollector struct {
	periodicTask
	deletions Deletions
	objects   Objects
	cfg       GCConfig
	deleted   prometheus.Counter
}

// NewGarbageCollector returns a GarbageCollector and registers its metrics with reg.
func NewGarbageCollector(deletions Deletions, objects Objects, cfg GCConfig, reg prometheus.Registerer, log *zap.Logger,
) *GarbageCollector {
	g := &GarbageCollector{
		deletions: deletions, objects: objects, cfg: cfg,
		deleted: counter(reg, "vitrine_maintenance_gc_prefixes_deleted_total", "Deleted prefixes, each counted twice."),
	}
	failed := counter(reg, "vitrine_maintenance_gc_errors_total", "Scans that failed.")
	g.periodicTask = periodicTask{cfg.Interval, log, failed, g.scan}
	return g
}

// scan runs the first pass over one batch and the second pass over another. The second pass also covers a deletion whose
// first pass failed.
func (g *GarbageCollector) scan(ctx context.Context) (more bool, err error) {
	started, err := g.deletions.StartDue(ctx, g.cfg.Batch, g.cfg.SecondPassAfter)
	if err != nil {
		return false, fmt.Errorf("start deletions: %w", err)
	}
	var failed []error // one failure does not stop the rest
	for _, prefix := range started {
		failpoint.Hit(failpoint.DeletionStarted)
		if err := g.delete(ctx, prefix); err != nil {
			failed = append(failed, err)
		}
	}
	second, err := g.deletions.SecondPassDue(ctx, g.cfg.Batch)
	if err != nil {
		return false, errors.Join(append(failed, fmt.Errorf("find started deletions: %w", err))...)
	}
	for _, prefix := range second {
		if err := g.delete(ctx, prefix); err != nil {
			failed = append(failed, err)
		} else if err := g.deletions.Remove(ctx, prefix); err != nil {
			failed = append(failed, fmt.Errorf("remove deletion %s: %w", prefix, err))
		}
	}
	return max(len(started), len(second)) == g.cfg.Batch, errors.Join(failed...)
}

func (g *GarbageCollector) delete(ctx context.Context, prefix string) error {
	if err := g.objects.DeletePrefix(ctx, prefix); err != nil {
		return fmt.Errorf("delete %s: %w", prefix, err)
	}
	failpoint.Hit(failpoint.PrefixDeleted)
	g.deleted.Inc()
	g.log.Info("objects deleted", zap.String("prefix", prefix))
	return nil
}
