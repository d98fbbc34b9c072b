package fetch

import (
	"strings"
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// What MaxInFlight is when nobody says, in bytes: for each picture in work, a source of the largest size that the default
// pipeline takes, so that with it nobody waits; and a bound for a process with very many pictures in work.
const (
	eachInFlight = 25 << 20
	mostInFlight = 512 << 20
)

// Config is what is the same for all downloads. What differs by pipeline is in pipeline.Fetch.
type Config struct {
	UserAgent  string        `env:"USER_AGENT" envDefault:"Vitrine" desc:"what sources of pictures see as User-Agent"`
	MinRate    int64         `env:"MIN_RATE" envDefault:"1024" desc:"bytes a second a download has to bring; 0 is none"`
	RateWindow time.Duration `env:"RATE_WINDOW" envDefault:"10s" desc:"how long a download may stay below MIN_RATE"`

	MaxInFlight int64 `env:"MAX_BYTES_IN_FLIGHT" envDefault:"0" desc:"bytes of all sources together, beyond which downloads wait; 0: 25 MiB a picture, up to 512 MiB"`
}

// For returns c with a MaxInFlight for a process that has so many pictures in work at a time, unless one is set.
func (c Config) For(pictures int) Config {
	if c.MaxInFlight == 0 {
		c.MaxInFlight = min(int64(max(pictures, 1))*eachInFlight, mostInFlight)
	}
	return c
}

// Validate returns every wrong value, by the name of its variable.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	printable := func(r rune) bool { return r >= ' ' && r <= '~' }
	if c.UserAgent == "" || strings.ContainsFunc(c.UserAgent, func(r rune) bool { return !printable(r) }) {
		check.Add("USER_AGENT", "bad_form", "needs printable ASCII characters")
	}
	check.Range(c.MinRate >= 0, "MIN_RATE", "0 or more")
	check.Range(c.RateWindow >= time.Second && c.RateWindow <= time.Hour, "RATE_WINDOW", "from 1s to 1h")
	check.Range(c.MaxInFlight == 0 || c.MaxInFlight >= 1<<20, "MAX_BYTES_IN_FLIGHT", "0, or at least 1048576")
	return check.Fields()
}
