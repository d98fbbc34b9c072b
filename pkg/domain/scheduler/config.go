package scheduler

import (
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// Config says how often the scheduler runs, and how many jobs may be in flight.
type Config struct {
	Interval   time.Duration `env:"INTERVAL" envDefault:"500ms" desc:"between two rounds; a full round is followed at once"`
	Batch      int           `env:"BATCH" envDefault:"500" desc:"maximum jobs that a round releases"`
	HostWindow int           `env:"HOST_WINDOW" envDefault:"64" desc:"maximum jobs of one host in Kafka and in the workers"`
	Window     int           `env:"WINDOW" envDefault:"480" desc:"maximum jobs of all hosts in Kafka and in the workers"`
}

// Windows returns the windows.
func (c Config) Windows() Windows { return Windows{Host: c.HostWindow, Total: c.Window} }

// Validate returns every wrong field.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Positive("INTERVAL", c.Interval)
	check.Range(c.Batch >= 1 && c.Batch <= 10_000, "BATCH", "a number from 1 to 10000")
	check.Range(c.HostWindow >= 2 && c.HostWindow <= 100_000, "HOST_WINDOW", "a number from 2 to 100000")
	check.Range(c.Window >= c.HostWindow && c.Window <= 1_000_000, "WINDOW", "a number from HOST_WINDOW to 1000000")
	return check.Fields()
}
