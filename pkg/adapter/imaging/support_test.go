package imaging_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math"
	"os"
	"sync"
	"testing"

	"github.com/davidbyttow/govips/v2/vips"
	"go.uber.org/goleak"
	"golang.org/x/image/draw"

	"vitrine.io/pkg/adapter/imaging"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// TestMain starts libvips as cmd/codec does, and checks at the end that every image is closed.
func TestMain(m *testing.M) {
	_ = os.Setenv("VIPS_BLOCK_UNTRUSTED", "1")
	if err := imaging.Start(imaging.Config{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if n := vips.OpenImageRefs(); n != 0 {
		fmt.Fprintf(os.Stderr, "%d images are still open\n", n)
		code = 1
	}
	imaging.Shutdown()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// vipsLock serialises calls of libvips, as a codec process does: libvips keeps one buffer of error texts per process.
var vipsLock sync.Mutex

func render(t *testing.T, source []byte, spec pipeline.Spec) media.Rendered {
	t.Helper()
	vipsLock.Lock()
	defer vipsLock.Unlock()
	got, err := imaging.Render(source, spec)
	if err != nil {
		t.Fatalf("render: %v", err)
	}
	return got
}

func renderFails(t *testing.T, source []byte, spec pipeline.Spec) *media.Failure {
	t.Helper()
	vipsLock.Lock()
	defer vipsLock.Unlock()
	got, err := imaging.Render(source, spec)
	if err == nil {
		t.Fatalf("render gave %d outputs of a %s, want an error", len(got.Files), got.Format)
	}
	failure := media.FailureOf(err)
	if failure == nil {
		t.Fatalf("error is %T, want a *media.Failure: %v", err, err)
	}
	return failure
}

// spec returns a specification with these renditions and the default pipeline's limits.
func spec(renditions ...pipeline.Rendition) pipeline.Spec {
	s := pipeline.Default().Spec
	s.Renditions = renditions
	return s
}

// inside returns a rendition of that width in these formats, at the default qualities.
func inside(name string, width int, formats ...pipeline.Format) pipeline.Rendition {
	r := pipeline.Rendition{Name: name, Width: width, Fit: pipeline.Inside, Background: "#ffffff"}
	quality := map[pipeline.Format]int{pipeline.JPEG: 80, pipeline.WebP: 79, pipeline.AVIF: 63}
	for _, f := range formats {
		r.Formats = append(r.Formats, pipeline.Output{Format: f, Quality: quality[f]})
	}
	return r
}

func output(t *testing.T, r media.Rendered, name string, format pipeline.Format) media.EncodedFile {
	t.Helper()
	for _, o := range r.Files {
		if o.Name == name && o.Format == format {
			return o
		}
	}
	t.Fatalf("no output %s as %s", name, format)
	return media.EncodedFile{}
}

// corner is the colour of the upper left ninth of every test image; it shows the orientation.
var corner = color.NRGBA{R: 220, G: 30, B: 40, A: 255}

// gradient returns a smooth, colourful image with a red upper left corner.
func gradient(width, height int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			c := color.NRGBA{
				R: uint8(40 + 160*x/width), G: uint8(60 + 150*y/height),
				B: uint8(128 + 90*math.Sin(float64(x)*9/float64(width))*math.Cos(float64(y)*7/float64(height))), A: 255,
			}
			if x < width/3 && y < height/3 {
				c = corner
			}
			img.SetNRGBA(x, y, c)
		}
	}
	return img
}

func asJPEG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asPNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// asGIF returns an animation of these frames.
func asGIF(t testing.TB, frames ...image.Image) []byte {
	t.Helper()
	g := &gif.GIF{}
	for _, f := range frames {
		var levels color.Palette
		for i := range 216 {
			levels = append(levels, color.NRGBA{R: uint8(i / 36 * 51), G: uint8(i / 6 % 6 * 51), B: uint8(i % 6 * 51), A: 255})
		}
		p := image.NewPaletted(f.Bounds(), levels)
		draw.FloydSteinberg.Draw(p, f.Bounds(), f, image.Point{})
		g.Image, g.Delay = append(g.Image, p), append(g.Delay, 10)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// through encodes an image with libvips, for formats that Go does not encode.
func through(t testing.TB, img image.Image, encode func(*vips.ImageRef) ([]byte, error)) []byte {
	t.Helper()
	vipsLock.Lock()
	defer vipsLock.Unlock()
	ref, err := vips.NewImageFromGoImage(img)
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Close()
	if opaque, ok := img.(interface{ Opaque() bool }); ok && opaque.Opaque() {
		if err := ref.ExtractBand(0, 3); err != nil {
			t.Fatal(err)
		}
	}
	body, err := encode(ref)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func asWebP(t testing.TB, img image.Image) []byte {
	t.Helper()
	return through(t, img, func(ref *vips.ImageRef) ([]byte, error) {
		body, _, err := ref.ExportWebp(&vips.WebpExportParams{Quality: 90})
		return body, err
	})
}

func asAVIF(t testing.TB, img image.Image) []byte {
	t.Helper()
	return through(t, img, func(ref *vips.ImageRef) ([]byte, error) {
		body, _, err := ref.ExportAvif(&vips.AvifExportParams{Quality: 85, Effort: 1, Bitdepth: 8})
		return body, err
	})
}

func asHEIC(t testing.TB, img image.Image) []byte {
	t.Helper()
	return through(t, img, func(ref *vips.ImageRef) ([]byte, error) {
		body, _, err := ref.ExportHeif(&vips.HeifExportParams{Quality: 85, Effort: 1, Bitdepth: 8})
		return body, err
	})
}

// oriented puts an Exif segment with that orientation into a JPEG.
func oriented(source []byte, orientation uint16) []byte {
	tiff := []byte("II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00")
	tiff = binary.LittleEndian.AppendUint16(tiff, orientation)
	tiff = append(tiff, 0, 0, 0, 0, 0, 0)
	segment := append([]byte("Exif\x00\x00"), tiff...)
	out := append([]byte{}, source[:2]...)
	out = append(out, 0xff, 0xe1)
	out = binary.BigEndian.AppendUint16(out, uint16(len(segment)+2))
	return append(append(out, segment...), source[2:]...)
}

// turned returns the image as a camera with this orientation stores it.
func turned(img *image.NRGBA, orientation uint16) *image.NRGBA {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	stored := image.Rect(0, 0, w, h)
	if orientation >= 5 {
		stored = image.Rect(0, 0, h, w)
	}
	out := image.NewNRGBA(stored)
	for y := range h {
		for x := range w {
			to := map[uint16]image.Point{
				1: {x, y}, 2: {w - 1 - x, y}, 3: {w - 1 - x, h - 1 - y}, 4: {x, h - 1 - y},
				5: {y, x}, 6: {y, w - 1 - x}, 7: {h - 1 - y, w - 1 - x}, 8: {h - 1 - y, x},
			}[orientation]
			out.SetNRGBA(to.X, to.Y, img.NRGBAAt(x, y))
		}
	}
	return out
}

// decoded returns an output's pixels.
func decoded(t *testing.T, body []byte) *image.NRGBA {
	t.Helper()
	vipsLock.Lock()
	defer vipsLock.Unlock()
	ref, err := vips.NewImageFromBuffer(body)
	if err != nil {
		t.Fatalf("decode output: %v", err)
	}
	defer ref.Close()
	img, err := ref.ToGoImage()
	if err != nil {
		t.Fatalf("decode output: %v", err)
	}
	out := image.NewNRGBA(image.Rect(0, 0, img.Bounds().Dx(), img.Bounds().Dy()))
	draw.Draw(out, out.Rect, img, img.Bounds().Min, draw.Src)
	return out
}

// scaledTo returns the image at that size, scaled without libvips.
func scaledTo(img image.Image, width, height int) *image.NRGBA {
	out := image.NewNRGBA(image.Rect(0, 0, width, height))
	draw.CatmullRom.Scale(out, out.Rect, img, img.Bounds(), draw.Src, nil)
	return out
}

// psnr returns the peak signal-to-noise ratio of two images over red, green and blue in dB: 30 is a fair copy, 40 is
// visually identical, 15 is another image.
func psnr(t *testing.T, a, b *image.NRGBA) float64 {
	t.Helper()
	if a.Rect != b.Rect {
		t.Fatalf("sizes differ: %v and %v", a.Rect, b.Rect)
	}
	var sum float64
	for i := range a.Pix {
		if i%4 != 3 {
			d := float64(a.Pix[i]) - float64(b.Pix[i])
			sum += d * d
		}
	}
	if sum == 0 {
		return 99
	}
	return 10 * math.Log10(255*255*float64(len(a.Pix)/4*3)/sum)
}

func wantClose(t *testing.T, what string, got []byte, want image.Image, minDB float64) {
	t.Helper()
	pixels := decoded(t, got)
	db := psnr(t, pixels, scaledTo(want, pixels.Rect.Dx(), pixels.Rect.Dy()))
	if db < minDB {
		t.Errorf("%s: %.1f dB from the source, want %.0f or more", what, db, minDB)
	}
}
