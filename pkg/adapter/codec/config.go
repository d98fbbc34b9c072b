package codec

import (
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// Config sets the number of codec processes and when one is replaced.
type Config struct {
	Path     string `env:"PATH" envDefault:"codec" desc:"codec program; a bare name is looked up beside this one, then in PATH"`
	Children int    `env:"CHILDREN" envDefault:"0" desc:"codec processes, each renders one image at a time; 0: one per CPU"`

	RecycleAfter int   `env:"RECYCLE_AFTER" envDefault:"500" desc:"images after which a codec process is replaced"`
	MaxRSS       int64 `env:"MAX_RSS" envDefault:"536870912" desc:"resident bytes above which a codec process is replaced"`
	// The default is 1.5 GiB: 50 million pixels of AVIF, the format that needs the most, take 0.94 GiB (measured).
	AddressSpace int64 `env:"ADDRESS_SPACE" envDefault:"1610612736" desc:"bytes of memory for one image; 0: no limit"`

	StartTimeout  time.Duration `env:"START_TIMEOUT" envDefault:"10s" desc:"how long a codec process may take to start"`
	StartBackoff  time.Duration `env:"START_BACKOFF" envDefault:"500ms" desc:"pause after a failed start; doubles up to 30s"`
	ShutdownGrace time.Duration `env:"SHUTDOWN_GRACE" envDefault:"2s" desc:"how long an idle codec process may take to exit"`

	Sandbox string `env:"SANDBOX" envDefault:"on" desc:"on or off; off only if the kernel has no seccomp"`
	Preload string `env:"PRELOAD" envDefault:"auto" desc:"allocator of codec processes: a library, auto (jemalloc) or none"`
}

// maxStartBackoff bounds the pause between attempts to start a codec.
const maxStartBackoff = 30 * time.Second

// Validate returns every invalid field, or nil. Paths are the names of the variables without their prefix.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Range(c.Path != "", "PATH", "name the codec program")
	check.Range(c.Children >= 0 && c.Children <= 256, "CHILDREN", "must be 0 to 256")
	check.Range(c.RecycleAfter >= 1, "RECYCLE_AFTER", "must be at least 1")
	check.Range(c.MaxRSS >= 64<<20, "MAX_RSS", "must be at least 67108864 (64 MiB)")
	check.Range(c.AddressSpace == 0 || c.AddressSpace >= 256<<20, "ADDRESS_SPACE", "must be 0 or at least 268435456 (256 MiB)")
	check.Range(c.StartTimeout > 0, "START_TIMEOUT", "must be above 0")
	check.Range(c.StartBackoff > 0 && c.StartBackoff <= maxStartBackoff, "START_BACKOFF", "must be above 0 and at most 30s")
	check.Range(c.ShutdownGrace > 0, "SHUTDOWN_GRACE", "must be above 0")
	check.Range(c.Sandbox == "on" || c.Sandbox == "off", "SANDBOX", "must be on or off")
	check.Range(c.Preload != "", "PRELOAD", "must be auto, none or a path")
	return check.Fields()
}
