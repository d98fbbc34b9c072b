package maintenance

import (
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// RescuerConfig says how often the rescuer scans, and which jobs it publishes again.
type RescuerConfig struct {
	Interval     time.Duration `env:"INTERVAL" envDefault:"10s" desc:"between two scans; a full batch is followed at once"`
	Batch        int           `env:"BATCH" envDefault:"100" desc:"maximum rows of a scan"`
	OverdueAfter time.Duration `env:"OVERDUE_AFTER" envDefault:"5m" desc:"a lost job is published again after this"`
}

// Validate returns every wrong field.
func (c RescuerConfig) Validate() []fault.Field {
	var check fault.Checker
	checkScan(&check, c.Interval, c.Batch)
	check.Positive("OVERDUE_AFTER", c.OverdueAfter)
	return check.Fields()
}

// CleanerConfig says how often the cleaner scans, and how long it keeps rows. Idempotency keys are kept for 24 hours.
type CleanerConfig struct {
	Interval      time.Duration `env:"INTERVAL" envDefault:"10s" desc:"between two scans; a full batch is followed at once"`
	Batch         int           `env:"BATCH" envDefault:"100" desc:"maximum rows of a scan"`
	ProductsAfter time.Duration `env:"PRODUCTS_AFTER" envDefault:"720h" desc:"how long a deleted product's rows are kept"`
	KeysInterval  time.Duration `env:"KEYS_INTERVAL" envDefault:"10m" desc:"between two rotations of the idempotency keys' partitions"`
}

// Validate returns every wrong field.
func (c CleanerConfig) Validate() []fault.Field {
	var check fault.Checker
	checkScan(&check, c.Interval, c.Batch)
	check.Positive("PRODUCTS_AFTER", c.ProductsAfter)
	check.Positive("KEYS_INTERVAL", c.KeysInterval)
	return check.Fields()
}

// GCConfig says how often the garbage collector scans, and when it deletes a second time.
type GCConfig struct {
	Interval        time.Duration `env:"INTERVAL" envDefault:"10s" desc:"between two scans; a full batch is followed at once"`
	Batch           int           `env:"BATCH" envDefault:"100" desc:"maximum rows of a scan"`
	SecondPassAfter time.Duration `env:"SECOND_PASS_AFTER" envDefault:"1h" desc:"when objects are deleted again, for a late upload"`
	Lease           time.Duration `env:"LEASE" envDefault:"5m" desc:"time limit of a pass over a batch; what is left comes back"`
}

// Validate returns every wrong field.
func (c GCConfig) Validate() []fault.Field {
	var check fault.Checker
	checkScan(&check, c.Interval, c.Batch)
	check.Positive("SECOND_PASS_AFTER", c.SecondPassAfter)
	check.Positive("LEASE", c.Lease)
	return check.Fields()
}

func checkScan(check *fault.Checker, interval time.Duration, batch int) {
	check.Positive("INTERVAL", interval)
	check.Range(batch >= 1 && batch <= 10_000, "BATCH", "a number from 1 to 10000")
}

// AuditorConfig sets how fast the auditor compares the bucket with the rows, and how many differences make it stop.
type AuditorConfig struct {
	Enabled        bool          `env:"ENABLED" envDefault:"true" desc:"compare the bucket with the rows, one batch at a time"`
	Interval       time.Duration `env:"INTERVAL" envDefault:"5s" desc:"how often an instance looks for a step that is due"`
	Pass           time.Duration `env:"PASS" envDefault:"24h" desc:"target duration of a pass over the bucket, and over all rows"`
	Lease          time.Duration `env:"LEASE" envDefault:"2m" desc:"when another instance repeats a step that failed or crashed"`
	Batch          int           `env:"BATCH" envDefault:"5000" desc:"maximum objects of a step over the bucket"`
	Rows           int           `env:"ROWS" envDefault:"1000" desc:"maximum images of a step over the rows"`
	MaxObjectRate  float64       `env:"MAX_OBJECT_RATE" envDefault:"20000" desc:"maximum objects listed a second, over all instances"`
	MaxRowRate     float64       `env:"MAX_ROW_RATE" envDefault:"1000" desc:"maximum images read a second, over all instances"`
	MinAge         time.Duration `env:"MIN_AGE" envDefault:"24h" desc:"younger objects are never orphans"`
	Grace          time.Duration `env:"GRACE" envDefault:"10m" desc:"delay from finding an orphan to its deletion"`
	ToleratedShare float64       `env:"TOLERATED_SHARE" envDefault:"0.01" desc:"share of wrong items above which the audit stops"`
	ToleratedCount int           `env:"TOLERATED_COUNT" envDefault:"5" desc:"this many wrong items never stop the audit"`
}

// Validate returns every wrong field.
func (c AuditorConfig) Validate() []fault.Field {
	var check fault.Checker
	check.Positive("INTERVAL", c.Interval)
	check.Positive("PASS", c.Pass)
	check.Positive("LEASE", c.Lease)
	check.Range(c.Batch >= 1 && c.Batch <= 100_000, "BATCH", "a number from 1 to 100000")
	check.Range(c.Rows >= 1 && c.Rows <= 10_000, "ROWS", "a number from 1 to 10000")
	check.Range(c.MaxObjectRate >= 1 && c.MaxObjectRate <= 1e9, "MAX_OBJECT_RATE", "a number from 1 to 1000000000") // not NaN
	check.Range(c.MaxRowRate >= 1 && c.MaxRowRate <= 1e9, "MAX_ROW_RATE", "a number from 1 to 1000000000")
	check.Positive("MIN_AGE", c.MinAge)
	check.Positive("GRACE", c.Grace)
	check.Range(c.ToleratedShare >= 0 && c.ToleratedShare <= 1, "TOLERATED_SHARE", "a number from 0 to 1") // NaN is wrong
	check.Range(c.ToleratedCount >= 0, "TOLERATED_COUNT", "must not be below zero")
	return check.Fields()
}

// tooMany reports whether a scan of total items has more wrong ones than are tolerated.
func (c AuditorConfig) tooMany(wrong, total int) bool {
	return float64(wrong) > max(float64(c.ToleratedCount), c.ToleratedShare*float64(total))
}

// ReprocessorConfig limits the rate at which bulk requests reach the workers.
type ReprocessorConfig struct {
	Rate float64 `env:"RATE" envDefault:"20" desc:"images a second that bulk requests give to the workers"`
}

// Validate returns every wrong field.
func (c ReprocessorConfig) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.Rate >= 0.01 && c.Rate <= 10_000, "RATE", "a number from 0.01 to 10000") // NaN is wrong
	return check.Fields()
}
