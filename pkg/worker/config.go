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

// SweepConfig says how often the sweepers look, and when they act.
type SweepConfig struct {
	Interval   time.Duration `env:"INTERVAL" envDefault:"10s" desc:"between two looks; a full batch is followed at once"`
	Batch      int           `env:"BATCH" envDefault:"100" desc:"rows a look takes"`
	Patience   time.Duration `env:"PATIENCE" envDefault:"5m" desc:"overdue work is requested again after this; doubles"`
	Again      time.Duration `env:"DOOMED_AGAIN" envDefault:"1h" desc:"when deleted objects are deleted again, for a late upload"`
	PurgeAfter time.Duration `env:"PURGE_AFTER" envDefault:"720h" desc:"how long a deleted product's rows are kept"`
	KeysAfter  time.Duration `env:"KEYS_AFTER" envDefault:"24h" desc:"how long an Idempotency-Key is remembered"`
}

// Validate returns every wrong field.
func (c SweepConfig) Validate() []fault.Field {
	var wrong []fault.Field
	if c.Batch < 1 || c.Batch > 10_000 {
		wrong = append(wrong, fault.Field{Path: "BATCH", Code: "out_of_range", Detail: "a number from 1 to 10000"})
	}
	return append(wrong, positive(map[string]time.Duration{
		"INTERVAL": c.Interval, "PATIENCE": c.Patience, "DOOMED_AGAIN": c.Again, "PURGE_AFTER": c.PurgeAfter,
		"KEYS_AFTER": c.KeysAfter,
	})...)
}

// AuditConfig says how the auditor compares the bucket with the rows, and when it stops rather than act.
type AuditConfig struct {
	Enabled        bool          `env:"ENABLED" envDefault:"true" desc:"compare the bucket with the rows, a little at a time"`
	Interval       time.Duration `env:"INTERVAL" envDefault:"1m" desc:"between two looks, of all instances together"`
	Rest           time.Duration `env:"REST" envDefault:"6h" desc:"between the end of a round and the next round"`
	Batch          int           `env:"BATCH" envDefault:"5000" desc:"objects that a look at the bucket lists"`
	Rows           int           `env:"ROWS" envDefault:"100" desc:"pictures whose objects a look at the rows asks for"`
	MinAge         time.Duration `env:"MIN_AGE" envDefault:"24h" desc:"younger objects are nobody's orphans"`
	Grace          time.Duration `env:"GRACE" envDefault:"10m" desc:"from finding an orphan to deleting it"`
	ToleratedShare float64       `env:"TOLERATED_SHARE" envDefault:"0.01" desc:"part of what a look sees that may be wrong; above: stop"`
	ToleratedLeast int           `env:"TOLERATED_LEAST" envDefault:"5" desc:"so many orphans, or pictures without objects, never stop it"`
}

// Validate returns every wrong field.
func (c AuditConfig) Validate() []fault.Field {
	var wrong []fault.Field
	for name, n := range map[string]int{"BATCH": c.Batch, "ROWS": c.Rows} {
		if n < 1 || n > 100_000 {
			wrong = append(wrong, fault.Field{Path: name, Code: "out_of_range", Detail: "a number from 1 to 100000"})
		}
	}
	if !(c.ToleratedShare >= 0 && c.ToleratedShare <= 1) { // not a number is wrong, too
		wrong = append(wrong, fault.Field{Path: "TOLERATED_SHARE", Code: "out_of_range", Detail: "a number from 0 to 1"})
	}
	if c.ToleratedLeast < 0 {
		wrong = append(wrong, fault.Field{Path: "TOLERATED_LEAST", Code: "out_of_range", Detail: "must not be below zero"})
	}
	return append(wrong, positive(map[string]time.Duration{
		"INTERVAL": c.Interval, "REST": c.Rest, "MIN_AGE": c.MinAge, "GRACE": c.Grace,
	})...)
}

// tooMany reports whether so many of what a look has seen are wrong that it is no accident.
func (c AuditConfig) tooMany(wrong, seen int) bool {
	return float64(wrong) > max(float64(c.ToleratedLeast), c.ToleratedShare*float64(seen))
}

// ReprocessConfig says how fast pictures that are asked for in bulk come to the workers.
type ReprocessConfig struct {
	Rate float64 `env:"RATE" envDefault:"20" desc:"pictures a second that bulk requests ask for; live traffic goes first"`
}

// Validate returns every wrong field.
func (c ReprocessConfig) Validate() []fault.Field {
	if !(c.Rate >= 0.01 && c.Rate <= 10_000) { // not a number is wrong, too
		return []fault.Field{{Path: "RATE", Code: "out_of_range", Detail: "a number from 0.01 to 10000"}}
	}
	return nil
}

func positive(durations map[string]time.Duration) []fault.Field {
	var wrong []fault.Field
	for name, d := range durations {
		if d <= 0 {
			wrong = append(wrong, fault.Field{Path: name, Code: "out_of_range", Detail: "must be above zero"})
		}
	}
	return wrong
}
