package main_test

import (
	"bytes"
	"testing"

	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// testLimitsPixelsClaimedInHeader renders small files of every format with headers that announce more pixels than allowed.
// The codec may allocate 256 MiB; the smallest of these images would need 600 MiB.
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

// claims returns the fields of a seed with a size, without those with the offset of a frame.
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

// hugeSide returns the value of a field: about the maximum that the format and its reader allow.
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
