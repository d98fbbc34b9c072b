package rediscache_test

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/foundation/fault"
)

// A node that accepts commands and does not answer is read again only after a pause. Invalidations are still sent.
func TestSilentNode(t *testing.T) {
	t.Parallel()
	mini, cfg := fakeRedis(t)
	cfg.Timeout, cfg.IOTimeout, cfg.DownPause = 500*time.Millisecond, 100*time.Millisecond, time.Hour
	moment := newMoment()
	cache, reg := openWith(t, cfg, "v1", moment.now, rand.Float64)
	mustFill(t, cache, 1, doc(1))

	var silent atomic.Bool
	var sent, invalidations atomic.Int64
	mini.Server().SetPreHook(func(_ *server.Peer, cmd string, _ ...string) bool {
		if !silent.Load() {
			return false
		}
		switch cmd {
		case "GET":
			sent.Add(1)
		case "EVALSHA":
			invalidations.Add(1)
		default:
			return false
		}
		return true // the command gets no answer
	})
	silent.Store(true)
	for range 2 {
		if _, _, err := cache.Get(t.Context(), 1); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a read without an answer: got %v, want Unavailable", err)
		}
	}
	before := sent.Load()
	for range 100 {
		if _, _, err := cache.Get(t.Context(), 1); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a read during the pause: got %v, want Unavailable", err)
		}
	}
	if _, err := cache.Fill(t.Context(), 1, doc(1), moment.now()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a fill during the pause: got %v, want Unavailable", err)
	}
	if got := sent.Load() - before; got != 0 || invalidations.Load() != 0 {
		t.Errorf("the silent node got %d reads and %d scripts during the pause, want none", got, invalidations.Load())
	}
	_ = cache.Invalidate(t.Context(), 1, 2)
	if invalidations.Load() == 0 {
		t.Error("the invalidation was not sent")
	}
	silent.Store(false)
	moment.add(time.Hour)
	wantHit(t, cache, 1, true)
	wantHit(t, cache, 2, false)
	for name, want := range map[string]float64{
		"vitrine_rediscache_skipped_gets_total": 100, "vitrine_rediscache_nodes_down_total": 1,
	} {
		if got := counterValue(t, reg, name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// counterValue returns the value of a counter without labels.
func counterValue(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// moment is a clock that a test moves.
type moment struct{ nanos atomic.Int64 }

func newMoment() *moment {
	m := new(moment)
	m.nanos.Store(time.Now().UnixNano())
	return m
}

func (m *moment) now() time.Time { return time.Unix(0, m.nanos.Load()) }

func (m *moment) add(d time.Duration) { m.nanos.Add(int64(d)) }
