package fetch

import (
	"strings"
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// The default of MaxInFlight, in bytes: for each concurrent image, the maximum source size of the default pipeline, so that
// no download waits; and a limit for processes with many concurrent images.
const (
	bytesPerImage      = 25 << 20
	maxDefaultInFlight = 512 << 20
)

// Config holds the settings of all downloads. The settings of a pipeline are in pipeline.Fetch.
type Config struct {
	UserAgent  string        `env:"USER_AGENT" envDefault:"Vitrine" desc:"User-Agent header of downloads"`
	MinRate    int64         `env:"MIN_RATE" envDefault:"1024" desc:"minimum rate of a download in bytes per second; 0 means none"`
	RateWindow time.Duration `env:"RATE_WINDOW" envDefault:"10s" desc:"how long a download may stay below MIN_RATE"`

	SlotWait time.Duration `env:"SLOT_WAIT" envDefault:"5s" desc:"maximum wait for a slot of a network, or of a host after a redirect"`

	MaxInFlight int64 `env:"MAX_BYTES_IN_FLIGHT" envDefault:"0" desc:"maximum bytes of all sources together, beyond which downloads wait; 0: 25 MiB per image, up to 512 MiB"`
}

// For returns c with the default of MaxInFlight for a process with that many concurrent images, unless MaxInFlight is set.
func (c Config) For(images int) Config {
	if c.MaxInFlight == 0 {
		c.MaxInFlight = min(int64(max(images, 1))*bytesPerImage, maxDefaultInFlight)
	}
	return c
}

// Validate returns every invalid setting, by the name of its variable.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	printable := func(r rune) bool { return r >= ' ' && r <= '~' }
	if c.UserAgent == "" || strings.ContainsFunc(c.UserAgent, func(r rune) bool { return !printable(r) }) {
		check.Add("USER_AGENT", "bad_form", "needs printable ASCII characters")
	}
	check.Range(c.MinRate >= 0, "MIN_RATE", "0 or more")
	check.Range(c.RateWindow >= time.Second && c.RateWindow <= time.Hour, "RATE_WINDOW", "from 1s to 1h")
	check.Range(c.SlotWait > 0, "SLOT_WAIT", "must be positive")
	check.Range(c.MaxInFlight == 0 || c.MaxInFlight >= 1<<20, "MAX_BYTES_IN_FLIGHT", "0, or at least 1048576")
	return check.Fields()
}
