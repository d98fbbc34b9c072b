package codec_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/foundation/media"
)

// clock is a clock that advances only when move is called.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1e9, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

const safeMode = "VIPS_NOVECTOR=1"

func (r fixture) safeModeRenders(t *testing.T) float64 {
	t.Helper()
	return r.metric(t, "vitrine_codec_safe_mode_renders_total", "")
}

func TestSafeMode(t *testing.T) {
	t.Parallel()
	t.Run("new_child", testSafeModeNewChild)
	t.Run("same_content_of_another_product", testSafeModeSameContentOfAnotherProduct)
	t.Run("entry_expires", testSafeModeEntryExpires)
	t.Run("concurrent_calls_with_same_content", testSafeModeConcurrentCallsWithSameContent)
	t.Run("child_cannot_start", testSafeModeChildCannotStart)
	t.Run("corrupt_image_is_not_recorded", testSafeModeCorruptImageIsNotRecorded)
}

func testSafeModeNewChild(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	poison := "once " + filepath.Join(t.TempDir(), "seen")
	touch(strings.TrimPrefix(poison, "once ")) // as if another pool had lost a codec on it
	before := r.mustRender(t, "ok")
	got, err := r.RenderSafe(t.Context(), []byte(poison), fakeSpec(longDeadline))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got.Placeholder, safeMode) {
		t.Errorf("the retry ran with %q, want %s", got.Placeholder, safeMode)
	}
	after := r.mustRender(t, "env")
	if strings.Contains(after, safeMode) {
		t.Error("the next image was also rendered in safe mode")
	}
	eventually(t, "the replaced child is gone", func() bool { return exited(before) })
	if replaced, crashed := r.restarts(t, "safe_mode"), r.restarts(t, "crashed"); replaced != 2 || crashed != 0 {
		t.Errorf("%v restarts for safe mode and %v for crashes, want 2 and none", replaced, crashed)
	}
	if n := r.safeModeRenders(t); n != 1 {
		t.Errorf("%v renders in safe mode are counted, want 1", n)
	}
}

func testSafeModeSameContentOfAnotherProduct(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	poison := "once " + filepath.Join(t.TempDir(), "seen")
	r.wantFailure(t, poison, longDeadline, media.CodecCrashed)
	if got := r.mustRender(t, "env"); strings.Contains(got, safeMode) {
		t.Error("another image was also rendered in safe mode")
	}
	if got := r.mustRender(t, poison); !strings.Contains(got, safeMode) {
		t.Errorf("the same content was rendered with %q, want %s", got, safeMode)
	}
}

func testSafeModeEntryExpires(t *testing.T) {
	t.Parallel()
	for source, deadline := range map[string]time.Duration{
		"exit": longDeadline, "hang": 50 * time.Millisecond, "confused": longDeadline,
	} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			c := newClock()
			r := newFixture(t, nil, codec.WithClock(c.Now))
			try := func(what string, deadline time.Duration, want float64) {
				_ = r.failure(t, source, deadline)
				if n := r.safeModeRenders(t); n != want {
					t.Errorf("%s: %v renders in safe mode, want %v", what, n, want)
				}
			}
			try("the first try", deadline, 0)
			try("the second", deadline, 1)
			try("the third", deadline, 2)
			try("with another specification", deadline+time.Millisecond, 2)
			c.move(10 * time.Minute)
			try("ten minutes later", deadline, 2)
		})
	}
}

func testSafeModeConcurrentCallsWithSameContent(t *testing.T) {
	t.Parallel()
	r := newFixture(t, func(c *codec.Config) { c.Children = 1 })
	var all sync.WaitGroup
	var lost atomic.Int32
	for range 4 { // concurrent renders, each of another product
		all.Go(func() {
			if _, err := r.Render(t.Context(), []byte("vector"), fakeSpec(longDeadline)); err != nil {
				lost.Add(1)
			}
		})
	}
	all.Wait()
	if got := lost.Load(); got != 1 {
		t.Errorf("%d of four images with one content were lost, want the first", got)
	}
}

func testSafeModeChildCannotStart(t *testing.T) {
	t.Parallel()
	flag := filepath.Join(t.TempDir(), "flag")
	touch(flag)
	r := newFixture(t, nil, codec.WithEnv("FAKE_CODEC_FLAG="+flag))
	pid := r.mustRender(t, "ok")
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.RenderSafe(t.Context(), []byte("ok"), fakeSpec(longDeadline)); err == nil {
			t.Fatal("a codec in safe mode was started")
		}
	}
	if got := r.mustRender(t, "ok"); got != pid || r.safeModeRenders(t) != 0 {
		t.Errorf("another image is rendered by %s, with %v renders in safe mode, want %s and 0", got, r.safeModeRenders(t), pid)
	}
}

func testSafeModeCorruptImageIsNotRecorded(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	for range 3 {
		r.wantFailure(t, "corrupt", longDeadline, media.Corrupt)
	}
	if n := r.safeModeRenders(t); n != 0 {
		t.Errorf("%v renders in safe mode, want none", n)
	}
}

func TestPoisonCache(t *testing.T) {
	t.Parallel()
	t.Run("oldest_entry_is_evicted", func(t *testing.T) {
		t.Parallel()
		c := newClock()
		cache := codec.NewPoisonCache(c.Now)
		for i := range codec.MaxPoison {
			cache.Add(strconv.Itoa(i))
			c.move(time.Second)
		}
		cache.Add("0") // which is the newest entry now
		cache.Add("one too many")
		for source, want := range map[string]bool{"0": true, "1": false, "2": true, "one too many": true} {
			if got := cache.Contains(source); got != want {
				t.Errorf("contains %s: %v, want %v", source, got, want)
			}
		}
	})
	t.Run("entry_expires", func(t *testing.T) {
		t.Parallel()
		c := newClock()
		cache := codec.NewPoisonCache(c.Now)
		cache.Add("0")
		c.move(10*time.Minute - 1)
		if !cache.Contains("0") {
			t.Error("the entry has expired early")
		}
		c.move(1)
		if cache.Contains("0") {
			t.Error("the entry has not expired")
		}
	})
}
