package fetch

import (
	"net/netip"
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

	Resolver     string   `env:"RESOLVER" desc:"DNS server for the names of sources, as address:port; empty: those of /etc/resolv.conf"`
	ControlNames []string `env:"CONTROL_NAMES" envDefault:"kubernetes.default.svc,example.com.,a.root-servers.net." desc:"names that are looked up after a failed lookup: without an answer for most of them the resolver is at fault, not the source; a comma alone: none, the source is always at fault"`

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
	check.Range(c.MaxInFlight == 0 || c.MaxInFlight >= 1<<20, "MAX_BYTES_IN_FLIGHT", "0, or at least 1048576")
	if _, err := netip.ParseAddrPort(c.Resolver); c.Resolver != "" && err != nil {
		check.Add("RESOLVER", "bad_form", "must be an address and a port, such as 10.0.0.10:53")
	}
	check.Range(len(c.ControlNames) <= maxControlNames, "CONTROL_NAMES", "at most 8 names")
	for _, name := range c.ControlNames {
		if _, isAddress, ok := literal(name); isAddress || !ok {
			check.Add("CONTROL_NAMES", "bad_form", "%q is not the name of a host", name)
		}
	}
	return check.Fields()
}
