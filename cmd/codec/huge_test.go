package main_test

import (
	"bytes"
	"testing"

	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// testLimitsPixelsClaimedInHeader makes small files of every format claim more pixels than are allowed, in all places where
// they say a size. The codec has room for 256 MiB, and the least of them would need 600.
func testLimitsPixelsClaimedInHeader(t *testing.T) {
	t.Parallel()
	p, _ := pool(t, func(c *codec.Config) { c.AddressSpace = 256 << 20 })
	for format, all := range seeds(t) {
		for _, s := range all {
			huge := bytes.Clone(s.body)
			for i, side := range claims(s) {
				side.set(huge, hugeSide(format, s.name, i))
			}
			if format == pipeline.PNG {
				summed(huge)
			}
			_, err := p.Render(t.Context(), huge, longDeadlineSpec())
			if failure := media.FailureOf(err); failure == nil || failure.Code != media.TooManyPixels {
				t.Errorf("%s: %v, want too_many_pixels", s.name, err)
			}
		}
	}
	if _, err := p.Render(t.Context(), twoColourJPEG(t, 400, 300), longDeadlineSpec()); err != nil {
		t.Errorf("the next image: %v", err)
	}
}

// claims are the fields of a seed that say how large it is, without those that say where a frame is.
func claims(s seed) []field {
	switch {
	case s.format == pipeline.GIF:
		return []field{s.layout.sides[0], s.layout.sides[1], s.layout.sides[4], s.layout.sides[5]}
	case s.name == "animated.webp":
		return s.layout.sides[:2] // of the canvas
	default:
		return s.layout.sides
	}
}

// hugeSide is what a field is set to: about the most that the format knows and its reader takes.
func hugeSide(format pipeline.Format, name string, i int) uint64 {
	switch {
	case format == pipeline.GIF, format == pipeline.JPEG, format == pipeline.PNG:
		return 65000
	case name == "lossless.webp" && i == 0: // 14 bits of width, 14 of height, less one, over two fields
		return 0xffff
	case name == "lossless.webp":
		return 0x0fffff
	case name == "lossy.webp" || name == "alpha.webp" && i >= 2:
		return 16383
	case format == pipeline.WebP:
		return 16382 // the same, less one
	default:
		return 16384
	}
}
