package worker

import (
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// Config bounds the concurrency of a worker, and the time of its steps.
type Config struct {
	Concurrency    int           `env:"CONCURRENCY" envDefault:"0" desc:"images processed at a time; 0: two per codec process"`
	Backfill       int           `env:"BACKFILL" envDefault:"0" desc:"of them, images of backfills; 0: half as many as codec processes, at least one"`
	StoreTimeout   time.Duration `env:"STORE_TIMEOUT" envDefault:"30s" desc:"maximum time to store an image, retries included"`
	OutcomeTimeout time.Duration `env:"OUTCOME_TIMEOUT" envDefault:"5s" desc:"maximum time to record an outcome in Postgres"`
	DeferDelay     time.Duration `env:"DEFER_DELAY" envDefault:"5s" desc:"delay after a deferrable failure; half is random"`
	SlotWait       time.Duration `env:"SLOT_WAIT" envDefault:"5s" desc:"maximum wait for a host slot, before the job is postponed"`
	CanaryKeep     time.Duration `env:"CANARY_KEEP" envDefault:"168h" desc:"when the objects of a canary are deleted; longer than an attempt at an image lasts"`
	BusyDelay      time.Duration `env:"BUSY_DELAY" envDefault:"1s" desc:"delay if the host has no free slot; half is random"`
}

// Validate returns every wrong field.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.Concurrency >= 0 && c.Concurrency <= 1024, "CONCURRENCY", "a number from 0 to 1024")
	check.Range(c.Backfill >= 0 && c.Backfill <= 1024, "BACKFILL", "a number from 0 to 1024")
	check.Range(c.CanaryKeep >= c.StoreTimeout+time.Second, "CANARY_KEEP", "must be at least 1s longer than STORE_TIMEOUT")
	check.Positive("STORE_TIMEOUT", c.StoreTimeout)
	check.Positive("OUTCOME_TIMEOUT", c.OutcomeTimeout)
	check.Positive("DEFER_DELAY", c.DeferDelay)
	check.Positive("SLOT_WAIT", c.SlotWait)
	check.Positive("BUSY_DELAY", c.BusyDelay)
	return check.Fields()
}

// BreakerConfig says when a worker pauses the intake of jobs because a dependency is down.
type BreakerConfig struct {
	Interval time.Duration `env:"INTERVAL" envDefault:"2s" desc:"between two probes of a dependency"`
	Timeout  time.Duration `env:"TIMEOUT" envDefault:"5s" desc:"maximum time of a probe"`
	Faults   int           `env:"FAULTS" envDefault:"5" desc:"consecutive faults, met by attempts, that open a breaker"`
	MaxPause time.Duration `env:"MAX_PAUSE" envDefault:"1m" desc:"maximum pause after faults that no probe detects"`
}

// Validate returns every wrong field.
func (c BreakerConfig) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.Faults >= 1 && c.Faults <= 1000, "FAULTS", "a number from 1 to 1000")
	check.Range(c.MaxPause >= c.Interval, "MAX_PAUSE", "must not be below INTERVAL")
	check.Positive("INTERVAL", c.Interval)
	check.Positive("TIMEOUT", c.Timeout)
	return check.Fields()
}

// EgressConfig says when a worker concludes that this installation reaches no source.
type EgressConfig struct {
	MinUsers     int           `env:"MIN_USERS" envDefault:"3" desc:"users whose recently good hosts all have to be out of reach before the worker stops taking jobs; 0: it never stops for that"`
	Memory       time.Duration `env:"MEMORY" envDefault:"1h" desc:"how long a host counts as recently good after a download from it"`
	ProbeTimeout time.Duration `env:"PROBE_TIMEOUT" envDefault:"3s" desc:"maximum time to connect to a recently good host, and again to get a response"`
}

// Validate returns every wrong field.
func (c EgressConfig) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.MinUsers >= 0 && c.MinUsers <= maxKnownHosts, "MIN_USERS", "a number from 0 to 64")
	check.Range(c.Memory >= time.Minute && c.Memory <= 7*24*time.Hour, "MEMORY", "from 1m to 168h")
	check.Range(c.ProbeTimeout > 0 && c.ProbeTimeout <= 10*time.Second, "PROBE_TIMEOUT", "above 0 and at most 10s")
	return check.Fields()
}
