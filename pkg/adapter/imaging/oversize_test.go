package imaging_test

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// grainy returns an image with noise, which needs many bytes in every format.
func grainy(width, height int) *image.NRGBA {
	img := gradient(width, height)
	noise := rand.New(rand.NewPCG(1, 2))
	for i := range img.Pix {
		if i%4 != 3 {
			img.Pix[i] = uint8(min(max(int(img.Pix[i])+noise.IntN(49)-24, 0), 255))
		}
	}
	return img
}

// lossyJPEG returns a JPEG of the given quality.
func lossyJPEG(t *testing.T, img image.Image, quality int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func lossyWebP(t *testing.T, img image.Image, quality int) []byte {
	t.Helper()
	return through(t, img, func(ref *vips.ImageRef) ([]byte, error) {
		body, _, err := ref.ExportWebp(&vips.WebpExportParams{Quality: quality})
		return body, err
	})
}

// eightColourPNG returns a PNG of eight colours with hard edges, which is smaller as PNG than in lossy formats.
func eightColourPNG(t *testing.T) []byte {
	t.Helper()
	var eight color.Palette
	for i := range 8 {
		eight = append(eight, color.NRGBA{R: uint8(255 * (i & 1)), G: uint8(255 * (i >> 1 & 1)), B: uint8(255 * (i >> 2)), A: 255})
	}
	img := image.NewPaletted(image.Rect(0, 0, 96, 64), eight)
	for i := range img.Pix {
		img.Pix[i] = uint8((i%96/7 + i/96/5) % 8)
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// changes returns the dropped and lowered outputs as text.
func changes(rendered media.Rendered) (all []string) {
	for _, d := range rendered.Dropped {
		all = append(all, d.Name+" "+string(d.Format)+" "+string(d.Reason))
	}
	for _, o := range rendered.Files {
		if o.Lowered > 0 {
			all = append(all, o.Name+" "+string(o.Format)+" lowered")
		}
	}
	return all
}

func wantChanges(t *testing.T, rendered media.Rendered, want ...string) {
	t.Helper()
	if got := changes(rendered); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
		for _, o := range rendered.Files {
			t.Logf("%s as %s: %d bytes, lowered to %d, score %v", o.Name, o.Format, len(o.Body), o.Lowered, o.Score)
		}
	}
}

func TestOversize(t *testing.T) {
	t.Parallel()
	t.Run("lossy_source", testOversizeLossySource)
	t.Run("default_output_is_lowered", testOversizeDefaultOutputIsLowered)
	t.Run("lowest_quality_still_too_large", testOversizeLowestQualityStillTooLarge)
	t.Run("lossless_source_keeps_quality", testOversizeLosslessSourceKeepsQuality)
	t.Run("better_source_format_keeps_quality", testOversizeBetterSourceFormatKeepsQuality)
	t.Run("source_format_is_lowered", testOversizeSourceFormatIsLowered)
	t.Run("only_full_size_is_compared", testOversizeOnlyFullSizeIsCompared)
	t.Run("target_minimum_bounds_quality", testOversizeTargetMinimumBoundsQuality)
	t.Run("larger_than_sibling", testOversizeLargerThanSibling)
}

func testOversizeLossySource(t *testing.T) {
	t.Parallel()
	img := grainy(400, 300)
	source := lossyJPEG(t, img, 60)
	both := []pipeline.Format{pipeline.WebP, pipeline.JPEG}
	rendered := render(t, source,
		spec(inside("small", 200, both...), inside("same", 400, both...), inside("full", 900, both...)))
	wantChanges(t, rendered,
		"same webp larger_than_source", "full webp larger_than_source", "same jpeg lowered", "full jpeg lowered")
	full, same := output(t, rendered, "full", pipeline.JPEG), output(t, rendered, "same", pipeline.JPEG)
	if len(full.Body) > len(source) || full.Lowered < 40 || full.Lowered >= 80 || !full.Default {
		t.Errorf("the source has %d bytes, the output %d at quality %d, default is %v",
			len(source), len(full.Body), full.Lowered, full.Default)
	}
	if len(full.Body) < len(source)*9/10 {
		t.Errorf("the source has %d bytes, the output only %d: the quality is too low", len(source), len(full.Body))
	}
	if &full.Body[0] != &same.Body[0] {
		t.Error("equal outputs do not share a body")
	}
	wantClose(t, "lowered", full.Body, decoded(t, source), 30)
}

func testOversizeDefaultOutputIsLowered(t *testing.T) {
	t.Parallel()
	source := lossyJPEG(t, grainy(400, 300), 60)
	full := inside("full", 400, pipeline.WebP, pipeline.JPEG)
	full.Formats[0].Default = true
	rendered := render(t, source, spec(full))
	wantChanges(t, rendered, "full webp lowered", "full jpeg lowered")
	if o := output(t, rendered, "full", pipeline.WebP); !o.Default || len(o.Body) > len(source) {
		t.Errorf("the source has %d bytes, the output %d, default is %v", len(source), len(o.Body), o.Default)
	}
}

func testOversizeLowestQualityStillTooLarge(t *testing.T) {
	t.Parallel()
	source := lossyWebP(t, grainy(400, 300), 5)
	rendered := render(t, source, spec(inside("full", 400, pipeline.WebP)))
	wantChanges(t, rendered, "full webp lowered")
	if o := rendered.Files[0]; o.Lowered != 39 || len(o.Body) <= len(source) {
		t.Errorf("the source has %d bytes, the output %d at quality %d, want 39", len(source), len(o.Body), o.Lowered)
	}
}

func testOversizeLosslessSourceKeepsQuality(t *testing.T) {
	t.Parallel()
	source := eightColourPNG(t)
	rendered := render(t, source, spec(inside("full", 96, pipeline.WebP, pipeline.JPEG)))
	wantChanges(t, rendered)
	asJPEG, asWebP := output(t, rendered, "full", pipeline.JPEG), output(t, rendered, "full", pipeline.WebP)
	if len(asWebP.Body) <= len(source) || len(asWebP.Body) >= len(asJPEG.Body) {
		t.Errorf("the source has %d bytes, the output %d as WebP and %d as JPEG", len(source), len(asWebP.Body), len(asJPEG.Body))
	}
	rendered = render(t, source, spec(inside("full", 96, pipeline.WebP, pipeline.JPEG, pipeline.PNG)))
	wantChanges(t, rendered, "full webp larger_than_source")
	rendered = render(t, source, spec(
		inside("full", 96, pipeline.WebP, pipeline.PNG), inside("b", 96, pipeline.JPEG, pipeline.PNG),
		inside("c", 97, pipeline.JPEG)))
	wantChanges(t, rendered, "full webp larger_than_source", "b jpeg larger_than_source")
}

func testOversizeBetterSourceFormatKeepsQuality(t *testing.T) {
	t.Parallel()
	source := lossyWebP(t, grainy(400, 300), 20)
	rendered := render(t, source, spec(inside("full", 400, pipeline.JPEG)))
	wantChanges(t, rendered)
	if o := rendered.Files[0]; len(o.Body) <= len(source) {
		t.Errorf("the source has %d bytes, the output %d, want more", len(source), len(o.Body))
	}
	lossless := losslessWebP(t, eightColourPNG(t))
	wantChanges(t, render(t, lossless, spec(inside("full", 96, pipeline.WebP, pipeline.JPEG))))
}

// losslessWebP converts a PNG to a lossless WebP.
func losslessWebP(t *testing.T, source []byte) []byte {
	t.Helper()
	img, err := vips.NewImageFromBuffer(source)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	body, _, err := img.ExportWebp(&vips.WebpExportParams{Lossless: true, ReductionEffort: 4})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func testOversizeSourceFormatIsLowered(t *testing.T) {
	t.Parallel()
	source := lossyWebP(t, grainy(400, 300), 70)
	full := inside("full", 400, pipeline.WebP, pipeline.JPEG, pipeline.AVIF)
	full.Formats[1].Quality = 30 // smaller, but not as good
	rendered := render(t, source, spec(full))
	wantChanges(t, rendered, "full avif larger_than_source", "full webp lowered")
	if o := output(t, rendered, "full", pipeline.WebP); len(o.Body) > len(source) {
		t.Errorf("the source has %d bytes, the output %d as WebP, lowered to %d", len(source), len(o.Body), o.Lowered)
	}
}

func testOversizeOnlyFullSizeIsCompared(t *testing.T) {
	t.Parallel()
	img := grainy(400, 300)
	source := oriented(lossyJPEG(t, turned(img, 6), 50), 6)
	cover := inside("cover", 300, pipeline.JPEG)
	cover.Height, cover.Fit = 300, pipeline.Cover
	contain := inside("contain", 401, pipeline.JPEG)
	contain.Height, contain.Fit = 300, pipeline.Contain
	rendered := render(t, source, spec(inside("less", 399, pipeline.JPEG), cover, contain, inside("full", 400, pipeline.JPEG)))
	wantChanges(t, rendered, "full jpeg lowered")
	for _, o := range rendered.Files {
		if o.Name == "full" {
			wantClose(t, "full", o.Body, img, 20)
		} else if len(o.Body) <= len(source)/2 {
			t.Errorf("%s has %d bytes of %d", o.Name, len(o.Body), len(source))
		}
	}
}

func testOversizeTargetMinimumBoundsQuality(t *testing.T) {
	t.Parallel()
	source := lossyJPEG(t, grainy(400, 300), 50)
	high := aimed("full", 400, 85, pipeline.JPEG)
	free := render(t, source, spec(high)).Files[0]
	high.Formats[0].Target = &pipeline.Target{Ssimulacra2: 85, Min: 75, Max: 95}
	held := render(t, source, spec(high)).Files[0]
	if len(free.Body) > len(source) || free.Score >= 85 || free.Score < 40 {
		t.Errorf("the source has %d bytes, the output %d, and a score of %v", len(source), len(free.Body), free.Score)
	}
	if held.Lowered != 75 || len(held.Body) <= len(source) || held.Score <= free.Score || held.Score >= 85 {
		t.Errorf("the source has %d bytes, the output %d at quality %d, and a score of %v, want quality 75",
			len(source), len(held.Body),
			held.Lowered, held.Score)
	}
}

func testOversizeLargerThanSibling(t *testing.T) {
	t.Parallel()
	source := eightColourPNG(t)
	half := inside("half", 48, pipeline.WebP, pipeline.JPEG, pipeline.PNG)
	rendered := render(t, source, spec(half, inside("full", 96, pipeline.JPEG)))
	wantChanges(t, rendered, "half webp larger_than_sibling", "half jpeg larger_than_sibling")
	rendered = render(t, source, spec(half))
	wantChanges(t, rendered, "half webp larger_than_sibling")
	if !output(t, rendered, "half", pipeline.JPEG).Default {
		t.Error("there is no default output")
	}
	soft := inside("a", 200, pipeline.WebP, pipeline.JPEG)
	soft.Formats[0].Quality, soft.Formats[1].Quality = 79, 30 // smaller, but not as good
	wantChanges(t, render(t, asPNG(t, grainy(400, 300)), spec(soft)))
	soft.Formats[0].Quality = 30 // looks like more than JPEG's 30
	wantChanges(t, render(t, asPNG(t, grainy(400, 300)), spec(soft)))
}
