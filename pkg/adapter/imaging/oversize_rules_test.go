package imaging_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"vitrine.io/pkg/adapter/imaging"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestDropReasons(t *testing.T) {
	t.Parallel()
	t.Run("table", testDropReasonsTable)
	t.Run("a_widely_supported_file_stays", testDropReasonsAWidelySupportedFileStays)
}

// dropCase is the outputs of a rendition and the expected reasons.
type dropCase struct {
	siblings []imaging.Sibling
	want     []media.Reason
}

func dropCases() map[string]dropCase {
	type sibling = imaging.Sibling
	type (
		row     = []sibling
		reasons = []media.Reason
	)
	const stays, source, other = media.Reason(""), media.LargerThanSource, media.LargerThanSibling
	jpeg := func(bytes int) sibling { return sibling{Format: pipeline.JPEG, Quality: 80, Bytes: bytes} }
	webp := func(bytes int) sibling { return sibling{Format: pipeline.WebP, Quality: 79, Bytes: bytes} }
	avif := func(bytes int) sibling { return sibling{Format: pipeline.AVIF, Quality: 63, Bytes: bytes} }
	png := func(bytes int) sibling { return sibling{Format: pipeline.PNG, Bytes: bytes} }
	with := func(s sibling, change func(*sibling)) sibling { change(&s); return s }
	marked := func(s sibling) sibling { s.Default = true; return s }
	flat := func(s sibling) sibling { s.Flattened = true; return s }
	over := func(s sibling) sibling { s.Oversize = true; return s }
	quality := func(q int, s sibling) sibling { s.Quality = q; return s }
	score := func(score float64, s sibling) sibling { return with(s, func(s *sibling) { s.Score = score }) }
	return map[string]dropCase{
		"the usual order of sizes":       {row{webp(80), jpeg(100), avif(60)}, reasons{stays, stays, stays}},
		"a WebP no smaller than JPEG":    {row{webp(100), jpeg(100)}, reasons{other, stays}},
		"a WebP that is the default":     {row{marked(webp(120)), jpeg(100)}, reasons{stays, stays}},
		"a better WebP":                  {row{quality(86, webp(120)), jpeg(100)}, reasons{stays, stays}},
		"an AVIF no smaller than WebP":   {row{avif(90), webp(80), jpeg(100)}, reasons{other, stays, stays}},
		"an AVIF above a WebP that goes": {row{avif(120), webp(110), jpeg(100)}, reasons{other, other, stays}},
		"an AVIF above a better WebP that goes": {
			row{quality(64, avif(120)), quality(80, webp(110)), quality(81, jpeg(100))}, reasons{other, other, stays},
		},
		"a PNG smaller than all":                   {row{webp(60), jpeg(100), png(50)}, reasons{other, other, stays}},
		"a PNG smaller than the default":           {row{marked(jpeg(100)), png(50)}, reasons{stays, stays}},
		"a PNG larger than all":                    {row{webp(60), jpeg(100), png(500)}, reasons{stays, stays, stays}},
		"a WebP with transparency":                 {row{webp(120), flat(jpeg(100))}, reasons{stays, stays}},
		"scores before qualities":                  {row{score(70, webp(120)), score(71, quality(60, jpeg(100)))}, reasons{other, stays}},
		"a score lower by less than the tolerance": {row{score(70.4, webp(120)), score(70, jpeg(100))}, reasons{other, stays}},
		"a lower score":                            {row{score(72, webp(120)), score(70, quality(99, jpeg(100)))}, reasons{stays, stays}},
		"one score is none":                        {row{score(72, webp(120)), jpeg(100)}, reasons{other, stays}},
		"scores drift apart step by step": {
			row{score(70, avif(120)), score(69.2, webp(110)), score(68.4, jpeg(100))}, reasons{stays, other, stays},
		},
		"a WebP larger than the source": {
			row{over(webp(120)), quality(50, jpeg(90))}, reasons{source, stays},
		},
		"a WebP larger than the source, by which JPEG is larger still": {
			row{over(webp(120)), marked(over(jpeg(300)))}, reasons{stays, stays},
		},
		"a transparent WebP larger than the source": {
			row{over(webp(120)), flat(quality(50, jpeg(90)))}, reasons{stays, stays},
		},
		"a PNG larger than the source":     {row{over(png(500)), jpeg(90)}, reasons{source, stays}},
		"a default larger than the source": {row{marked(over(webp(500))), jpeg(90)}, reasons{stays, stays}},
		"all larger than the source and equal": {
			row{over(png(9)), over(jpeg(9)), over(webp(9))}, reasons{source, stays, source},
		},
		"the only output": {row{over(webp(500))}, reasons{stays}},
	}
}

func testDropReasonsTable(t *testing.T) {
	t.Parallel()
	for what, c := range dropCases() {
		if got := imaging.DropReasons(c.siblings...); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
		}
	}
}

func testDropReasonsAWidelySupportedFileStays(t *testing.T) {
	t.Parallel()
	formats := []pipeline.Format{pipeline.JPEG, pipeline.WebP, pipeline.AVIF, pipeline.PNG}
	widely := []pipeline.Format{pipeline.JPEG, pipeline.PNG}
	rapid.Check(t, func(t *rapid.T) {
		var all []imaging.Sibling
		for _, f := range rapid.Permutation(formats).Draw(t, "formats")[:rapid.IntRange(1, 4).Draw(t, "many")] {
			s := imaging.Sibling{
				Format: f, Quality: rapid.IntRange(1, 100).Draw(t, "quality"), Bytes: rapid.IntRange(1, 8).Draw(t, "bytes"),
				Score:   rapid.SampledFrom([]float64{0, 70, 70.3, 71}).Draw(t, "score"),
				Default: len(all) == 0 && rapid.Bool().Draw(t, "default"),
			}
			s.Oversize = s.Bytes > 4
			all = append(all, s)
		}
		read, before, smallest, left := 0, 0, math.MaxInt, math.MaxInt
		for i, reason := range imaging.DropReasons(all...) {
			s := all[i]
			smallest = min(smallest, s.Bytes)
			if slices.Contains(widely, s.Format) {
				before++
			}
			if reason != "" {
				if s.Default {
					t.Errorf("the default is dropped: %s", reason)
				}
				continue
			}
			left = min(left, s.Bytes)
			if slices.Contains(widely, s.Format) {
				read++
			}
		}
		if left != smallest || before > 0 && read == 0 {
			t.Errorf("of %+v the smallest that is left has %d bytes, and %d are widely supported", all, left, read)
		}
	})
}

func TestTypicalScore(t *testing.T) {
	t.Parallel()
	for f, want := range map[pipeline.Format]float64{pipeline.JPEG: 80, pipeline.WebP: 75.6, pipeline.AVIF: 75.3} {
		last := math.Inf(-1)
		for q := 1; q <= 100; q++ {
			got := imaging.TypicalScore(f, q)
			if got <= last {
				t.Errorf("%s at %d has a typical score of %v, at %d like %v", f, q-1, last, q, got)
			}
			last = got
		}
		if got := imaging.TypicalScore(f, pipeline.DefaultQuality(f)); math.Abs(got-want) > 0.1 {
			t.Errorf("%s by default has a typical score of %v, want %v", f, got, want)
		}
	}
	if got := imaging.TypicalScore(pipeline.PNG, 0); got <= 100 {
		t.Errorf("PNG has a typical score of %v", got)
	}
}

func TestHighestQualityWithin(t *testing.T) {
	t.Parallel()
	curve := func(q int) int { return int(1000 * math.Exp(float64(q)/30)) } // 14391 at 80, 3793 at 40
	for what, row := range map[string]struct {
		size             func(q int) int
		limit, requested int
		keep             bool
		want, lowered    int
		within, tries    int // tries after the requested one
	}{
		"a little too large":                 {curve, 13000, 80, false, 76, 76, 1, 3},
		"much too large":                     {curve, 4000, 80, false, 41, 41, 1, 3},
		"a step function":                    {func(q int) int { return 1000 * (q / 10) }, 6500, 80, false, 69, 69, 6, 3},
		"too large at the floor":             {curve, 3000, 80, false, 40, 40, 0, 1},
		"too large at the floor, kept":       {curve, 3000, 80, true, 80, 0, 0, 1},
		"kept although smaller is possible":  {curve, 13000, 80, true, 76, 76, 1, 3},
		"larger at the floor than requested": {func(q int) int { return 9000 - q }, 3000, 80, false, 80, 0, 0, 1},
		"requested at the floor":             {curve, 3000, 40, false, 40, 0, 0, 0},
		"requested below the floor":          {curve, 1000, 30, false, 30, 0, 0, 0},
		"requested just above the floor":     {curve, 3800, 41, false, 40, 40, 0, 1},
		"at the floor as large as limits":    {curve, 3793, 80, false, 40, 40, 1, 3},
	} {
		tries := -1
		quality, lowered, err := imaging.HighestQualityWithin(row.requested, 40, row.limit, row.keep, func(q int) (int, error) {
			tries++
			if tries > 0 && (q < 40 || q >= row.requested) {
				t.Errorf("%s: quality %d was tried", what, q)
			}
			return row.size(q), nil
		})
		if err != nil || quality > row.want || quality < row.want-row.within || tries > row.tries ||
			(lowered != 0) != (row.lowered != 0) || lowered != 0 && lowered != quality {
			t.Errorf("%s: got quality %d (lowered to %d) and %v after %d tries, want %d after %d", what, quality, lowered, err,
				tries, row.want, row.tries)
		}
	}
	for fails := range 3 {
		bad := errors.New("no")
		tries := -1
		_, _, err := imaging.HighestQualityWithin(80, 40, 13000, false, func(q int) (int, error) {
			if tries++; tries > fails {
				return 0, bad
			}
			return curve(q), nil
		})
		if !errors.Is(err, bad) {
			t.Errorf("try %d: got %v, want the encoder's error", fails+1, err)
		}
	}
}
