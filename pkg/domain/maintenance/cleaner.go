package maintenance

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Cleaner removes the rows of products that were deleted longer than [CleanerConfig].ProductsAfter ago, and idempotency
// keys older than [CleanerConfig].KeysAfter.
type Cleaner struct {
	periodicTask
	rows           Purger
	cfg            CleanerConfig
	products, keys prometheus.Counter
}

// NewCleaner returns a Cleaner and registers its metrics with reg.
func NewCleaner(rows Purger, cfg CleanerConfig, reg prometheus.Registerer, log *zap.Logger) *Cleaner {
	c := &Cleaner{
		rows: rows, cfg: cfg,
		products: counter(reg, "vitrine_maintenance_cleaner_products_purged_total", "Deleted products whose rows were removed."),
		keys:     counter(reg, "vitrine_maintenance_cleaner_keys_purged_total", "Idempotency keys that were removed."),
	}
	c.periodicTask = periodicTask{cfg.Interval, log, counter(reg, "vitrine_maintenance_cleaner_errors_total", "Scans that failed."), c.scan}
	return c
}

// scan removes one batch of products and one of keys. more reports whether either was full.
func (c *Cleaner) scan(ctx context.Context) (more bool, err error) {
	products, productsErr := c.rows.PurgeDeleted(ctx, c.cfg.Batch, c.cfg.ProductsAfter)
	if productsErr != nil {
		productsErr = fmt.Errorf("purge deleted products: %w", productsErr)
	}
	c.products.Add(float64(products))
	keys, keysErr := c.rows.PurgeKeys(ctx, c.cfg.Batch, c.cfg.KeysAfter)
	if keysErr != nil {
		keysErr = fmt.Errorf("purge idempotency keys: %w", keysErr)
	}
	c.keys.Add(float64(keys))
	return max(products, keys) == c.cfg.Batch, errors.Join(productsErr, keysErr)
}
