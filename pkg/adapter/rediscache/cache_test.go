package rediscache_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/rediscache"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/platform/devstack"
	"vitrine.io/pkg/test/cachetest"
	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// settings returns the defaults, but with longer timeouts, because a test machine may be busy.
func settings(addrs []string, prefix string) rediscache.Config {
	return rediscache.Config{
		Addrs: addrs, KeyPrefix: prefix,
		TTL: 10 * time.Minute, MissingTTL: 5 * time.Second, TombstoneTTL: time.Minute,
		Timeout: 5 * time.Second, DialTimeout: time.Second, IOTimeout: 2 * time.Second, DownPause: time.Second,
	}
}

func open(t testing.TB, cfg rediscache.Config, tag string) *rediscache.Cache {
	t.Helper()
	cache, _ := openWith(t, cfg, tag, time.Now, rand.Float64)
	return cache
}

func openWith(t testing.TB, cfg rediscache.Config, tag string, now func() time.Time, random func() float64,
) (*rediscache.Cache, *prometheus.Registry) {
	t.Helper()
	if wrong := cfg.Validate(); wrong != nil {
		t.Fatalf("the configuration of the test is invalid: %v", wrong)
	}
	reg := prometheus.NewRegistry()
	cache, err := rediscache.New(cfg, tag, now, random, reg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cache.Close(); err != nil {
			t.Error(err)
		}
	})
	return cache, reg
}

func TestConformance(t *testing.T) {
	t.Parallel()
	t.Run("cluster", testCluster)
	t.Run("in_process", testInProcess)
}

func testCluster(t *testing.T) {
	t.Parallel()
	addrs, prefix := servers.Redis(t)
	cachetest.Run(t, func(t testing.TB, tag string) catalog.Cache {
		t.Helper()
		return open(t, settings(addrs, prefix), tag)
	})
}

func testInProcess(t *testing.T) {
	t.Parallel()
	addr := devRedis(t)
	cachetest.Run(t, func(t testing.TB, tag string) catalog.Cache {
		t.Helper()
		return open(t, settings([]string{addr}, "dev:"), tag)
	})
}

// devRedis starts the in-process Redis of devstack and returns its address.
func devRedis(t testing.TB) string {
	t.Helper()
	server, err := devstack.StartRedis("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server.Addr()
}
