package rediscache_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/adapter/rediscache"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	t.Run("complete_configuration_is_valid", testConfigValid)
	t.Run("wrong_value_is_reported_alone", testConfigWrongValue)
	t.Run("all_wrong_values_are_reported", testConfigAllWrong)
	t.Run("unreadable_authority_is_reported", testConfigUnreadableAuthority)
}

func testConfigValid(t *testing.T) {
	t.Parallel()
	if wrong := settings([]string{"redis-0.redis:6379", "[::1]:7000"}, "vitrine:").Validate(); wrong != nil {
		t.Errorf("got %v, want nothing wrong", wrong)
	}
}

func testConfigWrongValue(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		edit func(*rediscache.Config)
	}{
		{"ADDRS", func(c *rediscache.Config) { c.Addrs = nil }},
		{"ADDRS", func(c *rediscache.Config) { c.Addrs = []string{"here"} }},
		{"ADDRS", func(c *rediscache.Config) { c.Addrs = []string{"here:"} }},
		{"TLS", func(c *rediscache.Config) { c.TLSCAFile = "/etc/ca.crt" }},
		{"KEY_PREFIX", func(c *rediscache.Config) { c.KeyPrefix = "a{b}" }},
		{"NAME", func(c *rediscache.Config) { c.Name = "eu west" }},
		{"NAME", func(c *rediscache.Config) { c.Name = strings.Repeat("x", 41) }},
		{"TTL", func(c *rediscache.Config) { c.TTL = time.Millisecond }},
		{"MISSING_TTL", func(c *rediscache.Config) { c.MissingTTL = 0 }},
		{"TOMBSTONE_TTL", func(c *rediscache.Config) { c.TombstoneTTL = 9 * time.Second }},
		{"TIMEOUT", func(c *rediscache.Config) { c.Timeout = 0 }},
		{"DIAL_TIMEOUT", func(c *rediscache.Config) { c.DialTimeout = 6 * time.Second }},
		{"IO_TIMEOUT", func(c *rediscache.Config) { c.IOTimeout = -time.Second }},
		{"DOWN_PAUSE", func(c *rediscache.Config) { c.DownPause = 0 }},
		{"POOL_SIZE", func(c *rediscache.Config) { c.PoolSize = -1 }},
	} {
		cfg := settings([]string{"here:1"}, "")
		test.edit(&cfg)
		wrong := cfg.Validate()
		if len(wrong) != 1 || wrong[0].Path != test.name || wrong[0].Code == "" || wrong[0].Detail == "" {
			t.Errorf("%s: got %+v, want only this variable", test.name, wrong)
		}
	}
}

func testConfigAllWrong(t *testing.T) {
	t.Parallel()
	all := rediscache.Config{Addrs: []string{"x"}, KeyPrefix: "{", PoolSize: -1}.Validate()
	names := make([]string, 0, len(all))
	for _, field := range all {
		names = append(names, field.Path)
	}
	want := []string{"ADDRS", "KEY_PREFIX", "TTL", "MISSING_TTL", "TOMBSTONE_TTL", "TIMEOUT", "DIAL_TIMEOUT", "IO_TIMEOUT",
		"DOWN_PAUSE", "POOL_SIZE"}
	if !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}
