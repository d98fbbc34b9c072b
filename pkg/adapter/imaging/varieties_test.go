package imaging_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"image"
	"image/color"
	"image/draw"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/adapter/imaging"
	"vitrine.io/pkg/foundation/pipeline"
)

var update = flag.Bool("update", false, "write testdata/varieties with the installed libvips")

// varietiesDir holds one small file of each variety of the accepted formats. The files are committed, so that mutations of
// them are the same bytes on every machine. The tests of cmd/codec use them, too.
const varietiesDir = "testdata/varieties"

// varieties returns the files by their names.
func varieties(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(varietiesDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, path := range paths {
		if all[filepath.Base(path)], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// scene returns the image of all varieties: waves of several lengths, so that no part is flat.
func scene() *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, 128, 96))
	for y := range 96 {
		for x := range 128 {
			u, v := float64(x), float64(y)
			coarse, fine := math.Sin(u*0.07+v*0.05), math.Sin(u*0.9)*math.Cos(v*0.7)
			img.SetNRGBA(x, y, color.NRGBA{
				R: uint8(128 + 70*coarse + 30*fine), G: uint8(120 + 60*math.Cos(v*0.09-u*0.02) + 30*fine),
				B: uint8(128 + 80*math.Sin(u*0.04-v*0.11) + 20*fine), A: 255,
			})
		}
	}
	return img
}

// veiled returns the scene with an opacity that decreases from left to right.
func veiled() *image.NRGBA {
	img := scene()
	for i := 3; i < len(img.Pix); i += 4 {
		img.Pix[i] = uint8(255 - (i/4%128)*3/2)
	}
	return img
}

func greyed(img image.Image) *image.Gray {
	grey := image.NewGray(img.Bounds())
	draw.Draw(grey, grey.Rect, img, image.Point{}, draw.Src)
	return grey
}

// makeVarieties returns the files, encoded by Go if it supports the variety, or else by libvips.
func makeVarieties(t *testing.T) map[string][]byte {
	t.Helper()
	img, alpha, grey := scene(), veiled(), greyed(scene())
	deep := image.NewNRGBA64(img.Rect)
	draw.Draw(deep, deep.Rect, img, image.Point{}, draw.Src)
	webp := func(img image.Image, lossless bool) []byte { return bareWebP(t, img, lossless) }
	still := webp(img, false)
	return map[string][]byte{
		"baseline.jpg": asJPEG(t, img),
		"progressive.jpg": through(t, img, func(ref *vips.ImageRef) ([]byte, error) {
			body, _, err := ref.ExportJpeg(&vips.JpegExportParams{Quality: 85, Interlace: true, StripMetadata: true})
			return body, err
		}),
		"grey.jpg":  asJPEG(t, grey),
		"cmyk.jpg":  cmykJPEG(t, inked(img)),
		"inks.jpg":  withICC(cmykJPEG(t, inked(img)), thumbProfile()),
		"exif.jpg":  oriented(asJPEG(t, turned(img, 6)), 6),
		"icc.jpg":   withICC(asJPEG(t, img), srgb().profile()),
		"rgb8.png":  asPNG(t, img),
		"rgb16.png": asPNG(t, deep),
		"palette.png": through(t, img, func(ref *vips.ImageRef) ([]byte, error) {
			body, _, err := ref.ExportPng(&vips.PngExportParams{Compression: 9, Palette: true, Quality: 90, Dither: 1, Bitdepth: 8})
			return body, err
		}),
		"interlaced.png": through(t, img, func(ref *vips.ImageRef) ([]byte, error) {
			body, _, err := ref.ExportPng(&vips.PngExportParams{Compression: 9, Interlace: true, StripMetadata: true})
			return body, err
		}),
		"alpha.png":     asPNG(t, alpha),
		"lossy.webp":    still,
		"lossless.webp": webp(img, true),
		"alpha.webp":    webp(alpha, false),
		"animated.webp": animatedWebP(still, still),
		"one.gif":       asGIF(t, img),
		"animated.gif":  asGIF(t, img, img, img),
		"plain.avif":    asAVIF(t, img), "alpha.avif": asAVIF(t, alpha),
		"plain.heic": asHEIC(t, img), "alpha.heic": asHEIC(t, alpha),
	}
}

// bareWebP returns the image as a WebP without metadata.
func bareWebP(t *testing.T, img image.Image, lossless bool) []byte {
	t.Helper()
	whole := through(t, img, func(ref *vips.ImageRef) ([]byte, error) {
		body, _, err := ref.ExportWebp(&vips.WebpExportParams{Quality: 80, Lossless: lossless, StripMetadata: true})
		return body, err
	})
	bare, err := imaging.BareWebP(whole)
	if err != nil {
		t.Fatal(err)
	}
	return bare
}

// TestVarieties checks that the files are valid. Other tests damage them.
func TestVarieties(t *testing.T) {
	t.Parallel()
	if *update {
		if err := os.MkdirAll(varietiesDir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, body := range makeVarieties(t) {
			if err := os.WriteFile(filepath.Join(varietiesDir, name), body, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := varieties(t)
	if len(all) != 22 {
		t.Errorf("there are %d varieties, want 22", len(all))
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		var want image.Image = scene()
		switch {
		case strings.HasPrefix(name, "alpha"):
			want = veiled()
		case name == "grey.jpg":
			want = greyed(scene())
		}
		got := render(t, all[name], spec(inside("full", 128, pipeline.PNG)))
		if animated := strings.HasPrefix(name, "animated"); got.Animated != animated || got.Width != 128 || got.Height != 96 {
			t.Errorf("%s is reported as %d x %d, animated %v", name, got.Width, got.Height, got.Animated)
		}
		minDB := 30.0
		if strings.HasSuffix(name, ".gif") || name == "palette.png" || name == "cmyk.jpg" || name == "inks.jpg" {
			minDB = 15 // few colours, or inks with a small gamut
		}
		wantClose(t, name, got.Files[0].Body, want, minDB)
	}
}

// inked returns the image as amounts of cyan, magenta, yellow and black ink, by the simple conversion.
func inked(img *image.NRGBA) [4]*image.Gray {
	var inks [4]*image.Gray
	for i := range inks {
		inks[i] = image.NewGray(img.Rect)
	}
	for i := 0; i < len(img.Pix); i += 4 {
		r, g, b := int(img.Pix[i]), int(img.Pix[i+1]), int(img.Pix[i+2])
		light := max(r, g, b, 1)
		for j, c := range []int{r, g, b} {
			inks[j].Pix[i/4] = uint8(255 - 255*c/light)
		}
		inks[3].Pix[i/4] = uint8(255 - light)
	}
	return inks
}

// thumbProfile returns the profile of the same conversion.
func thumbProfile() []byte {
	var table [16]vec
	for i := range table {
		light := 1 - float64(i&1)
		table[i] = lab(vec{light * float64(1-i>>3&1), light * float64(1-i>>2&1), light * float64(1-i>>1&1)})
	}
	return inkProfile(table)
}

// cmykJPEG returns a JPEG of four inks as Adobe's programs write it, with inverted amounts. Go does not encode CMYK, but the
// scans are those of four grey images.
func cmykJPEG(t testing.TB, inks [4]*image.Gray) []byte {
	t.Helper()
	w, h := inks[0].Rect.Dx(), inks[0].Rect.Dy()
	out := []byte("\xff\xd8\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00")
	for i, ink := range inks {
		upside := image.NewGray(ink.Rect)
		for j, v := range ink.Pix {
			upside.Pix[j] = 255 - v
		}
		grey := asJPEG(t, upside)
		frame, tables := bytes.Index(grey, []byte{0xff, 0xc0}), bytes.Index(grey, []byte{0xff, 0xc4})
		scan := bytes.Index(grey, []byte{0xff, 0xda})
		if i == 0 {
			out = append(out, grey[2:frame]...) // quantisation
			out = append(out, 0xff, 0xc0, 0, 20, 8, byte(h>>8), byte(h), byte(w>>8), byte(w), 4)
			for id := range byte(4) {
				out = append(out, id+1, 0x11, 0)
			}
			out = append(out, grey[tables:scan]...) // Huffman
		}
		out = append(out, 0xff, 0xda, 0, 8, 1, byte(i+1), 0, 0, 63, 0)
		out = append(out, grey[scan+10:len(grey)-2]...)
	}
	return append(out, 0xff, 0xd9)
}

// withICC puts a profile into a JPEG.
func withICC(source, profile []byte) []byte {
	segment := slices.Concat([]byte("ICC_PROFILE\x00\x01\x01"), profile)
	head := binary.BigEndian.AppendUint16([]byte{0xff, 0xe2}, uint16(len(segment)+2))
	return slices.Concat(source[:2], head, segment, source[2:])
}

// riff returns a chunk of a RIFF file.
func riff(name string, body ...[]byte) []byte {
	whole := slices.Concat(body...)
	out := binary.LittleEndian.AppendUint32([]byte(name), uint32(len(whole)))
	out = append(out, whole...)
	return append(out, make([]byte, len(whole)&1)...)
}

// animatedWebP returns an animation of still WebP files of one size, 100 ms each.
func animatedWebP(frames ...[]byte) []byte {
	const animation = 0x02
	w, h := scene().Rect.Dx()-1, scene().Rect.Dy()-1
	size := []byte{byte(w), byte(w >> 8), 0, byte(h), byte(h >> 8), 0}
	chunks := [][]byte{[]byte("WEBP"), riff("VP8X", []byte{animation, 0, 0, 0}, size), riff("ANIM", make([]byte, 6))}
	for _, f := range frames {
		chunks = append(chunks, riff("ANMF", make([]byte, 6), size, []byte{100, 0, 0, 0}, f[12:]))
	}
	return riff("RIFF", chunks...)
}
