package program

import (
	"vitrine.io/pkg/foundation/lifecycle"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/platform/telemetry"
)

// Config has the settings that all long-running programs have. Each embeds it in its own configuration.
type Config struct {
	Log      telemetry.LogConfig    `envPrefix:"LOG_"`
	Admin    telemetry.AdminConfig  `envPrefix:"ADMIN_"`
	Health   telemetry.HealthConfig `envPrefix:"HEALTH_"`
	Pipeline pipeline.Config        `envPrefix:"PIPELINE_"`
	Shutdown lifecycle.Config       `envPrefix:"SHUTDOWN_"`
}

func (c Config) common() Config { return c }

// Configured is implemented by a configuration that embeds Config.
type Configured interface{ common() Config }
