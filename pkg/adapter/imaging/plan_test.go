package imaging_test

import (
	"fmt"
	"image"
	"image/color"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"vitrine.io/pkg/adapter/imaging"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestFit(t *testing.T) {
	t.Parallel()
	t.Run("sizes", testFitSizes)
	t.Run("cover_and_contain_pixels", testFitCoverAndContainPixels)
}

func testFitSizes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		fit                   pipeline.Fit
		width, height         int
		sourceW, sourceH      int
		scaled, frame, remark string
	}{
		{pipeline.Inside, 800, 0, 4000, 3000, "800x600", "800x600", "the height follows from the width"},
		{pipeline.Inside, 800, 300, 4000, 3000, "400x300", "400x300", "the tighter side decides"},
		{pipeline.Inside, 800, 0, 500, 400, "500x400", "500x400", "nothing is enlarged"},
		{pipeline.Inside, 333, 0, 1000, 667, "333x222", "333x222", "sides are rounded"},
		{pipeline.Inside, 10, 0, 5000, 1, "10x1", "10x1", "no side is lost"},
		{pipeline.Cover, 400, 400, 4000, 3000, "533x400", "400x400", "the middle is kept"},
		{pipeline.Cover, 400, 400, 3000, 4000, "400x533", "400x400", "upright too"},
		{pipeline.Cover, 800, 400, 500, 400, "500x400", "500x250", "a frame wider than the source shrinks in its shape"},
		{pipeline.Contain, 400, 400, 4000, 3000, "400x300", "400x400", "the rest is background"},
		{pipeline.Contain, 800, 600, 100, 100, "100x100", "133x100", "a frame larger than the source shrinks around it"},
		{pipeline.Contain, 800, 600, 400, 900, "267x600", "800x600", "a source that fills one side keeps the frame"},
	} {
		r := pipeline.Rendition{Fit: tc.fit, Width: tc.width, Height: tc.height}
		scaled, frame := imaging.Fit(r, tc.sourceW, tc.sourceH)
		if got := fmt.Sprintf("%dx%d", scaled[0], scaled[1]); got != tc.scaled {
			t.Errorf("%s: scaled to %s, want %s", tc.remark, got, tc.scaled)
		}
		if got := fmt.Sprintf("%dx%d", frame[0], frame[1]); got != tc.frame {
			t.Errorf("%s: frame is %s, want %s", tc.remark, got, tc.frame)
		}
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		side := rapid.IntRange(1, 70000)
		width, height := side.Draw(t, "source width"), side.Draw(t, "source height")
		renditions := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) pipeline.Rendition {
			box := rapid.IntRange(1, imaging.MaxSide)
			r := pipeline.Rendition{
				Fit:   rapid.SampledFrom([]pipeline.Fit{pipeline.Inside, pipeline.Cover, pipeline.Contain}).Draw(t, "fit"),
				Width: box.Draw(t, "width"), Height: box.Draw(t, "height"),
			}
			if r.Fit == pipeline.Inside && rapid.Bool().Draw(t, "no height") {
				r.Height = 0
			}
			return r
		}), 1, 8).Draw(t, "renditions")

		for _, r := range renditions {
			checkFit(t, r, width, height)
		}
		before := [2]int{width, height}
		for _, s := range imaging.Plan(renditions, width, height) {
			if s[0] > before[0] || s[1] > before[1] {
				t.Fatalf("%v is scaled from %v", s, before)
			}
			before = s
		}
	})
}

func checkFit(t *rapid.T, r pipeline.Rendition, width, height int) {
	scaled, frame := imaging.Fit(r, width, height)
	if scaled[0] > width || scaled[1] > height || slices.Min(scaled[:]) < 1 || slices.Min(frame[:]) < 1 {
		t.Fatalf("%s %dx%d of %dx%d: scaled to %v, frame %v", r.Fit, r.Width, r.Height, width, height, scaled, frame)
	}
	if frame[0] > r.Width || slices.Max(frame[:]) > imaging.MaxSide || (r.Height > 0 && frame[1] > r.Height) {
		t.Fatalf("frame %v is larger than %dx%d", frame, r.Width, r.Height)
	}
	smaller, larger := scaled, frame
	if r.Fit == pipeline.Cover {
		smaller, larger = frame, scaled
	}
	if smaller[0] > larger[0] || smaller[1] > larger[1] || (r.Fit == pipeline.Inside && smaller != larger) {
		t.Fatalf("%s: scaled to %v in a frame of %v", r.Fit, scaled, frame)
	}
	// The shape is the source's, within the rounding of the shorter side.
	ideal := float64(scaled[0]) * float64(height) / float64(width)
	if slack := 1 + float64(height)/float64(width); math.Abs(ideal-float64(scaled[1])) > slack {
		t.Fatalf("%s %dx%d of %dx%d: scaled to %v, height should be %.1f", r.Fit, r.Width, r.Height, width, height, scaled, ideal)
	}
}

// bands returns an image of three vertical stripes: red, green, blue.
func bands(width, height int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			c := color.NRGBA{A: 255}
			switch x * 3 / width {
			case 0:
				c.R = 220
			case 1:
				c.G = 220
			default:
				c.B = 220
			}
			img.SetNRGBA(x, y, c)
		}
	}
	return img
}

func testFitCoverAndContainPixels(t *testing.T) {
	t.Parallel()
	formats := []pipeline.Output{{Format: pipeline.PNG}, {Format: pipeline.JPEG, Quality: 90}}
	got := render(t, asPNG(t, bands(300, 100)), spec(
		pipeline.Rendition{Name: "cover", Width: 60, Height: 60, Fit: pipeline.Cover, Formats: formats},
		pipeline.Rendition{Name: "grey", Width: 90, Height: 90, Fit: pipeline.Contain, Background: "#808080", Formats: formats},
		pipeline.Rendition{Name: "black", Width: 90, Height: 90, Fit: pipeline.Contain, Background: "#000000", Formats: formats},
	))
	red, green, blue := color.NRGBA{R: 220, A: 255}, color.NRGBA{G: 220, A: 255}, color.NRGBA{B: 220, A: 255}
	grey, black := color.NRGBA{R: 128, G: 128, B: 128, A: 255}, color.NRGBA{A: 255}
	for _, tc := range []struct {
		name string
		x, y int
		want color.NRGBA
	}{
		{"cover", 4, 4, green}, {"cover", 55, 55, green},
		{"grey", 45, 5, grey}, {"grey", 45, 85, grey}, {"grey", 10, 45, red}, {"grey", 45, 45, green}, {"grey", 80, 45, blue},
		{"black", 45, 5, black}, {"black", 45, 45, green},
	} {
		pixels := decoded(t, output(t, got, tc.name, pipeline.PNG).Body)
		if at := pixels.NRGBAAt(tc.x, tc.y); !near(at, tc.want) {
			t.Errorf("%s at %d,%d is %v, want %v", tc.name, tc.x, tc.y, at, tc.want)
		}
	}
}
