package pipeline

import (
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// Config configures where a program reads its ImagePipeline, and what it accepts.
type Config struct {
	File string        `env:"FILE" desc:"the ImagePipeline in force, YAML or JSON, followed as it changes; empty is the built-in default"`
	Poll time.Duration `env:"POLL" envDefault:"60s" desc:"interval of reads of FILE, for changes that are not signalled"`

	Bounds Bounds
}

// Validate returns all invalid fields.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.Poll >= time.Second, "POLL", "at least 1s")
	return check.Fields()
}
