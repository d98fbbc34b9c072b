package devstack_test

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"vitrine.io/pkg/platform/devstack"
	"vitrine.io/pkg/test/port"
)

func startRedis(t *testing.T) *devstack.Redis {
	t.Helper()
	r, err := devstack.StartRedis(port.Addr(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestRedis(t *testing.T) {
	t.Parallel()
	t.Run("serves_cluster_client", testRedisServesClusterClient)
	t.Run("keys_expire", testRedisKeysExpire)
	t.Run("port_in_use", testRedisPortInUse)
	t.Run("second_close_and_reuse_of_port", testRedisSecondCloseAndReuseOfPort)
}

func testRedisServesClusterClient(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{r.Addr()}})
	t.Cleanup(func() { _ = client.Close() })
	for _, key := range []string{"a", "b", "{c}d"} {
		if err := client.Set(t.Context(), key, "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := client.Get(t.Context(), key).Result(); err != nil || got != "v" {
			t.Errorf("%s: got %q, %v", key, got, err)
		}
	}
	script := redis.NewScript("return redis.call('GET', KEYS[1]) .. ARGV[1]")
	for range 2 {
		if got, err := script.Run(t.Context(), client, []string{"a"}, "!").Text(); err != nil || got != "v!" {
			t.Errorf("script: got %q, %v", got, err)
		}
	}
}

func testRedisKeysExpire(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	client := redis.NewClient(&redis.Options{Addr: r.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	if err := client.Set(t.Context(), "short", "v", 50*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Set(t.Context(), "long", "v", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for client.Exists(t.Context(), "short").Val() == 1 {
		if time.Now().After(deadline) {
			t.Fatal("a key of 50 ms still exists")
		}
	}
	if got := client.Exists(t.Context(), "long").Val(); got != 1 {
		t.Error("a key of an hour is expired")
	}
}

func testRedisPortInUse(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	_, err := devstack.StartRedis(r.Addr())
	if err == nil || !strings.Contains(err.Error(), r.Addr()) {
		t.Errorf("got %v, want an error that names %s", err, r.Addr())
	}
}

func testRedisSecondCloseAndReuseOfPort(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	r.Close()
	r.Close()
	second, err := devstack.StartRedis(r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}
