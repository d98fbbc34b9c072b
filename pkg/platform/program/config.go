package program

import (
	"vitrine.io/pkg/foundation/lifecycle"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/platform/telemetry"
)

// Common has the settings that all long-running programs have. Each embeds it in its own configuration.
type Common struct {
	Log      telemetry.LogConfig    `envPrefix:"LOG_"`
	Admin    telemetry.AdminConfig  `envPrefix:"ADMIN_"`
	Health   telemetry.HealthConfig `envPrefix:"HEALTH_"`
	Shutdown lifecycle.Config       `envPrefix:"SHUTDOWN_"`
}

func (c Common) common() Common { return c }

// pipelineFile returns nil: the program follows no pipeline.
func (c Common) pipelineFile() *pipeline.Config { return nil }

// Config has the settings of a program that follows an ImagePipeline. It is embedded instead of Common.
type Config struct {
	Common
	Pipeline pipeline.Config `envPrefix:"PIPELINE_"`
}

func (c Config) pipelineFile() *pipeline.Config { return &c.Pipeline }

// Configured is implemented by a configuration that embeds Common or Config.
type Configured interface {
	common() Common
	pipelineFile() *pipeline.Config
}
