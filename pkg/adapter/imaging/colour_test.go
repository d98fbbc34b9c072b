package imaging_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"math"
	"testing"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/foundation/pipeline"
)

// The colour tests render charts of known colours and measure in CIEDE2000 how far each output colour is from the one that
// standards and the arithmetic of profile_test.go define.

const (
	across    = 6
	patchSide = 32
)

// patches are RGB colours, 0 to 1 each, drawn as squares in rows of six.
type patches []vec

// chart returns colours of all kinds: the corners of the cube, pastels, darks, skins, greys.
func chart() patches {
	return patches{
		{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {0, 1, 1}, {1, 0, 1}, {1, 1, 0},
		{0.45, 0.32, 0.27}, {0.76, 0.59, 0.51}, {0.38, 0.48, 0.61}, {0.34, 0.42, 0.26}, {0.52, 0.50, 0.69}, {0.40, 0.74, 0.67},
		{0.85, 0.48, 0.18}, {0.28, 0.36, 0.65}, {0.76, 0.33, 0.38}, {0.37, 0.24, 0.42}, {0.62, 0.74, 0.25}, {0.88, 0.64, 0.18},
		{1, 1, 1}, {0.79, 0.79, 0.79}, {0.63, 0.63, 0.63}, {0.48, 0.48, 0.48}, {0.32, 0.32, 0.32}, {0, 0, 0},
	}
}

// greys returns steps from black to white.
func greys() patches {
	var p patches
	for i := range 12 {
		v := float64(i) / 11
		p = append(p, vec{v, v, v})
	}
	return p
}

func (p patches) size() (width, height int) {
	return across * patchSide, (len(p) + across - 1) / across * patchSide
}

func (p patches) at(x, y int) vec { return p[min(y/patchSide*across+x/patchSide, len(p)-1)] }

func (p patches) through(change func(vec) vec) patches {
	var out patches
	for _, c := range p {
		out = append(out, change(c))
	}
	return out
}

func (p patches) image() *image.NRGBA {
	w, h := p.size()
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := p.at(x, y)
			img.SetNRGBA(x, y, color.NRGBA{R: level(c[0]), G: level(c[1]), B: level(c[2]), A: 255})
		}
	}
	return img
}

func level(v float64) uint8 { return uint8(math.Round(v * 255)) }

// png returns the patches as a PNG of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) samples of that depth, with a
// profile if there is one. Alpha samples are opaque.
func (p patches) png(samples, depth int, profile []byte) []byte {
	w, h := p.size()
	kind := [5]byte{1: 0, 2: 4, 3: 2, 4: 6}[samples]
	var rows bytes.Buffer
	for y := range h {
		rows.WriteByte(0)
		for x := range w {
			c := p.at(x, y)
			for i, v := range []float64{c[0], c[1], c[2], 1}[:samples] {
				if samples == 2 && i == 1 {
					v = 1
				}
				if depth == 16 {
					_ = binary.Write(&rows, binary.BigEndian, uint16(math.Round(v*65535)))
				} else {
					rows.WriteByte(level(v))
				}
			}
		}
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(w)), uint32(h))
	out := pngChunk([]byte("\x89PNG\r\n\x1a\n"), "IHDR", append(head, byte(depth), kind, 0, 0, 0))
	if profile != nil {
		out = pngChunk(out, "iCCP", append([]byte("test\x00\x00"), deflated(profile)...))
	}
	return pngChunk(pngChunk(out, "IDAT", deflated(rows.Bytes())), "IEND", nil)
}

func pngChunk(out []byte, name string, body []byte) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	at := len(out)
	out = append(append(out, name...), body...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[at:]))
}

func deflated(b []byte) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// worst returns the largest distance between the patches of img, which may be a smaller chart, and p, and the patch's index.
func (p patches) worst(img *image.NRGBA) (distance float64, which int) {
	width, _ := p.size()
	side := patchSide * img.Rect.Dx() / width
	for i, want := range p {
		var sum vec
		n := 0.0
		for y := i/across*side + side/3; y < i/across*side+side*2/3; y++ {
			for x := i%across*side + side/3; x < i%across*side+side*2/3; x++ {
				c := img.NRGBAAt(x, y)
				sum, n = vec{sum[0] + float64(c.R), sum[1] + float64(c.G), sum[2] + float64(c.B)}, n+255
			}
		}
		if d := ciede2000(lab(vec{sum[0] / n, sum[1] / n, sum[2] / n}), lab(want)); d > distance {
			distance, which = d, i
		}
	}
	return distance, which
}

// iccWebP returns a lossless WebP with that profile.
func iccWebP(t *testing.T, img image.Image, profile []byte) []byte {
	t.Helper()
	return extendedWebP(bareWebP(t, img, true), img.Bounds(), 0x20, riff("ICCP", profile), nil)
}

// extendedWebP adds chunks before and after the pixels of a bare WebP, with the flags of its header.
func extendedWebP(bare []byte, of image.Rectangle, flags byte, before, behind []byte) []byte {
	w, h := of.Dx()-1, of.Dy()-1
	head := riff("VP8X", []byte{flags, 0, 0, 0, byte(w), byte(w >> 8), 0, byte(h), byte(h >> 8), 0})
	return riff("RIFF", []byte("WEBP"), head, before, bare[12:], behind)
}

// asMedia converts a PNG to AVIF or HEIC and keeps its profile.
func asMedia(t *testing.T, png []byte, format pipeline.Format) []byte {
	t.Helper()
	vipsLock.Lock()
	defer vipsLock.Unlock()
	ref, err := vips.NewImageFromBuffer(png)
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Close()
	var body []byte
	if format == pipeline.AVIF {
		body, _, err = ref.ExportAvif(&vips.AvifExportParams{Quality: 95, Effort: 1, Bitdepth: 8})
	} else {
		body, _, err = ref.ExportHeif(&vips.HeifExportParams{Quality: 95, Effort: 1, Bitdepth: 8})
	}
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestColours(t *testing.T) {
	t.Parallel()
	t.Run("sources", testColoursSources)
	t.Run("cmyk_with_profile", testColoursCmykWithProfile)
	t.Run("rgb_profile_in_cmyk_is_ignored", testColoursRgbProfileInCmykIsIgnored)
	t.Run("cmyk_without_profile", testColoursCmykWithoutProfile)
}

// colourSource is a source and the colours of its outputs.
type colourSource struct {
	source      []byte
	want        patches
	minCopied   float64 // the minimum distance if the profile is ignored, so that the test detects it; 0: not checked
	maxDistance float64 // of a lossless output
}

// colourSources returns sources in all colour spaces with the colours that their outputs must have.
func colourSources(t *testing.T) map[string]colourSource {
	t.Helper()
	p3, adobe, colours := displayP3(), adobeRGB(), chart()
	fromP3 := colours.through(func(c vec) vec { return p3.in(srgb(), c) })
	fromAdobe := colours.through(func(c vec) vec { return adobe.in(srgb(), c) })
	fromDim := greys().through(func(c vec) vec {
		v := srgb().encode(math.Pow(c[0], 1.8))
		return vec{v, v, v}
	})
	palette := image.NewPaletted(colours.image().Rect, nil)
	for i, c := range colours {
		palette.Palette = append(palette.Palette, color.NRGBA{R: level(c[0]), G: level(c[1]), B: level(c[2]), A: 255})
		for y := range patchSide {
			for x := range patchSide {
				palette.SetColorIndex(i%across*patchSide+x, i/across*patchSide+y, uint8(i))
			}
		}
	}
	return map[string]colourSource{
		"png_rgb":                     {colours.png(3, 8, nil), colours, 0, 0.5},
		"png_rgb_16_bit":              {colours.png(3, 16, nil), colours, 0, 0.8},
		"png_rgb_and_alpha_16_bit":    {colours.png(4, 16, nil), colours, 0, 0.8},
		"png_palette":                 {asPNG(t, palette), colours, 0, 0.5},
		"png_display_p3":              {colours.png(3, 8, p3.profile()), fromP3, 3, 1.5},
		"png_display_p3_alpha":        {colours.png(4, 8, p3.profile()), fromP3, 3, 1.5},
		"png_display_p3_16_bit":       {colours.png(3, 16, p3.profile()), fromP3, 3, 1.5},
		"png_adobe_rgb":               {colours.png(3, 8, adobe.profile()), fromAdobe, 4, 1.5},
		"png_adobe_rgb_16_bit":        {colours.png(3, 16, adobe.profile()), fromAdobe, 4, 1.5},
		"png_srgb_by_profile":         {colours.png(3, 8, srgb().profile()), colours, 0, 1},
		"png_grey":                    {greys().png(1, 8, nil), greys(), 0, 0.5},
		"png_grey_16_bit":             {greys().png(1, 16, nil), greys(), 0, 0.8},
		"png_grey_and_alpha":          {greys().png(2, 8, nil), greys(), 0, 0.5},
		"png_grey_and_alpha_16_bit":   {greys().png(2, 16, nil), greys(), 0, 0.8},
		"png_grey_gamma_1_8":          {greys().png(1, 8, greyProfile(power(1.8))), fromDim, 4, 2},
		"png_grey_gamma_1_8_16_bit":   {greys().png(1, 16, greyProfile(power(1.8))), fromDim, 4, 2},
		"png_grey_gamma_1_8_alpha":    {greys().png(2, 8, greyProfile(power(1.8))), fromDim, 4, 2},
		"png_rgb_with_a_grey_profile": {colours.png(3, 8, greyProfile(power(1.8))), colours, 0, 0.5},
		"jpeg_rgb":                    {asJPEG(t, colours.image()), colours, 0, 2},
		"jpeg_grey":                   {asJPEG(t, greyed(greys().image())), greys(), 0, 1},
		"jpeg_grey_gamma_1_8":         {withICC(asJPEG(t, greyed(greys().image())), greyProfile(power(1.8))), fromDim, 4, 2.5},
		"jpeg_display_p3":             {withICC(asJPEG(t, colours.image()), p3.profile()), fromP3, 3, 2.5},
		"jpeg_adobe_rgb":              {withICC(asJPEG(t, colours.image()), adobe.profile()), fromAdobe, 4, 2.5},
		"webp_display_p3":             {iccWebP(t, colours.image(), p3.profile()), fromP3, 3, 1.5},
		"avif_display_p3":             {asMedia(t, colours.png(3, 8, p3.profile()), pipeline.AVIF), fromP3, 3, 3},
		"heic_display_p3":             {asMedia(t, colours.png(3, 8, p3.profile()), pipeline.HEIC), fromP3, 3, 3},
	}
}

func testColoursSources(t *testing.T) {
	t.Parallel()
	for name, tc := range colourSources(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.minCopied > 0 {
				sent := chart()
				if len(tc.want) < len(sent) {
					sent = greys()
				}
				if d, _ := tc.want.worst(sent.image()); d < tc.minCopied {
					t.Fatalf("without the profile the distance is only %.1f: this test would not detect that", d)
				}
			}
			wantColours(t, tc.source, tc.want, tc.maxDistance)
		})
	}
}

// wantColours renders the source at its size and at half of it, and checks the colours of the outputs.
func wantColours(t *testing.T, source []byte, want patches, maxDistance float64) {
	t.Helper()
	const lossy = 4 // the maximum that JPEG, WebP and AVIF add at their default qualities
	width, _ := want.size()
	formats := []pipeline.Format{pipeline.PNG, pipeline.JPEG, pipeline.WebP, pipeline.AVIF}
	got := render(t, source, spec(inside("full", width, formats...), inside("half", width/2, formats...)))
	for _, o := range got.Files {
		limit := maxDistance
		if o.Format != pipeline.PNG {
			limit += lossy
		}
		if d, which := want.worst(decoded(t, o.Body)); d > limit {
			t.Errorf("%s as %s: patch %d is off by %.2f, want %.1f at most", o.Name, o.Format, which, d, limit)
		}
	}
}

// inkChart returns all 16 mixtures of full and no ink: cyan is the highest bit, black the lowest.
func inkChart() [4]*image.Gray {
	var inks [4]*image.Gray
	w, h := make(patches, 16).size()
	for i := range inks {
		inks[i] = image.NewGray(image.Rect(0, 0, w, h))
		for j := range inks[i].Pix {
			mixture := min(j/w/patchSide*across+j%w/patchSide, 15)
			inks[i].Pix[j] = uint8(mixture >> (3 - i) & 1 * 255)
		}
	}
	return inks
}

// testColoursCmykWithProfile uses a profile with colours that differ from those of real inks.
func testColoursCmykWithProfile(t *testing.T) {
	t.Parallel()
	var want patches
	var table [16]vec
	for i := range table {
		c := chart()[(i*5+6)%24]
		want = append(want, vec{0.1 + 0.8*c[0], 0.1 + 0.8*c[1], 0.1 + 0.8*c[2]})
		if i == 0 {
			want[0] = vec{1, 1, 1} // colour management maps the paper to white
		}
		table[i] = lab(want[i])
	}
	source := withICC(cmykJPEG(t, inkChart()), inkProfile(table))
	wantColours(t, source, want, 3)

	// A small output, for which the loader shrinks, of a source that is rotated by Exif.
	width, height := want.size()
	turn := func(source []byte) []byte { return oriented(source, 6) }
	got := render(t, turn(source), spec(inside("small", height/8, pipeline.PNG))).Files[0]
	if got.Width != height/8 || got.Height != width/8 {
		t.Fatalf("a rotated source of %d x %d is rendered as %d x %d", width, height, got.Width, got.Height)
	}
	if d, which := want.worst(turned(decoded(t, got.Body), 6)); d > 3 {
		t.Errorf("small and rotated: patch %d is off by %.2f", which, d)
	}
}

func testColoursRgbProfileInCmykIsIgnored(t *testing.T) {
	t.Parallel()
	plain := cmykJPEG(t, inkChart())
	s := spec(inside("full", across*patchSide, pipeline.PNG))
	want := render(t, plain, s).Files[0].Body
	got := render(t, withICC(plain, adobeRGB().profile()), s).Files[0].Body
	if db := psnr(t, decoded(t, got), decoded(t, want)); db < 35 {
		t.Errorf("with an RGB profile the output is %.0f dB from the one without", db)
	}
}

// testColoursCmykWithoutProfile compares solid inks and their mixtures with those of offset print on coated paper (ISO
// 12647-2, in Lab, with white and black stretched to those of sRGB). Inverted inks, as Adobe's programs store them, would
// be off by 40 and more; the simple conversion of Go is off by up to 35.
func testColoursCmykWithoutProfile(t *testing.T) {
	t.Parallel()
	source := cmykJPEG(t, inkChart())
	got := render(t, source, spec(inside("full", across*patchSide, pipeline.PNG)))
	pixels := decoded(t, got.Files[0].Body)
	for mixture, want := range map[int]vec{
		0b0000: {100, 0, 0}, 0b0001: {10, 0, 0}, 0b1000: {56, -37, -50}, 0b0100: {48, 74, -3}, 0b0010: {91, -5, 93},
		0b0110: {47, 68, 48}, 0b1010: {50, -65, 27}, 0b1100: {24, 22, -46},
	} {
		c := pixels.NRGBAAt(mixture%across*patchSide+16, mixture/across*patchSide+16)
		is := lab(vec{float64(c.R) / 255, float64(c.G) / 255, float64(c.B) / 255})
		if d := ciede2000(is, want); d > 12 {
			t.Errorf("inks %04b are %v, Lab %.0f, off by %.1f from %v", mixture, c, is, d, want)
		}
	}
}

// TestCIEDE2000 compares ciede2000 with rows of its authors' test data.
func TestCIEDE2000(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		a, b vec
		want float64
	}{
		{vec{50, 2.6772, -79.7751}, vec{50, 0, -82.7485}, 2.0425}, {vec{50, -1, 2}, vec{50, 0, 0}, 2.3669},
		{vec{50, 2.49, -0.001}, vec{50, -2.49, 0.0011}, 7.2195}, {vec{50, 2.5, 0}, vec{73, 25, -18}, 27.1492},
		{vec{60.2574, -34.0099, 36.2677}, vec{60.4626, -34.1751, 39.4387}, 1.2644}, {vec{2.0776, 0.0795, -1.135}, vec{0.9033, -0.0636, -0.5514}, 0.9082},
		{vec{90.8027, -2.0831, 1.441}, vec{91.1528, -1.6435, 0.0447}, 1.4441}, {vec{36.4612, 47.858, 18.3852}, vec{36.2715, 50.5065, 21.2231}, 1.4146},
	} {
		if got := ciede2000(row.a, row.b); math.Abs(got-row.want) > 0.0001 {
			t.Errorf("%v to %v is %.4f, want %.4f", row.a, row.b, got, row.want)
		}
	}
}
