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

// Config is the address of the cluster, the lifetimes of values and the time limits of calls. The defaults suit a cluster in
// the same data centre.
type Config struct {
	Addrs    []string `env:"ADDRS" envDefault:"127.0.0.1:6379" desc:"host:port of some of the cluster's nodes, comma-separated"`
	Username string   `env:"USERNAME" desc:"ACL user; empty is the default user"`
	Password string   `env:"PASSWORD" secret:"true" desc:"password of the user"`

	TLS       bool   `env:"TLS" envDefault:"false" desc:"connect with TLS"`
	TLSCAFile string `env:"TLS_CA_FILE" desc:"PEM file with certificate authorities, read at start; empty: those of the system"`

	Name         string        `env:"NAME" desc:"name of this cache; differs for each cache of one Kafka"`
	KeyPrefix    string        `env:"KEY_PREFIX" envDefault:"vitrine:" desc:"prefix of every key, to share a cluster with other programs"`
	TTL          time.Duration `env:"TTL" envDefault:"10m" desc:"how long a product is cached, plus or minus a tenth"`
	MissingTTL   time.Duration `env:"MISSING_TTL" envDefault:"5s" desc:"how long an unknown id is cached as not found"`
	TombstoneTTL time.Duration `env:"TOMBSTONE_TTL" envDefault:"60s" desc:"how long an invalidation rejects older versions"`

	Timeout     time.Duration `env:"TIMEOUT" envDefault:"200ms" desc:"time limit of one operation, with its retries"`
	DialTimeout time.Duration `env:"DIAL_TIMEOUT" envDefault:"100ms" desc:"time limit of one connection attempt"`
	IOTimeout   time.Duration `env:"IO_TIMEOUT" envDefault:"100ms" desc:"time limit of one read, write or wait for a connection"`
	DownPause   time.Duration `env:"DOWN_PAUSE" envDefault:"1s" desc:"how long a node that does not answer is not read"`
	PoolSize    int           `env:"POOL_SIZE" envDefault:"0" desc:"maximum connections per node; 0: ten per CPU"`
}

// Limits of the durations. A tombstone must not expire before the slowest reader has stored its result. A read may be
// stored until half of TombstoneTTL has passed; the other half allows for differences of clocks and for late messages.
const (
	minTombstoneTTL = 10 * time.Second
	maxTimeout      = 5 * time.Second
)

// The characters and the length of a Name: those of a Kafka group.
const (
	nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	maxName        = 40
)

// tlsConfig returns nil without TLS. It reads TLSCAFile. The certificate of a node must be valid for the host of its
// address.
func (c Config) tlsConfig() (*tls.Config, error) {
	if !c.TLS {
		return nil, nil //nolint:nilnil // for go-redis, nil means no TLS
	}
	roots, err := tlsroots.Pool(c.TLSCAFile)
	if err != nil {
		return nil, fmt.Errorf("read Redis certificate authorities: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, nil
}

// Validate returns every wrong value, by the name of its variable, or nil.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	check.Check(len(c.Addrs) > 0, "ADDRS", "required", "needs at least one host:port")
	for _, addr := range c.Addrs {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
			check.Add("ADDRS", "bad_address", "needs host:port, not %s", addr)
		}
	}
	if !c.TLS && c.TLSCAFile != "" {
		check.Add("TLS", "invalid", "TLS_CA_FILE is set, but TLS is off")
	} else if _, err := c.tlsConfig(); err != nil {
		check.Add("TLS_CA_FILE", "bad_file", "%v", err)
	}
	check.Check(strings.Trim(c.Name, nameCharacters) == "" && len(c.Name) <= maxName, "NAME", "bad_name",
		"at most 40 of a-z A-Z 0-9 . _ -, because the name of a Kafka group has it")
	check.Check(!strings.ContainsAny(c.KeyPrefix, "{}"), "KEY_PREFIX", "bad_prefix",
		"must not contain braces: they would change the hash slot of a key")
	check.Range(c.TTL >= time.Second, "TTL", "at least 1s")
	check.Range(c.MissingTTL >= time.Millisecond, "MISSING_TTL", "at least 1ms")
	check.Range(c.TombstoneTTL >= minTombstoneTTL, "TOMBSTONE_TTL", "at least 10s")
	for _, t := range []struct {
		name  string
		value time.Duration
	}{{"TIMEOUT", c.Timeout}, {"DIAL_TIMEOUT", c.DialTimeout}, {"IO_TIMEOUT", c.IOTimeout}} {
		check.Range(t.value >= time.Millisecond && t.value <= maxTimeout, t.name, "from 1ms to 5s")
	}
	check.Positive("DOWN_PAUSE", c.DownPause)
	check.Range(c.PoolSize >= 0, "POOL_SIZE", "0 or more")
	return check.Fields()
}
