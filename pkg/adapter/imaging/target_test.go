package imaging_test

import (
	"errors"
	"math"
	"testing"

	"vitrine.io/pkg/adapter/imaging"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestSearch(t *testing.T) {
	t.Parallel()
	straight := func(q int) float64 { return 20 + 0.7*float64(q) }
	bent := func(q int) float64 { return 95 - 3000/float64(q+20) }
	steps := func(q int) float64 { return 40 + 10*float64(q/20) }
	typical := func(offset float64) func(int) float64 {
		return func(q int) float64 { return imaging.TypicalJPEG(q) + offset }
	}
	for what, row := range map[string]struct {
		score                  func(q int) float64
		target                 float64
		minQuality, maxQuality int
		offset                 float64
		want, within           int // the quality, and how much more is accepted
		tries                  int // at most
	}{
		"a typical image":           {typical(0), 70, 10, 95, 0, 59, 2, 1},
		"typical, low target":       {typical(0), 40, 10, 95, 0, 14, 1, 1},
		"typical, high target":      {typical(0), 87, 10, 95, 0, 94, 1, 1},
		"an easy image":             {typical(8), 80, 10, 95, 0, 64, 2, 2},
		"a hard image":              {typical(-9), 70, 10, 95, 0, 78, 2, 2},
		"hard, known offset":        {typical(-9), 70, 10, 95, -9, 78, 2, 1},
		"easy, wrong offset":        {typical(6), 70, 10, 95, -9, 46, 2, 2},
		"on a straight line":        {straight, 80, 10, 95, 0, 86, 1, 4},
		"on a straight line, below": {straight, 40, 10, 95, 0, 29, 2, 4},
		"on a curve":                {bent, 70, 10, 95, 0, 100, 1, 5},
		"on a curve, below":         {bent, 60, 10, 95, 0, 66, 2, 5},
		"on a plateau":              {steps, 70, 10, 95, 0, 60, 20, 6},
		"target not reachable":      {straight, 99, 10, 90, 0, 90, 0, 2},
		"any quality reaches it":    {straight, 20, 40, 90, 0, 40, 0, 3},
		"between the same limits":   {straight, 50, 33, 33, 0, 33, 0, 1},
		"offset beyond limits":      {straight, 50, 40, 60, -99, 43, 2, 4},
		"score is never a number":   {func(int) float64 { return math.Inf(-1) }, 70, 10, 95, 0, 95, 0, 6},
	} {
		if row.want > row.maxQuality {
			row.want = row.maxQuality
		}
		tries := 0
		target := pipeline.Target{Ssimulacra2: row.target, Min: row.minQuality, Max: row.maxQuality}
		quality, score, err := imaging.Search(target, row.offset,
			func(q int) (float64, error) {
				tries++
				if q < row.minQuality || q > row.maxQuality {
					t.Errorf("%s: quality %d was tried", what, q)
				}
				return row.score(q), nil
			})
		if err != nil || quality < row.want || quality > row.want+row.within || score != row.score(quality) || tries > row.tries {
			t.Errorf("%s: got quality %d with %.1f and %v after %d tries, want %d after %d", what, quality, score, err, tries,
				row.want, row.tries)
		}
	}
	bad := errors.New("no")
	fails := func(int) (float64, error) { return 0, bad }
	if _, _, err := imaging.Search(pipeline.Target{Ssimulacra2: 70, Min: 1, Max: 9}, 0, fails); !errors.Is(err, bad) {
		t.Errorf("got %v, want the encoder's error", err)
	}
}

// aimed returns a rendition with a target score.
func aimed(name string, width int, score float64, formats ...pipeline.Format) pipeline.Rendition {
	r := inside(name, width, formats...)
	for i := range r.Formats {
		r.Formats[i].Quality, r.Formats[i].Target = 0, &pipeline.Target{Ssimulacra2: score, Min: 10, Max: 95}
	}
	return r
}

func TestTarget(t *testing.T) {
	t.Parallel()
	t.Run("score_is_reached", testTargetScoreIsReached)
	t.Run("transparent_and_tiny_images", testTargetTransparentAndTinyImages)
}

func testTargetScoreIsReached(t *testing.T) {
	t.Parallel()
	source := asPNG(t, gradient(500, 400))
	size := func(rendered media.Rendered, name string, f pipeline.Format) int {
		return len(output(t, rendered, name, f).Body)
	}
	formats := []pipeline.Format{pipeline.JPEG, pipeline.WebP, pipeline.AVIF}
	high := render(t, source, spec(aimed("a", 400, 70, formats...), inside("b", 300, pipeline.JPEG)))
	low := render(t, source, spec(aimed("a", 400, 40, formats...)))
	for _, f := range formats {
		if got := output(t, high, "a", f).Score; got < 70 || got > 80 {
			t.Errorf("%s: the score is %v, want 70 or a little more", f, got)
		}
		if got := output(t, low, "a", f).Score; got < 40 {
			t.Errorf("%s: the score is %v, want 40", f, got)
		}
		if size(low, "a", f) >= size(high, "a", f) {
			t.Errorf("%s: 40 takes %d bytes, 70 takes %d", f, size(low, "a", f), size(high, "a", f))
		}
	}
	if got := output(t, high, "b", pipeline.JPEG).Score; got != 0 {
		t.Errorf("without a target the score is %v, want 0", got)
	}
}

func testTargetTransparentAndTinyImages(t *testing.T) {
	t.Parallel()
	glass := gradient(120, 90)
	for i := 3; i < len(glass.Pix); i += 8 {
		glass.Pix[i] = 90
	}
	rendered := render(t, asPNG(t, glass), spec(aimed("a", 100, 60, pipeline.WebP, pipeline.JPEG)))
	for _, o := range rendered.Files {
		if o.Score < 60 {
			t.Errorf("%s: the score is %v, want 60", o.Format, o.Score)
		}
	}
	rendered = render(t, asPNG(t, gradient(7, 90)), spec(aimed("a", 100, 70, pipeline.JPEG)))
	if o := rendered.Files[0]; o.Score != 0 || o.Width != 7 {
		t.Errorf("got %d pixels across with a score of %v, want 7 and no score", o.Width, o.Score)
	}
}
