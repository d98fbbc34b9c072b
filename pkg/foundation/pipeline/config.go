package pipeline

import (
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// Config says where a program's ImagePipeline is.
type Config struct {
	File string        `env:"FILE" desc:"the ImagePipeline in force, YAML or JSON, followed as it changes; empty is the built-in default"`
	Poll time.Duration `env:"POLL" envDefault:"60s" desc:"how often FILE is read even if nothing tells of a change"`
}

// Validate returns every wrong field.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.Poll >= time.Second, "POLL", "at least 1s")
	return check.Fields()
}
