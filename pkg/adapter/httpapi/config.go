package httpapi

import (
	"net"
	"net/netip"
	"net/url"
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// Config has the addresses, timeouts and limits of the API.
//
// The default of MaxInFlight follows from the connections to Postgres. If each of 20 connections is busy for 5 ms with one
// request, they answer 4000 requests a second, and the last of 256 requests, the half that may wait for Postgres, waits
// 65 ms. With a database that is ten times slower it waits 0.7 s, which is still far below HandlerTimeout. The memory of
// 512 requests of ordinary size is some tens of megabytes.
type Config struct {
	Addr             string        `env:"ADDR" envDefault:":8080" desc:"address the API listens on; port 0 picks a free one"`
	ReadTimeout      time.Duration `env:"READ_TIMEOUT" envDefault:"10s" desc:"longest wait for a whole request, body included"`
	WriteTimeout     time.Duration `env:"WRITE_TIMEOUT" envDefault:"30s" desc:"longest time for a client to read a response"`
	IdleTimeout      time.Duration `env:"IDLE_TIMEOUT" envDefault:"90s" desc:"longest wait for a connection's next request"`
	HandlerTimeout   time.Duration `env:"HANDLER_TIMEOUT" envDefault:"10s" desc:"longest time to handle one request; then 503"`
	ShutdownTimeout  time.Duration `env:"SHUTDOWN_TIMEOUT" envDefault:"20s" desc:"longest drain; above HANDLER_TIMEOUT"`
	BodyLimit        int           `env:"BODY_LIMIT" envDefault:"1048576" desc:"largest request body, in bytes; then 413"`
	HeaderLimit      int           `env:"HEADER_LIMIT" envDefault:"16384" desc:"largest request head, in bytes; then 431"`
	MaxConnections   int           `env:"MAX_CONNECTIONS" envDefault:"0" desc:"open connections; more get 503; 0: by the memory limit"`
	MaxInFlight      int           `env:"MAX_IN_FLIGHT" envDefault:"512" desc:"requests handled at a time, half of which may wait for Postgres"`
	MaxBytesInFlight int64         `env:"MAX_BYTES_IN_FLIGHT" envDefault:"0" desc:"bytes of large bodies and responses; 0: by memory limit"`
	ClientShare      int           `env:"CLIENT_SHARE" envDefault:"8" desc:"one client address may have one part in so many"`
	TrustedProxies   []string      `env:"TRUSTED_PROXIES" desc:"networks of proxies whose X-Forwarded-For names the client"`
	CORSOrigins      []string      `env:"CORS_ORIGINS" desc:"origins whose pages may call the API, or * for all; none if empty"`
}

// minHeaderLimit is the minimum of the limit of a request's headers, in bytes. The headers of every browser fit in.
const minHeaderLimit = 4096

// Validate returns every wrong field, named by its variable.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	_, _, err := net.SplitHostPort(c.Addr)
	check.Check(err == nil, "ADDR", "invalid_address", "must be host:port or :port")
	check.Positive("READ_TIMEOUT", c.ReadTimeout)
	check.Positive("WRITE_TIMEOUT", c.WriteTimeout)
	check.Positive("IDLE_TIMEOUT", c.IdleTimeout)
	check.Positive("HANDLER_TIMEOUT", c.HandlerTimeout)
	check.Positive("SHUTDOWN_TIMEOUT", c.ShutdownTimeout)
	if c.HandlerTimeout > 0 && c.ShutdownTimeout > 0 {
		check.Range(c.ShutdownTimeout > c.HandlerTimeout, "SHUTDOWN_TIMEOUT",
			"must be above HANDLER_TIMEOUT, or a shutdown cuts requests off")
	}
	check.Range(c.BodyLimit >= 1, "BODY_LIMIT", "must be above zero")
	check.Range(c.HeaderLimit >= minHeaderLimit, "HEADER_LIMIT", "must be at least 4096")
	check.Range(c.MaxConnections >= 0, "MAX_CONNECTIONS", "must not be below zero")
	check.Range(c.ClientShare >= 1, "CLIENT_SHARE", "must be above zero")
	largest := int64(max(c.BodyLimit, pageMemory))
	check.Range(c.MaxBytesInFlight == 0 || c.ClientShare < 1 || c.MaxBytesInFlight/int64(c.ClientShare) >= largest,
		"MAX_BYTES_IN_FLIGHT", "the share of one client must hold a body of BODY_LIMIT and a page of products")
	for _, network := range c.TrustedProxies {
		if _, err := netip.ParsePrefix(network); err != nil {
			check.Add("TRUSTED_PROXIES", "invalid_network", "%s is not a network such as 10.0.0.0/8", network)
		}
	}
	check.Range(c.MaxInFlight >= 1, "MAX_IN_FLIGHT", "must be above zero")
	for _, origin := range c.CORSOrigins {
		if !validOrigin(origin) && (origin != "*" || len(c.CORSOrigins) > 1) {
			check.Add("CORS_ORIGINS", "invalid_origin", "%s is not an origin such as https://shop.example, nor a lone *", origin)
		}
	}
	return check.Fields()
}

// trustedProxies returns the valid networks of TrustedProxies.
func (c Config) trustedProxies() proxies {
	var networks proxies
	for _, text := range c.TrustedProxies {
		if network, err := netip.ParsePrefix(text); err == nil {
			networks = append(networks, network.Masked())
		}
	}
	return networks
}

func validOrigin(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" &&
		origin == u.Scheme+"://"+u.Host
}
