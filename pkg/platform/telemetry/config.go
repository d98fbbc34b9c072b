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

// HealthConfig has the times of health checks.
type HealthConfig struct {
	Interval     time.Duration `env:"INTERVAL" envDefault:"2s" desc:"time between two checks of a dependency"`
	UnreadyAfter time.Duration `env:"UNREADY_AFTER" envDefault:"30s" desc:"not ready after Postgres failed so long here alone"`
}

// markShare makes an announcement expire well before another instance's failure counts: when all instances lose the
// dependency at once, none may be misled by the last announcement of another.
const markShare = 3

// MarkTTL returns how long an announcement to other instances is valid.
func (c HealthConfig) MarkTTL() time.Duration { return c.UnreadyAfter / markShare }

// Validate returns every wrong variable.
func (c HealthConfig) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.Interval >= 10*time.Millisecond && c.Interval <= time.Minute, "INTERVAL", "must be from 10ms to 1m")
	check.Range(c.UnreadyAfter >= 2*markShare*c.Interval, "UNREADY_AFTER",
		"must be at least six times INTERVAL, or announcements expire between two checks")
	return check.Fields()
}
