package codec_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/media"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	t.Run("scores_from_the_child_that_renders", testCompareScores)
	t.Run("lost_child_is_replaced_and_content_is_not_poison", testCompareLost)
	t.Run("deadline_exceeded", testCompareDeadline)
	t.Run("rendering_has_its_cpu_time", testRenderCPU)
}

func testCompareScores(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	pid := r.mustRender(t, "ok")
	files := []media.Comparison{{Body: []byte("abc")}, {Body: []byte("a")}}
	got, err := r.Compare(t.Context(), []byte("ok"), fakeSpec(longDeadline), files)
	if want := []media.Score{{Value: 3, OK: true}, {Value: 1, OK: true}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if again := r.mustRender(t, "ok"); again != pid {
		t.Errorf("child %s was replaced by %s", pid, again)
	}
}

func testCompareLost(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	file := []media.Comparison{{Body: []byte("abc")}}
	flag := t.TempDir() + "/flag"
	for source, want := range map[string]media.Code{
		"exit": media.CodecCrashed, "corrupt": media.Corrupt, "once " + flag: media.CodecCrashed,
	} {
		_, err := r.Compare(t.Context(), []byte(source), fakeSpec(longDeadline), file)
		if f := media.FailureOf(err); f == nil || f.Code != want {
			t.Errorf("%s: got %v, want %s", source, err, want)
		}
	}
	r.mustRender(t, "once "+flag)
	if got := r.metric(t, "vitrine_codec_safe_mode_renders_total", ""); got != 0 {
		t.Errorf("%v renderings in safe mode, want none", got)
	}
}

func testCompareDeadline(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	file := []media.Comparison{{Body: []byte("abc")}}
	_, err := r.Compare(t.Context(), []byte("hang"), fakeSpec(50*time.Millisecond), file)
	if f := media.FailureOf(err); f == nil || f.Code != media.CodecTimeout {
		t.Errorf("got %v, want %s", err, media.CodecTimeout)
	}
}

func testRenderCPU(t *testing.T) {
	t.Parallel()
	r := newFixture(t, nil)
	got, err := r.Render(t.Context(), fmt.Appendf(nil, "burn %s", 200*time.Millisecond), fakeSpec(longDeadline))
	if err != nil || got.CPU < 150*time.Millisecond || got.CPU > time.Minute {
		t.Errorf("the CPU time is %s, %v, want at least that of a loop of 200 ms", got.CPU, err)
	}
}
