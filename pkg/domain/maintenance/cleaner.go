package maintenance

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Cleaner removes the rows of products that were deleted longer than [CleanerConfig].ProductsAfter ago.
type Cleaner struct {
	periodicTask
	rows     Purger
	cfg      CleanerConfig
	products prometheus.Counter
}

// NewCleaner returns a Cleaner and registers its metrics with reg.
func NewCleaner(rows Purger, cfg CleanerConfig, reg prometheus.Registerer, log *zap.Logger) *Cleaner {
	c := &Cleaner{
		rows: rows, cfg: cfg,
		products: counter(reg, "vitrine_maintenance_cleaner_products_purged_total", "Deleted products whose rows were removed."),
	}
	failed := counter(reg, "vitrine_maintenance_cleaner_errors_total", "Scans that failed.")
	c.periodicTask = periodicTask{cfg.Interval, log, failed, c.scan}
	return c
}

// scan removes one batch. more reports that it was full.
func (c *Cleaner) scan(ctx context.Context) (more bool, err error) {
	products, err := c.rows.PurgeDeleted(ctx, c.cfg.Batch, c.cfg.ProductsAfter)
	if err != nil {
		err = fmt.Errorf("purge deleted products: %w", err)
	}
	c.products.Add(float64(products))
	return products == c.cfg.Batch, err
}

// KeyRotator creates and drops the partitions of the idempotency keys.
type KeyRotator struct {
	task      periodicTask
	keys      KeyPartitions
	daysAhead prometheus.Gauge
	dropped   prometheus.Counter
}

// NewKeyRotator returns a KeyRotator and registers its metrics with reg.
func NewKeyRotator(keys KeyPartitions, cfg CleanerConfig, reg prometheus.Registerer, log *zap.Logger) *KeyRotator {
	r := &KeyRotator{
		keys: keys,
		daysAhead: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_maintenance_key_partitions_ahead",
			Help: "Days after today that have a partition for idempotency keys; -1: today has none, and keys cannot be stored.",
		}),
		dropped: counter(reg, "vitrine_maintenance_key_partitions_dropped_total", "Dropped partitions of idempotency keys."),
	}
	reg.MustRegister(r.daysAhead)
	failed := counter(reg, "vitrine_maintenance_key_rotation_errors_total", "Rotations of idempotency keys that failed.")
	r.task = periodicTask{cfg.KeysInterval, log, failed, r.scan}
	return r
}

// Run rotates at once and then in each interval, until ctx ends. It counts and logs errors, and returns nil.
func (r *KeyRotator) Run(ctx context.Context) error {
	r.task.once(ctx)
	return r.task.Run(ctx)
}

func (r *KeyRotator) scan(ctx context.Context) (more bool, err error) {
	result, err := r.keys.RotateKeys(ctx)
	r.dropped.Add(float64(result.Dropped))
	if err != nil {
		return false, fmt.Errorf("rotate idempotency keys: %w", err)
	}
	r.daysAhead.Set(float64(result.DaysAhead))
	return false, nil
}
