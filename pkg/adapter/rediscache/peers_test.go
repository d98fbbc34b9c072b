package rediscache_test

import (
	"testing"
	"time"

	"vitrine.io/pkg/adapter/rediscache"
	"vitrine.io/pkg/foundation/fault"
)

func TestPeers(t *testing.T) {
	t.Parallel()
	t.Run("other_instance_of_the_program", testPeersOtherInstance)
	t.Run("no_redis", testPeersNoRedis)
}

func testPeersOtherInstance(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	cache := open(t, cfg, "tag")
	installation := func(name string) func() string { return func() string { return name } }
	const ttl = 10 * time.Second
	a, b := cache.Peers("api", "a", installation("x.0"), ttl), cache.Peers("api", "b", installation("x.0"), ttl)
	worker := cache.Peers("worker", "w", installation("x.0"), ttl)
	restored := cache.Peers("api", "c", installation("x.1"), ttl)
	unknown := cache.Peers("api", "d", installation(""), ttl)
	want := func(when string, want map[string]bool) {
		t.Helper()
		for name, p := range map[string]*rediscache.Peers{
			"a": a, "b": b, "worker": worker, "restored": restored, "unknown": unknown,
		} {
			if got, err := p.Announced(t.Context()); err != nil || got != want[name] {
				t.Errorf("%s: %s sees %t, %v", when, name, got, err)
			}
		}
	}
	want("nothing announced", nil)
	for _, p := range []*rediscache.Peers{worker, restored, unknown, a} {
		if err := p.Announce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want("a and others of other kinds", map[string]bool{"b": true})
	if err := b.Announce(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("b after a", map[string]bool{"a": true})
	mini.FastForward(ttl)
	want("expired", nil)
}

func testPeersNoRedis(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	p := open(t, cfg, "tag").Peers("api", "a", func() string { return "x.0" }, time.Second)
	mini.Close()
	if err := p.Announce(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("announce: got %v", err)
	}
	if got, err := p.Announced(t.Context()); got || !fault.Is(err, fault.Unavailable) {
		t.Errorf("read: got %t, %v", got, err)
	}
}
