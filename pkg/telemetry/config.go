package telemetry

import (
	"net"
	"time"

	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/fault"
)

// LogConfig says what is logged and how.
type LogConfig struct {
	Level              string `env:"LEVEL" envDefault:"info" desc:"least level logged: debug, info, warn or error"`
	Format             string `env:"FORMAT" envDefault:"json" desc:"json for machines, console for people"`
	SamplingFirst      int    `env:"SAMPLING_FIRST" envDefault:"0" desc:"equal lines logged a second before sampling; 0: all"`
	SamplingThereafter int    `env:"SAMPLING_THEREAFTER" envDefault:"100" desc:"then one of so many is logged; 0: none"`

	Flush time.Duration `env:"FLUSH" envDefault:"200ms" desc:"longest a line below warn waits to be written with others; 0: none"`
}

// Validate returns every wrong variable.
func (c LogConfig) Validate() []fault.Field {
	var wrong []fault.Field
	if level, err := zapcore.ParseLevel(c.Level); err != nil || level > zapcore.ErrorLevel {
		wrong = append(wrong, fault.Field{Pointer: "LEVEL", Code: "unknown_value", Detail: "one of debug, info, warn, error"})
	}
	if c.Format != formatJSON && c.Format != formatConsole {
		wrong = append(wrong, fault.Field{Pointer: "FORMAT", Code: "unknown_value", Detail: "one of json, console"})
	}
	if c.SamplingFirst < 0 {
		wrong = append(wrong, fault.Field{Pointer: "SAMPLING_FIRST", Code: "out_of_range", Detail: "must not be negative"})
	}
	if c.SamplingThereafter < 0 {
		wrong = append(wrong,
			fault.Field{Pointer: "SAMPLING_THEREAFTER", Code: "out_of_range", Detail: "must not be negative"})
	}
	if c.Flush < 0 {
		wrong = append(wrong, fault.Field{Pointer: "FLUSH", Code: "out_of_range", Detail: "must not be negative"})
	}
	return wrong
}

// AdminConfig says where the admin port is.
type AdminConfig struct {
	Addr string `env:"ADDR" envDefault:":9090" desc:"address of metrics, health and profiles; not for the internet"`
}

// Validate returns every wrong variable.
func (c AdminConfig) Validate() []fault.Field {
	if _, port, err := net.SplitHostPort(c.Addr); err != nil || port == "" {
		return []fault.Field{{Pointer: "ADDR", Code: "malformed", Detail: "must be host:port or :port"}}
	}
	return nil
}
