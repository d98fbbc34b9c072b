package lifecycle

import (
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// Config says how a program ends.
type Config struct {
	Delay time.Duration `env:"DELAY" envDefault:"3s" desc:"between saying not ready and stopping: nobody is sent here any more"`
	Grace time.Duration `env:"GRACE" envDefault:"60s" desc:"time for everything to stop; then what is left is cut off"`
}

// Validate returns every wrong field.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.Delay >= 0, "DELAY", "must not be below zero")
	check.Range(c.Grace > c.Delay, "GRACE", "must be longer than DELAY")
	return check.Fields()
}
