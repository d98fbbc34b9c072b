package catalog

import (
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// Config holds the timeouts of a Service and the grace of its deletions. Every duration has to be positive.
type Config struct {
	LoadTimeout       time.Duration `env:"LOAD_TIMEOUT" envDefault:"5s" desc:"longest read from Postgres that fills the cache"`
	InvalidateTimeout time.Duration `env:"INVALIDATE_TIMEOUT" envDefault:"250ms" desc:"longest wait for Redis after a commit"`
	DeletionGrace     time.Duration `env:"DELETION_GRACE" envDefault:"1h" desc:"how long replaced renditions stay; longer than the cache TTL"`
}

// Validate returns every wrong field.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Positive("LOAD_TIMEOUT", c.LoadTimeout)
	check.Positive("INVALIDATE_TIMEOUT", c.InvalidateTimeout)
	check.Positive("DELETION_GRACE", c.DeletionGrace)
	return check.Fields()
}
