package telemetry

import (
	"net"
	"time"

	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/foundation/fault"
)

// LogConfig has the level, format and sampling of the log.
type LogConfig struct {
	Level              string `env:"LEVEL" envDefault:"info" desc:"lowest level logged: debug, info, warn or error"`
	Format             string `env:"FORMAT" envDefault:"json" desc:"json for machines, console for people"`
	SamplingFirst      int    `env:"SAMPLING_FIRST" envDefault:"0" desc:"equal lines logged a second before sampling; 0: all"`
	SamplingThereafter int    `env:"SAMPLING_THEREAFTER" envDefault:"100" desc:"then one of this number is logged; 0: none"`

	Flush time.Duration `env:"FLUSH" envDefault:"200ms" desc:"longest delay of lines below warn, written together; 0: none"`
}

// Validate returns every wrong variable.
func (c LogConfig) Validate() []fault.Field {
	var check fault.Checker
	level, err := zapcore.ParseLevel(c.Level)
	check.Check(err == nil && level <= zapcore.ErrorLevel, "LEVEL", "unknown_value", "one of debug, info, warn, error")
	check.Check(c.Format == formatJSON || c.Format == formatConsole, "FORMAT", "unknown_value", "one of json, console")
	check.Range(c.SamplingFirst >= 0, "SAMPLING_FIRST", "must not be negative")
	check.Range(c.SamplingThereafter >= 0, "SAMPLING_THEREAFTER", "must not be negative")
	check.Range(c.Flush >= 0, "FLUSH", "must not be negative")
	return check.Fields()
}

// AdminConfig has the address of the admin port.
type AdminConfig struct {
	Addr string `env:"ADDR" envDefault:":9090" desc:"address of metrics, health and profiles; not for the internet"`
}

// Validate returns every wrong variable.
func (c AdminConfig) Validate() []fault.Field {
	var check fault.Checker
	_, port, err := net.SplitHostPort(c.Addr)
	check.Check(err == nil && port != "", "ADDR", "malformed", "must be host:port or :port")
	return check.Fields()
}
