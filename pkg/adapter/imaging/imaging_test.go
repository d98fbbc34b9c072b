package imaging_test

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"slices"
	"testing"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/adapter/imaging"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestRender(t *testing.T) {
	t.Parallel()
	t.Run("every_format", testRenderEveryFormat)
	t.Run("colour_spaces_become_srgb", testRenderColourSpacesBecomeSrgb)
	t.Run("invalid_profile_is_ignored", testRenderInvalidProfileIsIgnored)
	t.Run("metadata_is_removed", testRenderMetadataIsRemoved)
	t.Run("transparency", testRenderTransparency)
	t.Run("first_frame_of_animation", testRenderFirstFrameOfAnimation)
	t.Run("equal_outputs_share_body", testRenderEqualOutputsShareBody)
	t.Run("jpeg_is_progressive_and_subsampled", testRenderJpegIsProgressiveAndSubsampled)
	t.Run("small_and_long_images", testRenderSmallAndLongImages)
	t.Run("impossible_specification", testRenderImpossibleSpecification)
}

func testRenderEveryFormat(t *testing.T) {
	t.Parallel()
	img := gradient(400, 300)
	sources := map[pipeline.Format][]byte{
		pipeline.JPEG: asJPEG(t, img), pipeline.PNG: asPNG(t, img), pipeline.GIF: asGIF(t, img),
		pipeline.WebP: asWebP(t, img), pipeline.AVIF: asAVIF(t, img), pipeline.HEIC: asHEIC(t, img),
	}
	written := []pipeline.Format{pipeline.JPEG, pipeline.WebP, pipeline.AVIF, pipeline.PNG}
	for format, source := range sources {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			var apart []pipeline.Rendition // one format per rendition, so that none is dropped
			for _, f := range written {
				apart = append(apart, inside("small", 160, f))
			}
			for _, f := range written {
				apart = append(apart, inside("large", 320, f))
			}
			got := render(t, source, spec(apart...))
			if got.Format != format || got.Width != 400 || got.Height != 300 || got.Animated {
				t.Errorf("source is reported as %s %d x %d, animated %v", got.Format, got.Width, got.Height, got.Animated)
			}
			if len(got.Files) != 8 {
				t.Fatalf("got %d outputs, want 8", len(got.Files))
			}
			for i, o := range got.Files {
				name, width, height := "small", 160, 120
				if i >= 4 {
					name, width, height = "large", 320, 240
				}
				if o.Name != name || o.Format != written[i%4] || o.Width != width || o.Height != height {
					t.Errorf("output %d is %s as %s, %d x %d", i, o.Name, o.Format, o.Width, o.Height)
				}
				if want := name == "large" && o.Format == pipeline.JPEG; o.Default != want {
					t.Errorf("output %d: default is %v, want %v", i, o.Default, want)
				}
				wantClose(t, fmt.Sprintf("%s as %s", o.Name, o.Format), o.Body, img, 27)
			}
		})
	}
}

func testOrientationJpegExif(t *testing.T) {
	t.Parallel()
	img := gradient(300, 200)
	for orientation := uint16(1); orientation <= 8; orientation++ {
		t.Run(fmt.Sprint(orientation), func(t *testing.T) {
			t.Parallel()
			source := oriented(asJPEG(t, turned(img, orientation)), orientation)
			got := render(t, source, spec(inside("full", 300, pipeline.JPEG), inside("half", 150, pipeline.WebP)))
			if got.Width != 300 || got.Height != 200 {
				t.Errorf("source is reported as %d x %d, want 300 x 200", got.Width, got.Height)
			}
			full, half := output(t, got, "full", pipeline.JPEG), output(t, got, "half", pipeline.WebP)
			if half.Width != 150 || half.Height != 100 {
				t.Errorf("half is %d x %d, want 150 x 100", half.Width, half.Height)
			}
			wantClose(t, "full", full.Body, img, 30)
			wantClose(t, "half", half.Body, img, 27)
			if bytes.Contains(full.Body, []byte("Exif")) {
				t.Error("the orientation tag is still there: viewers would rotate the image a second time")
			}
		})
	}
}

// recoloured returns the image after change, which converts it to another colour space.
func recoloured(t *testing.T, img image.Image, change func(*vips.ImageRef) error) []byte {
	t.Helper()
	return through(t, img, func(ref *vips.ImageRef) ([]byte, error) {
		if err := change(ref); err != nil {
			return nil, err
		}
		if ref.Interpretation() == vips.InterpretationRGB16 || ref.Interpretation() == vips.InterpretationGrey16 {
			body, _, err := ref.ExportPng(&vips.PngExportParams{Compression: 1})
			return body, err
		}
		body, _, err := ref.ExportJpeg(&vips.JpegExportParams{Quality: 98, SubsampleMode: vips.VipsForeignSubsampleOff})
		return body, err
	})
}

func testRenderColourSpacesBecomeSrgb(t *testing.T) {
	t.Parallel()
	img := gradient(200, 150)
	grey := image.NewGray(img.Rect)
	draw.Draw(grey, grey.Rect, img, image.Point{}, draw.Src)
	toSpace := func(space vips.Interpretation) func(*vips.ImageRef) error {
		return func(ref *vips.ImageRef) error { return ref.ToColorSpace(space) }
	}
	toProfile := func(profile string) func(*vips.ImageRef) error {
		return func(ref *vips.ImageRef) error { return ref.TransformICCProfileWithFallback(profile, "srgb") }
	}
	sources := map[string]struct {
		body  []byte
		want  image.Image
		minDB float64 // PSNR in dB; colours outside of a gamut are lost
	}{
		"grey":                 {asJPEG(t, grey), grey, 35},
		"grey_16_bit":          {recoloured(t, grey, toSpace(vips.InterpretationGrey16)), grey, 35},
		"rgb_16_bit":           {recoloured(t, img, toSpace(vips.InterpretationRGB16)), img, 30},
		"display_p3":           {recoloured(t, img, toProfile("p3")), img, 30},
		"cmyk_without_profile": {recoloured(t, img, toSpace(vips.InterpretationCMYK)), img, 24},
		"cmyk_with_profile":    {recoloured(t, img, toProfile("cmyk")), img, 24},
	}
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := render(t, source.body, spec(inside("full", 200, pipeline.JPEG, pipeline.WebP, pipeline.PNG)))
			for _, o := range got.Files {
				wantClose(t, string(o.Format), o.Body, source.want, source.minDB)
			}
		})
	}
}

func testRenderInvalidProfileIsIgnored(t *testing.T) {
	t.Parallel()
	img := gradient(120, 90)
	segment := append([]byte("ICC_PROFILE\x00\x01\x01"), bytes.Repeat([]byte("nonsense"), 32)...)
	plain := asJPEG(t, img)
	source := slices.Concat(plain[:2], []byte{0xff, 0xe2, byte((len(segment) + 2) >> 8), byte(len(segment) + 2)}, segment,
		plain[2:])
	got := render(t, source, spec(inside("full", 120, pipeline.JPEG)))
	wantClose(t, "full", got.Files[0].Body, img, 30)
}

func testRenderMetadataIsRemoved(t *testing.T) {
	t.Parallel()
	img := gradient(100, 100)
	source := recoloured(t, img, func(ref *vips.ImageRef) error {
		ref.SetString("exif-ifd0-Copyright", "Jane Doe, 52.5N 13.4E")
		return ref.TransformICCProfileWithFallback("p3", "srgb")
	})
	if !bytes.Contains(source, []byte("ICC_PROFILE")) || !bytes.Contains(source, []byte("Jane Doe")) {
		t.Fatal("the source has no metadata")
	}
	got := render(t, source, spec(inside("full", 80, pipeline.JPEG, pipeline.WebP, pipeline.AVIF, pipeline.PNG)))
	for _, o := range got.Files {
		for _, trace := range []string{"ICC_PROFILE", "ICCP", "iCCP", "Exif", "eXIf", "EXIF", "VP8X", "Jane", "prof"} {
			if bytes.Contains(o.Body, []byte(trace)) {
				t.Errorf("%s contains %q", o.Format, trace)
			}
		}
	}
}

// discOnTransparent returns a red disc on a transparent background.
func discOnTransparent(side int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, side, side))
	for y := range side {
		for x := range side {
			if dx, dy := x-side/2, y-side/2; dx*dx+dy*dy < side*side/9 {
				img.SetNRGBA(x, y, color.NRGBA{R: 200, A: 255})
			}
		}
	}
	return img
}

func near(a, b color.NRGBA) bool {
	alike := func(x, y uint8) bool { return max(x, y)-min(x, y) <= 12 }
	return alike(a.R, b.R) && alike(a.G, b.G) && alike(a.B, b.B) && alike(a.A, b.A)
}

func testRenderTransparency(t *testing.T) {
	t.Parallel()
	source := asPNG(t, discOnTransparent(200))
	blue := inside("blue", 100, pipeline.JPEG, pipeline.WebP, pipeline.PNG, pipeline.AVIF)
	blue.Background = "#1020c0"
	got := render(t, source, spec(blue, inside("white", 100, pipeline.JPEG)))

	for format, want := range map[pipeline.Format]color.NRGBA{
		pipeline.JPEG: {R: 0x10, G: 0x20, B: 0xc0, A: 255}, pipeline.WebP: {}, pipeline.PNG: {}, pipeline.AVIF: {},
	} {
		pixels := decoded(t, output(t, got, "blue", format).Body)
		at := pixels.NRGBAAt(3, 3)
		if at.A == 0 {
			at = color.NRGBA{} // the colour of a transparent pixel does not matter
		}
		if !near(at, want) {
			t.Errorf("%s: the empty corner is %v, want %v", format, at, want)
		}
		if centre := pixels.NRGBAAt(50, 50); !near(centre, color.NRGBA{R: 200, A: 255}) {
			t.Errorf("%s: the centre is %v, want red", format, centre)
		}
	}
	white := decoded(t, output(t, got, "white", pipeline.JPEG).Body)
	if at := white.NRGBAAt(3, 3); !near(at, color.NRGBA{R: 255, G: 255, B: 255, A: 255}) {
		t.Errorf("white: the empty corner is %v, want white: two backgrounds must not share a body", at)
	}
}

func testRenderFirstFrameOfAnimation(t *testing.T) {
	t.Parallel()
	first, second := gradient(120, 80), image.NewNRGBA(image.Rect(0, 0, 120, 80))
	got := render(t, asGIF(t, first, second, second), spec(inside("full", 120, pipeline.JPEG)))
	if !got.Animated || got.Height != 80 || got.Files[0].Height != 80 {
		t.Errorf("animated %v, %d high, output %d high; want one frame of 80", got.Animated, got.Height, got.Files[0].Height)
	}
	wantClose(t, "full", got.Files[0].Body, first, 22) // dithered to 216 colours

	still := varieties(t)["lossy.webp"]
	upsideDown := bareWebP(t, turned(scene(), 3), false)
	got = render(t, animatedWebP(still, upsideDown, upsideDown), spec(inside("full", 128, pipeline.JPEG)))
	if !got.Animated || got.Height != 96 || got.Files[0].Height != 96 {
		t.Errorf("animated %v, %d high, output %d high; want one frame of 96", got.Animated, got.Height, got.Files[0].Height)
	}
	wantClose(t, "full", got.Files[0].Body, scene(), 25)
}

func testRenderEqualOutputsShareBody(t *testing.T) {
	t.Parallel()
	source := asJPEG(t, gradient(200, 100))
	finer := inside("finer", 900, pipeline.JPEG)
	finer.Formats[0].Quality = 95
	got := render(t, source, spec(inside("full", 1600, pipeline.JPEG), inside("card", 800, pipeline.JPEG), finer))
	full, card, fine := got.Files[0], got.Files[1], got.Files[2]
	if full.Width != 200 || card.Width != 200 || fine.Width != 200 {
		t.Fatalf("widths %d, %d, %d: want the source's 200", full.Width, card.Width, fine.Width)
	}
	if &full.Body[0] != &card.Body[0] {
		t.Error("equal outputs do not share a body")
	}
	if &full.Body[0] == &fine.Body[0] {
		t.Error("another quality shares the body")
	}
	if !full.Default || card.Default || fine.Default {
		t.Error("want only the widest JPEG as the default")
	}
}

func testRenderJpegIsProgressiveAndSubsampled(t *testing.T) {
	t.Parallel()
	best := inside("best", 64, pipeline.JPEG)
	best.Formats[0].Quality = 95 // above 90 libvips does not subsample by default
	body := render(t, asPNG(t, gradient(64, 64)), spec(best)).Files[0].Body
	at := bytes.Index(body, []byte{0xff, 0xc2}) // SOF2: progressive
	if at < 0 {
		t.Fatal("no progressive frame")
	}
	// marker, length, precision, height, width, three components; then id, sampling factors of the first
	if sampling := body[at+11]; sampling != 0x22 {
		t.Errorf("luma is sampled %#x, want 0x22 (4:2:0)", sampling)
	}
}

func testRenderSmallAndLongImages(t *testing.T) {
	t.Parallel()
	formats := []pipeline.Format{pipeline.JPEG, pipeline.WebP, pipeline.AVIF, pipeline.PNG}
	for _, side := range []image.Point{{1, 1}, {2, 3}, {15, 9}, {1, 400}, {400, 1}} {
		got := render(t, asPNG(t, gradient(side.X, side.Y)), spec(inside("full", 1600, formats...)))
		for _, o := range got.Files {
			if o.Width != side.X || o.Height != side.Y {
				t.Errorf("%v as %s is %d x %d", side, o.Format, o.Width, o.Height)
			}
		}
	}
	strip := image.NewGray(image.Rect(0, 0, 20, 20000))
	got := render(t, asPNG(t, strip), spec(inside("full", 1600, pipeline.WebP)))
	if o := got.Files[0]; o.Width != 16 || o.Height != imaging.MaxSide {
		t.Errorf("an image of 20 x 20000 is rendered as %d x %d, want 16 x %d", o.Width, o.Height, imaging.MaxSide)
	}
}

func testRenderImpossibleSpecification(t *testing.T) {
	t.Parallel()
	source := asJPEG(t, gradient(30, 30))
	red := inside("full", 30, pipeline.JPEG)
	red.Background = "red"
	for name, s := range map[string]pipeline.Spec{
		"no renditions": spec(), "an input format": spec(inside("full", 30, pipeline.GIF)),
		"a colour by name": spec(red),
	} {
		if got := renderFails(t, source, s); got.Code != media.PipelineImpossible || got.Detail == "" {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
