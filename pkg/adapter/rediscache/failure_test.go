package rediscache_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/adapter/rediscache"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/port"
)

func doc(version int64) catalog.Document {
	return catalog.Document{Version: version, ETag: fmt.Sprintf(`"%d"`, version), Body: []byte("{}")}
}

// fakeRedis starts a Redis in this process whose clock stands still and whose replies a test may change.
func fakeRedis(t testing.TB) (*miniredis.Miniredis, rediscache.Config) {
	t.Helper()
	mini := miniredis.NewMiniRedis()
	if err := mini.StartAddr(port.Addr(t)); err != nil { // a test may restart it
		t.Fatal(err)
	}
	t.Cleanup(mini.Close)
	return mini, settings([]string{mini.Addr()}, "x:")
}

// half makes the jitter of a TTL zero.
func half() float64 { return 0.5 }

func mustFill(t *testing.T, cache catalog.Cache, id catalog.ProductID, d catalog.Document) {
	t.Helper()
	got, err := cache.Fill(t.Context(), id, d, time.Now())
	if err != nil || got != catalog.Filled {
		t.Fatalf("fill: got %d, %v", got, err)
	}
}

func wantHit(t *testing.T, cache catalog.Cache, id catalog.ProductID, want bool) {
	t.Helper()
	got, hit, err := cache.Get(t.Context(), id)
	if err != nil || hit != want {
		t.Fatalf("get: got hit %t of version %d, %v, want hit %t", hit, got.Version, err, want)
	}
}

func TestFill(t *testing.T) {
	t.Parallel()
	t.Run("ttl_depends_on_kind_and_random", testFillTTL)
	t.Run("same_version_keeps_remaining_ttl", testFillSameVersion)
	t.Run("read_older_than_half_tombstone_ttl_is_dropped", testFillTooSlow)
	t.Run("oversized_value_is_internal_error", testFillOversized)
}

func TestGet(t *testing.T) {
	t.Parallel()
	t.Run("damaged_value_is_miss_and_replaced", testGetDamaged)
	t.Run("outcomes_are_counted", testGetMetrics)
}

func TestFullRedis(t *testing.T) {
	t.Parallel()
	t.Run("old_value_is_deleted", testFullDeletesOldValue)
	t.Run("tombstone_is_kept", testFullKeepsTombstone)
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	t.Run("stopped_redis_recovers", testStoppedRedis)
	t.Run("cache_opens_without_redis", testMissingRedis)
	t.Run("silent_redis_costs_at_most_timeout", testSilentRedis)
	t.Run("canceled_context_is_not_a_fault", testCanceledContext)
}

func TestScripts(t *testing.T) {
	t.Parallel()
	t.Run("flushed_script_is_sent_again", testFlushedScript)
	t.Run("unknown_reply_is_internal_error", testUnknownReply)
}

func testFillTTL(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	for random, want := range map[float64]time.Duration{
		0: 9 * time.Minute, 0.5: 10 * time.Minute, 0.75: 10*time.Minute + 30*time.Second,
	} {
		cache, _ := openWith(t, cfg, "v1", time.Now, func() float64 { return random })
		id := catalog.ProductID(random * 100)
		mustFill(t, cache, id, doc(1))
		if got := mini.TTL(fmt.Sprintf("x:p:{%d}", id)); got != want {
			t.Errorf("a document with random %v: got %v, want %v", random, got, want)
		}
	}
	cache, _ := openWith(t, cfg, "v1", time.Now, half)
	mustFill(t, cache, 1001, catalog.Document{Version: 3, Missing: true})
	mustFill(t, cache, 1002, catalog.Document{Version: 0, Missing: true})
	if err := cache.Invalidate(t.Context(), 1003, 1); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]time.Duration{
		"x:p:{1001}": cfg.TTL, "x:p:{1002}": cfg.MissingTTL, "x:p:{1003}": cfg.TombstoneTTL,
	} {
		if got := mini.TTL(key); got != want {
			t.Errorf("%s: got %v, want %v", key, got, want)
		}
	}
}

func testFillSameVersion(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	cache, _ := openWith(t, cfg, "v1", time.Now, half)
	mustFill(t, cache, 1, doc(1))
	mini.FastForward(time.Minute)
	mustFill(t, cache, 1, doc(1))
	if got, want := mini.TTL("x:p:{1}"), cfg.TTL-time.Minute; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func testFillTooSlow(t *testing.T) {
	t.Parallel()
	_, cfg := fakeRedis(t)
	now := time.Now()
	cache, reg := openWith(t, cfg, "v1", func() time.Time { return now }, half)
	limit := cfg.TombstoneTTL / 2
	for age, want := range map[time.Duration]catalog.FillResult{
		limit + time.Nanosecond: catalog.TooSlow, limit: catalog.Filled, 0: catalog.Filled, -time.Second: catalog.Filled,
	} {
		got, err := cache.Fill(t.Context(), catalog.ProductID(1000+age), doc(1), now.Add(-age))
		if err != nil || got != want {
			t.Errorf("a read from %v ago: got %d, %v, want %d", age, got, err, want)
		}
	}
	wantHit(t, cache, catalog.ProductID(1001+limit), false)
	want := `vitrine_rediscache_fills_total{outcome="too_slow"} 1`
	if got := counters(t, reg); !strings.Contains(got, want) {
		t.Errorf("metrics lack %s", want)
	}
}

func testGetDamaged(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	cache, _ := openWith(t, cfg, "v1", time.Now, half)
	for i, garbage := range []string{"", "V", "{\"id\":1}", "Vx99999999999999999999", "Vd9999"} {
		id := catalog.ProductID(i)
		if err := mini.Set(fmt.Sprintf("x:p:{%d}", i), garbage); err != nil {
			t.Fatal(err)
		}
		wantHit(t, cache, id, false)
		mustFill(t, cache, id, doc(1))
		wantHit(t, cache, id, true)
		if err := mini.Set(fmt.Sprintf("x:p:{%d}", i), garbage); err != nil {
			t.Fatal(err)
		}
		if err := cache.Invalidate(t.Context(), id, 5); err != nil {
			t.Fatal(err)
		}
		if got, err := cache.Fill(t.Context(), id, doc(4), time.Now()); got != catalog.Stale || err != nil {
			t.Errorf("%q: after an invalidation: got %d, %v, want Stale", garbage, got, err)
		}
	}
}

// A full Redis refuses SET and accepts DEL, so an older value can be removed.
func testFullDeletesOldValue(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	cache, reg := openWith(t, cfg, "v1", time.Now, half)
	for id := range catalog.ProductID(3) {
		mustFill(t, cache, id, doc(5))
	}
	mini.Server().SetPreHook(func(c *server.Peer, cmd string, _ ...string) bool {
		if cmd == "SET" {
			c.WriteError("OOM command not allowed when used memory > 'maxmemory'.")
		}
		return cmd == "SET"
	})
	if err := cache.Invalidate(t.Context(), 0, 6); err != nil {
		t.Errorf("invalidate: got %v, want no error: the old value is deleted", err)
	}
	wantHit(t, cache, 0, false)
	if err := cache.Invalidate(t.Context(), 1, 5); err != nil {
		t.Errorf("invalidate at the stored version: %v", err)
	}
	wantHit(t, cache, 1, true)
	if _, err := cache.Fill(t.Context(), 2, doc(6), time.Now()); fault.CodeOf(err) != "cache_full" ||
		!fault.Is(err, fault.Unavailable) {
		t.Errorf("fill: got %v, want cache_full", err)
	}
	wantHit(t, cache, 2, false)
	for _, want := range []string{
		`vitrine_rediscache_invalidations_total{outcome="no_memory"} 1`, `vitrine_rediscache_fills_total{outcome="no_memory"} 1`,
	} {
		if !strings.Contains(counters(t, reg), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// A Fill that Redis refuses must not delete a tombstone: it rejects the old documents of slow readers.
func testFullKeepsTombstone(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	cache, _ := openWith(t, cfg, "v1", time.Now, half)
	if err := cache.Invalidate(t.Context(), 1, 6); err != nil {
		t.Fatal(err)
	}
	var full atomic.Bool
	full.Store(true)
	mini.Server().SetPreHook(func(c *server.Peer, cmd string, _ ...string) bool {
		refuse := cmd == "SET" && full.Load()
		if refuse {
			c.WriteError("OOM command not allowed when used memory > 'maxmemory'.")
		}
		return refuse
	})
	if _, err := cache.Fill(t.Context(), 1, doc(6), time.Now()); fault.CodeOf(err) != "cache_full" {
		t.Errorf("fill: got %v, want cache_full", err)
	}
	full.Store(false)
	if got, err := cache.Fill(t.Context(), 1, doc(5), time.Now()); got != catalog.Stale || err != nil {
		t.Errorf("an older fill: got %d, %v, want Stale", got, err)
	}
	full.Store(true)
	if err := cache.Invalidate(t.Context(), 1, 7); err != nil {
		t.Errorf("invalidate: %v", err)
	}
	if mini.Exists("x:p:{1}") {
		t.Error("the invalidation left a value that it could not replace")
	}
}

func testStoppedRedis(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	cache, _ := openWith(t, cfg, "v1", time.Now, half)
	mustFill(t, cache, 1, doc(1))
	mini.Close()
	wantUnavailable(t, cache)
	if err := mini.Restart(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, _, err := cache.Get(t.Context(), 1)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still down: %v", err)
		}
	}
	if err := cache.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
}

func testMissingRedis(t *testing.T) {
	t.Parallel()
	cache, _ := openWith(t, settings([]string{port.Addr(t)}, ""), "v1", time.Now, half)
	wantUnavailable(t, cache)
}

// A Redis that accepts connections and never answers delays calls most, because every read waits for its timeout.
func testSilentRedis(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	cfg := settings([]string{listener.Addr().String()}, "")
	cfg.Timeout, cfg.DialTimeout, cfg.IOTimeout = 100*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	cache, _ := openWith(t, cfg, "v1", time.Now, half)
	for range 3 {
		start := time.Now()
		if _, _, err := cache.Get(t.Context(), 1); !fault.Is(err, fault.Unavailable) {
			t.Fatalf("got %v, want Unavailable", err)
		}
		if elapsed := time.Since(start); elapsed > time.Second {
			t.Errorf("a read lasted %v, want about %v", elapsed, cfg.Timeout)
		}
	}
}

func wantUnavailable(t *testing.T, cache *rediscache.Cache) {
	t.Helper()
	_, hit, getErr := cache.Get(t.Context(), 1)
	_, fillErr := cache.Fill(t.Context(), 1, doc(1), time.Now())
	for what, err := range map[string]error{
		"get": getErr, "fill": fillErr, "invalidate": cache.Invalidate(t.Context(), 1, 2), "ping": cache.Ping(t.Context()),
	} {
		if !fault.Is(err, fault.Unavailable) || fault.CodeOf(err) != "cache_unavailable" {
			t.Errorf("%s: got %v, want Unavailable", what, err)
		}
	}
	if hit {
		t.Error("get: a hit without a Redis")
	}
}

func testCanceledContext(t *testing.T) {
	t.Parallel()
	_, cfg := fakeRedis(t)
	cache, _ := openWith(t, cfg, "v1", time.Now, half)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := cache.Get(ended, 1); !errors.Is(err, context.Canceled) || fault.From(err) != nil {
		t.Errorf("got %v, want the context's own error", err)
	}
}

func testFillOversized(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	for _, tag := range []string{"", strings.Repeat("t", 256)} {
		if _, err := rediscache.New(cfg, tag, time.Now, half, prometheus.NewRegistry(), zap.NewNop()); err == nil {
			t.Errorf("a tag of %d bytes: got no error", len(tag))
		}
	}
	cache, _ := openWith(t, cfg, "v1", time.Now, half)
	long := doc(1)
	long.ETag = strings.Repeat("e", 256)
	for _, wrong := range []catalog.Document{long, {Version: -1}} {
		if _, err := cache.Fill(t.Context(), 1, wrong, time.Now()); !fault.Is(err, fault.Internal) {
			t.Errorf("got %v, want Internal", err)
		}
	}
	if err := cache.Invalidate(t.Context(), 1, -1); !fault.Is(err, fault.Internal) {
		t.Errorf("invalidate: got %v, want Internal", err)
	}
	if got := mini.Keys(); len(got) != 0 {
		t.Errorf("keys were written: %v", got)
	}
}

func testGetMetrics(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	cache, reg := openWith(t, cfg, "v1", time.Now, half)
	mustFill(t, cache, 1, doc(1))
	wantHit(t, cache, 1, true)
	wantHit(t, cache, 2, false)
	if err := cache.Invalidate(t.Context(), 3, 1); err != nil {
		t.Fatal(err)
	}
	wantHit(t, cache, 3, false)
	other := open(t, cfg, "v2")
	mustFill(t, other, 4, doc(1))
	wantHit(t, cache, 4, false)
	if err := mini.Set("x:p:{5}", "garbage"); err != nil {
		t.Fatal(err)
	}
	wantHit(t, cache, 5, false)
	mini.SetError("ERR broken")
	if _, _, err := cache.Get(t.Context(), 6); err == nil {
		t.Error("got no error")
	}
	mini.SetError("")
	all := counters(t, reg)
	for _, outcome := range []string{"hit", "miss", "tombstone", "other_tag", "damaged", "error"} {
		if want := fmt.Sprintf(`vitrine_rediscache_gets_total{outcome=%q} 1`, outcome); !strings.Contains(all, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) != 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

// counters returns one line for each counter with a label.
func counters(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				fmt.Fprintf(&text, "%s{%s=%q} %v\n", family.GetName(), label.GetName(), label.GetValue(),
					metric.GetCounter().GetValue())
			}
		}
	}
	return text.String()
}

func testFlushedScript(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	cache, _ := openWith(t, cfg, "v1", time.Now, half)
	mustFill(t, cache, 1, doc(1))
	client := redis.NewClient(&redis.Options{Addr: mini.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	if err := client.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	mustFill(t, cache, 1, doc(2))
	if err := cache.Invalidate(t.Context(), 1, 3); err != nil {
		t.Fatal(err)
	}
	wantHit(t, cache, 1, false)
}

func testUnknownReply(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	cache, _ := openWith(t, cfg, "v1", time.Now, half)
	mini.Server().SetPreHook(func(c *server.Peer, cmd string, _ ...string) bool {
		if cmd == "EVALSHA" {
			c.WriteInt(9)
		}
		return cmd == "EVALSHA"
	})
	if err := cache.Invalidate(t.Context(), 1, 1); !fault.Is(err, fault.Internal) {
		t.Errorf("got %v, want Internal", err)
	}
}

// go-redis has one logger per process, so this test runs before the parallel ones.
//
//nolint:paralleltest // see above
func TestBridgeLogger(t *testing.T) {
	core, lines := observer.New(zap.InfoLevel)
	rediscache.BridgeLogger(zap.New(core))
	t.Cleanup(func() { rediscache.BridgeLogger(zap.NewNop()) })
	cfg := settings([]string{"127.0.0.1:1"}, "")
	cfg.Password = "hunter2-secret"
	cache, _ := openWith(t, cfg, "v1", time.Now, half)
	if _, _, err := cache.Get(t.Context(), 1); err == nil {
		t.Fatal("port 1 has a listener")
	}
	if lines.Len() == 0 {
		t.Fatal("go-redis logged nothing about a node that does not run")
	}
	for _, line := range lines.All() {
		if line.LoggerName != "go-redis" || line.Level != zap.WarnLevel || strings.Contains(line.Message, "hunter2") {
			t.Errorf("got %v", line)
		}
	}
}
