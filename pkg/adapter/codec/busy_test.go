package codec_test

import (
	"math"
	"path/filepath"
	"testing"
	"time"

	"vitrine.io/pkg/adapter/codec"
)

func TestBusyTime(t *testing.T) {
	t.Parallel()
	t.Run("share_of_slot_time", testBusyTimeShareOfSlotTime)
	t.Run("frequent_reader", testBusyTimeFrequentReader)
	t.Run("pool_metrics", testBusyTimePoolMetrics)
}

func testBusyTimeShareOfSlotTime(t *testing.T) {
	t.Parallel()
	c := newClock()
	b := codec.NewBusyTime(4, c.Now)
	want := func(when string, total, utilization float64) {
		t.Helper()
		gotTotal, got := b.Total(), b.Utilization()
		if math.Abs(gotTotal-total) > 1e-9 || math.Abs(got-utilization) > 1e-9 {
			t.Errorf("%s: %v seconds and a utilization of %v, want %v and %v", when, gotTotal, got, total, utilization)
		}
	}
	want("at the start", 0, 0)
	b.Add(2)
	want("at the same time", 0, 0.5)
	c.move(10 * time.Second)
	want("two of four", 20, 0.5)
	b.Add(-1)
	c.move(10 * time.Second)
	want("then one of four", 30, 0.375)
	b.Add(-1)
	c.move(5 * time.Second)
	want("since the first reading, the last one older than minSpan", 30, 0.3)
	c.move(25 * time.Second)
	want("since the previous reading, idle", 30, 0)
	b.Add(1)
	c.move(-time.Hour)
	want("after the clock went back", 30, 0)
}

func testBusyTimeFrequentReader(t *testing.T) {
	t.Parallel()
	c := newClock()
	b := codec.NewBusyTime(1, c.Now)
	for range 60 { // busy every other second, read each time
		b.Add(1)
		c.move(time.Second)
		b.Add(-1)
		_ = b.Utilization()
		c.move(time.Second)
	}
	if got := b.Utilization(); math.Abs(got-0.5) > 0.05 {
		t.Errorf("got %v, want about 0.5", got)
	}
}

func testBusyTimePoolMetrics(t *testing.T) {
	t.Parallel()
	c := newClock()
	r := newFixture(t, func(c *codec.Config) { c.Children = 2 }, codec.WithClock(c.Now))
	dir := t.TempDir()
	started, release := filepath.Join(dir, "started"), filepath.Join(dir, "release")
	done := make(chan error, 1)
	go func() {
		_, err := r.Render(t.Context(), []byte("wait "+started+" "+release), fakeSpec(longDeadline))
		done <- err
	}()
	eventually(t, "the child has received the image", func() bool { return exists(started) })
	c.move(20 * time.Second)
	busy, share := r.metric(t, "vitrine_codec_busy_seconds_total", ""), r.metric(t, "vitrine_codec_utilization_ratio", "")
	if busy != 20 || share != 0.5 {
		t.Errorf("one of two is busy for 20 s: %v seconds, a utilization of %v; want 20 and 0.5", busy, share)
	}
	touch(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.move(time.Minute)
	if busy := r.metric(t, "vitrine_codec_busy_seconds_total", ""); busy != 20 {
		t.Errorf("%v busy seconds after an idle minute, want 20", busy)
	}
}
