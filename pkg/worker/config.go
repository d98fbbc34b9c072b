package worker

import (
	"time"

	"vitrine.io/pkg/fault"
)

// Config says how much a worker does at a time.
type Config struct {
	Concurrency int           `env:"CONCURRENCY" envDefault:"0" desc:"pictures in work at a time; 0: two for each codec process"`
	StoreBudget time.Duration `env:"STORE_BUDGET" envDefault:"30s" desc:"what storing a picture may take, with retries"`
	Settle      time.Duration `env:"SETTLE_TIMEOUT" envDefault:"5s" desc:"longest wait for Postgres to take an outcome"`
	DeferWait   time.Duration `env:"DEFER_WAIT" envDefault:"5s" desc:"pause after a fault of our own; half is random"`
	BusyWait    time.Duration `env:"BUSY_WAIT" envDefault:"1s" desc:"pause when the host has no free slot; half is random"`
}

// Validate returns every wrong field.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.Concurrency >= 0 && c.Concurrency <= 1024, "CONCURRENCY", "a number from 0 to 1024")
	check.Positive("STORE_BUDGET", c.StoreBudget)
	check.Positive("SETTLE_TIMEOUT", c.Settle)
	check.Positive("DEFER_WAIT", c.DeferWait)
	check.Positive("BUSY_WAIT", c.BusyWait)
	return check.Fields()
}

// CircuitConfig says when workers stop taking requests because something that every picture needs is away.
type CircuitConfig struct {
	Interval time.Duration `env:"INTERVAL" envDefault:"2s" desc:"between two probes of a dependency"`
	Timeout  time.Duration `env:"TIMEOUT" envDefault:"5s" desc:"longest wait for the answer to a probe"`
	Faults   int           `env:"FAULTS" envDefault:"5" desc:"a dependency's faults in a row, met by work, that open its circuit"`
	Longest  time.Duration `env:"LONGEST" envDefault:"1m" desc:"longest pause after faults that a probe does not see"`
}

// Validate returns every wrong field.
func (c CircuitConfig) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.Faults >= 1 && c.Faults <= 1000, "FAULTS", "a number from 1 to 1000")
	check.Range(c.Longest >= c.Interval, "LONGEST", "must not be below INTERVAL")
	check.Positive("INTERVAL", c.Interval)
	check.Positive("TIMEOUT", c.Timeout)
	return check.Fields()
}
