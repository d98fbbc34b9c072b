package codec_test

import (
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/codec"
)

// clock is a clock that stands until it is moved.
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

const careful = "VIPS_NOVECTOR=1"

func (r rig) suspects(t *testing.T, then string) float64 {
	t.Helper()
	return r.metric(t, "vitrine_codec_suspects_total", then)
}

func TestTheSecondTryOfAKillerHasACarefulChildOfItsOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	killer := "once " + filepath.Join(t.TempDir(), "seen")
	touch(strings.TrimPrefix(killer, "once ")) // it has killed elsewhere: this pool knows nothing of it
	before := r.made(t, "ok")
	got, err := r.RenderAgain(t.Context(), []byte(killer), fakeSpec(long))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got.Placeholder, careful) {
		t.Errorf("the second try is made with %q, want %s", got.Placeholder, careful)
	}
	after := r.made(t, "env")
	if strings.Contains(after, careful) {
		t.Error("the next picture gets the careful child, too")
	}
	eventually(t, "the child that made way is gone", func() bool { return gone(before) })
	if suspect, crashed := r.restarts(t, "suspect"), r.restarts(t, "crashed"); suspect != 2 || crashed != 0 {
		t.Errorf("%v restarts for a suspect and %v for crashes, want 2 and none", suspect, crashed)
	}
	if n := r.suspects(t, "careful"); n != 1 {
		t.Errorf("%v pictures are counted as suspects, want 1", n)
	}
}

func TestWhatHasKilledACodecHereIsKnownWhoeverBringsIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	killer := "once " + filepath.Join(t.TempDir(), "seen")
	r.fails(t, killer, long, catalog.CodecCrashed)
	if got := r.made(t, "env"); strings.Contains(got, careful) {
		t.Error("another picture is a suspect, too")
	}
	if got := r.made(t, killer); !strings.Contains(got, careful) {
		t.Errorf("the same content is tried with %q, want %s", got, careful)
	}
}

func TestWhatHasKilledTwoCodecsGetsNoThird(t *testing.T) {
	t.Parallel()
	for source, deadline := range map[string]time.Duration{"exit": long, "hang": 50 * time.Millisecond, "confused": long} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			c := newClock()
			r := newRig(t, nil, codec.WithClock(c.Now))
			first, second := r.failed(t, source, deadline), r.failed(t, source, deadline)
			if first.Code != second.Code {
				t.Fatalf("killed by %v, then by %v", first, second)
			}
			alive := r.made(t, "ok")
			for range 2 {
				if got := r.failed(t, source, deadline); got.Code != catalog.CodecCrashed || !strings.Contains(got.Detail, "twice") {
					t.Errorf("a third try: %v, want codec_crashed at once", got)
				}
			}
			if same := r.made(t, "ok"); same != alive {
				t.Error("the third try has cost a process")
			}
			if n := r.suspects(t, "refused"); n != 2 {
				t.Errorf("%v pictures are counted as refused, want 2", n)
			}
			// With another specification it is another picture.
			other := r.failed(t, source, deadline+time.Millisecond)
			if other.Code != first.Code || strings.Contains(other.Detail, "twice") {
				t.Errorf("with another specification: %v, want it tried", other)
			}
			c.move(10 * time.Minute)
			if got := r.failed(t, source, deadline); got.Code != first.Code || strings.Contains(got.Detail, "twice") {
				t.Errorf("ten minutes later: %v, want it tried again", got)
			}
		})
	}
}

func TestAPictureThatIsOnlyDamagedIsNoSuspect(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for range 3 {
		r.fails(t, "corrupt", long, catalog.Corrupt)
	}
	if careful, refused := r.suspects(t, "careful"), r.suspects(t, "refused"); careful+refused != 0 {
		t.Errorf("%v suspects and %v refusals, want none", careful, refused)
	}
}

func TestTheMemoryOfKillersIsBounded(t *testing.T) {
	t.Parallel()
	c := newClock()
	k := codec.NewKillers(c.Now)
	for i := range codec.MostKillers {
		k.Remember(strconv.Itoa(i))
		c.move(time.Second)
	}
	k.Remember("0") // its last kill is not the oldest any more
	k.Remember("one too many")
	for source, want := range map[string]int{"0": 2, "1": 0, "2": 1, "one too many": 1} {
		if got := k.Kills(source); got != want {
			t.Errorf("%s has killed %d, want %d", source, got, want)
		}
	}
	c.move(10 * time.Minute)
	if got := k.Kills("0"); got != 0 {
		t.Errorf("after its time %d kills are known", got)
	}
}
