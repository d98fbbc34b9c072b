package rediscache

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/tlsroots"
)

// Config says where the cache is and how long it remembers. The defaults suit a cluster in the same data centre.
type Config struct {
	Addrs    []string `env:"ADDRS" envDefault:"127.0.0.1:6379" desc:"host:port of some of the cluster's nodes, comma-separated"`
	Username string   `env:"USERNAME" desc:"ACL user; empty is the default user"`
	Password string   `env:"PASSWORD" secret:"true" desc:"password of the user"`

	TLS       bool   `env:"TLS" envDefault:"false" desc:"connect with TLS"`
	TLSCAFile string `env:"TLS_CA_FILE" desc:"PEM file of the authority; empty: the system's; read at the start"`

	KeyPrefix    string        `env:"KEY_PREFIX" envDefault:"vitrine:" desc:"begins every key, apart from other users"`
	TTL          time.Duration `env:"TTL" envDefault:"10m" desc:"how long a product is kept, give or take a tenth"`
	MissingTTL   time.Duration `env:"MISSING_TTL" envDefault:"5s" desc:"how long an id that never was is kept as not found"`
	TombstoneTTL time.Duration `env:"TOMBSTONE_TTL" envDefault:"60s" desc:"how long a change keeps slow readers out"`

	Timeout     time.Duration `env:"TIMEOUT" envDefault:"200ms" desc:"bound on one operation, with its retries"`
	DialTimeout time.Duration `env:"DIAL_TIMEOUT" envDefault:"100ms" desc:"bound on one connection attempt"`
	IOTimeout   time.Duration `env:"IO_TIMEOUT" envDefault:"100ms" desc:"bound on one read, write or wait for a connection"`
	PoolSize    int           `env:"POOL_SIZE" envDefault:"0" desc:"connections per node at most; 0 is ten per CPU"`
}

// Bounds of the durations. A tombstone has to outlive the slowest reader by far: half of its life is the oldest read that
// may still be stored, and the other half is the room for clocks and queues.
const (
	minTombstoneTTL = 10 * time.Second
	maxTimeout      = 5 * time.Second
)

// tlsConfig returns nil without TLS. It reads the authority's file. A certificate is held to the host of its node's address.
func (c Config) tlsConfig() (*tls.Config, error) {
	if !c.TLS {
		return nil, nil //nolint:nilnil // go-redis takes nil for no TLS
	}
	roots, err := tlsroots.Pool(c.TLSCAFile)
	if err != nil {
		return nil, fmt.Errorf("read Redis' authority: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, nil
}

// Validate returns every wrong value, by the name of its variable.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Check(len(c.Addrs) > 0, "ADDRS", "required", "needs at least one host:port")
	for _, addr := range c.Addrs {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
			check.Add("ADDRS", "bad_address", "needs host:port, not %s", addr)
		}
	}
	if !c.TLS && c.TLSCAFile != "" {
		check.Add("TLS", "invalid", "TLS_CA_FILE is given, but TLS is off")
	} else if _, err := c.tlsConfig(); err != nil {
		check.Add("TLS_CA_FILE", "bad_file", "%v", err)
	}
	check.Check(!strings.ContainsAny(c.KeyPrefix, "{}"), "KEY_PREFIX", "bad_prefix",
		"may not contain braces: they decide on which node a key lies")
	check.Range(c.TTL >= time.Second, "TTL", "at least 1s")
	check.Range(c.MissingTTL >= time.Millisecond, "MISSING_TTL", "at least 1ms")
	check.Range(c.TombstoneTTL >= minTombstoneTTL, "TOMBSTONE_TTL", "at least 10s")
	for _, t := range []struct {
		name  string
		value time.Duration
	}{{"TIMEOUT", c.Timeout}, {"DIAL_TIMEOUT", c.DialTimeout}, {"IO_TIMEOUT", c.IOTimeout}} {
		check.Range(t.value >= time.Millisecond && t.value <= maxTimeout, t.name, "from 1ms to 5s")
	}
	check.Range(c.PoolSize >= 0, "POOL_SIZE", "0 or more")
	return check.Fields()
}
