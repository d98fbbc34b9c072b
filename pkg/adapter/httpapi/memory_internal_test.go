package httpapi

import (
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	m := newMemory(100, 4, newMetrics(prometheus.NewRegistry()))
	for _, step := range []struct {
		client  netip.Addr
		bytes   int64
		force   bool
		want    bool
		because string
	}{
		{a, 25, false, true, "the share of one client"},
		{a, 1, false, false, "more than the share of one client"},
		{b, 25, false, true, "the share of another client"},
		{a, 60, true, true, "a forced reservation"},
		{netip.MustParseAddr("192.0.2.3"), 1, false, false, "more than all"},
	} {
		if got := m.acquire(step.client, step.bytes, step.force); got != step.want {
			t.Errorf("%s: got %t, want %t", step.because, got, step.want)
		}
	}
	m.release(a, 60)
	m.release(a, 25)
	if !m.acquire(a, 25, false) {
		t.Error("released memory was not given again")
	}
	m.release(a, 25)
	m.release(b, 25)
	if m.used != 0 || len(m.clients) != 0 {
		t.Errorf("got %d bytes of %d clients left, want none", m.used, len(m.clients))
	}
}

func TestProxiesClient(t *testing.T) {
	t.Parallel()
	trusted := proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, test := range []struct{ peer, forwardedFor, want string }{
		{"192.0.2.1", "", "192.0.2.1"},
		{"192.0.2.1", "198.51.100.1", "192.0.2.1"}, // not from a proxy: anyone can write the header
		{"10.0.0.1", "", "10.0.0.1"},
		{"10.0.0.1", "198.51.100.1", "198.51.100.1"},
		{"10.0.0.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"},
		{"10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"},
		{"fd00::1", "2001:db8::1,fd00::2", "2001:db8::1"},
		{"10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1"},
		{"10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"},
	} {
		got := trusted.client(netip.MustParseAddr(test.peer), test.forwardedFor)
		if got.String() != test.want {
			t.Errorf("%s for %q: got %s, want %s", test.peer, test.forwardedFor, got, test.want)
		}
	}
}

func TestConfigLimits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		limit, bytes int64
		connections  int
	}{
		{512 << 20, 128 << 20, 2048},
		{1 << 20, 16 << 20, 64},
		{64 << 30, 16 << 30, 16_384},
	} {
		c := Config{}
		if got := c.connections(test.limit); got != test.connections {
			t.Errorf("connections with %d bytes: got %d, want %d", test.limit, got, test.connections)
		}
		if got := c.bytesInFlight(test.limit); got != test.bytes {
			t.Errorf("bytes in flight with %d bytes: got %d, want %d", test.limit, got, test.bytes)
		}
	}
	c := Config{MaxConnections: 3, MaxBytesInFlight: 5}
	if c.connections(1<<30) != 3 || c.bytesInFlight(1<<30) != 5 {
		t.Error("settings do not take precedence over the memory limit")
	}
}
