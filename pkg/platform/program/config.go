package program

import (
	"vitrine.io/pkg/foundation/lifecycle"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/platform/telemetry"
)

// Config is what can be said about every long-running program, which embeds it in a configuration of its own.
type Config struct {
	Log      telemetry.LogConfig   `envPrefix:"LOG_"`
	Admin    telemetry.AdminConfig `envPrefix:"ADMIN_"`
	Pipeline pipeline.Config       `envPrefix:"PIPELINE_"`
	Shutdown lifecycle.Config      `envPrefix:"SHUTDOWN_"`
}

func (c Config) common() Config { return c }

// Configured is a configuration that embeds Config.
type Configured interface{ common() Config }
