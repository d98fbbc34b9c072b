package maintenance

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/failpoint"
)

// GarbageCollector deletes the objects of scheduled deletions that are due: objects of attempts that did not finish, and
// objects that were replaced. It marks a deletion as started before it deletes an object, so that no attempt can cancel
// it any more. It deletes a second time after [GCConfig].SecondPassAfter, because an upload may have been in progress
// during the first pass.
//
// Several may run: a deletion belongs to one of them at a time, in both passes.
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
	failed := counter(reg, "vitrine_maintenance_gc_errors_total", "Scans, and prefixes of a scan, that failed.")
	g.periodicTask = periodicTask{cfg.Interval, log, failed, g.scan}
	return g
}

// scan runs the first pass over one batch and the second pass over another. A first pass that failed, or whose process
// crashed, is repeated as the second one; a second pass comes back after its lease. So a prefix that cannot be deleted
// does not occur in the next scan, and does not delay the others. more reports whether a batch was full, unless every
// prefix failed: the store is then probably down.
func (g *GarbageCollector) scan(ctx context.Context) (more bool, err error) {
	started, err := g.deletions.StartDue(ctx, g.cfg.Batch, g.cfg.SecondPassAfter)
	if err != nil {
		return false, fmt.Errorf("start deletions: %w", err)
	}
	for range started {
		failpoint.Hit(failpoint.DeletionStarted)
	}
	deleted := len(g.delete(ctx, started))
	again, err := g.deletions.ClaimSecondPass(ctx, g.cfg.Batch, g.cfg.Lease)
	if err != nil {
		return false, fmt.Errorf("claim started deletions: %w", err)
	}
	if complete := g.delete(ctx, again); len(complete) > 0 {
		if err := g.deletions.Remove(ctx, complete); err != nil {
			return false, fmt.Errorf("remove deletions: %w", err)
		}
		deleted += len(complete)
	}
	return max(len(started), len(again)) == g.cfg.Batch && deleted > 0, nil
}

// delete deletes the objects below prefixes, as far as that is possible within the lease. It counts and logs errors, and
// returns the prefixes that had none.
func (g *GarbageCollector) delete(ctx context.Context, prefixes []string) []string {
	if len(prefixes) == 0 {
		return nil
	}
	leased, cancel := context.WithTimeout(ctx, g.cfg.Lease)
	defer cancel()
	var deleted []string
	for i, err := range g.objects.DeletePrefixes(leased, prefixes) {
		if err != nil {
			g.failed(ctx, fmt.Errorf("delete %s: %w", prefixes[i], err))
			continue
		}
		failpoint.Hit(failpoint.PrefixDeleted)
		g.deleted.Inc()
		g.log.Info("objects deleted", zap.String("prefix", prefixes[i]))
		deleted = append(deleted, prefixes[i])
	}
	return deleted
}
