package backfill

import (
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// Config says how often the walk makes a step.
type Config struct {
	Interval      time.Duration `env:"INTERVAL" envDefault:"1s" desc:"between two steps of a backfill"`
	Lease         time.Duration `env:"LEASE" envDefault:"30s" desc:"when another instance repeats a step that failed or crashed"`
	Settle        time.Duration `env:"SETTLE" envDefault:"30s" desc:"minimum time between two passes of a backfill; longer than a transaction"`
	LostAfter     time.Duration `env:"LOST_AFTER" envDefault:"30m" desc:"a job of a backfill that no worker has begun is requested again after this"`
	CanaryTimeout time.Duration `env:"CANARY_TIMEOUT" envDefault:"6h" desc:"samples of a canary without an outcome count as failed after this"`
}

// Validate returns every wrong field.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Positive("INTERVAL", c.Interval)
	check.Positive("LEASE", c.Lease)
	check.Positive("SETTLE", c.Settle)
	check.Positive("LOST_AFTER", c.LostAfter)
	check.Positive("CANARY_TIMEOUT", c.CanaryTimeout)
	return check.Fields()
}
