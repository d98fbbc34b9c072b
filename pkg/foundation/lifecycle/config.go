package lifecycle

import (
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// Config sets the times of a program's shutdown.
type Config struct {
	Delay time.Duration `env:"DELAY" envDefault:"3s" desc:"from not ready to the stop, for load balancers to notice"`
	Grace time.Duration `env:"GRACE" envDefault:"60s" desc:"maximum time of the shutdown, after which the process exits"`
}

// Validate returns every wrong field.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.Delay >= 0, "DELAY", "must not be below zero")
	check.Range(c.Grace > c.Delay, "GRACE", "must be longer than DELAY")
	return check.Fields()
}
