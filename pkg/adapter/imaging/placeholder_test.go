package imaging_test

import (
	"encoding/base64"
	"image"
	"testing"

	"golang.org/x/image/draw"

	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/thumbhash"
)

func TestPlaceholder(t *testing.T) {
	t.Parallel()
	hash := func(img image.Image, source []byte) []byte {
		t.Helper()
		rendered := render(t, source, spec(inside("a", 320, pipeline.JPEG), inside("b", 40, pipeline.JPEG)))
		got, err := base64.StdEncoding.DecodeString(rendered.Placeholder)
		if err != nil || len(got) < 5 {
			t.Fatalf("%v: got %x and %v, want a hash", img.Bounds(), got, err)
		}
		return got
	}
	const landscape, alpha = 0x80, 0x80 // of the fifth and the third byte
	wide, tall := gradient(300, 200), gradient(20, 90)
	got := hash(wide, asJPEG(t, wide))
	if got[4]&landscape == 0 || got[2]&alpha != 0 {
		t.Errorf("a wide opaque image: hash is %x", got)
	}
	small := thumbhash.Image{Width: 40, Height: 27}
	shrunk := image.NewNRGBA(image.Rect(0, 0, small.Width, small.Height))
	draw.CatmullRom.Scale(shrunk, shrunk.Bounds(), wide, wide.Bounds(), draw.Src, nil)
	small.RGBA = shrunk.Pix
	want, err := thumbhash.Hash(small)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) || got[3] != want[3] || got[4] != want[4] {
		t.Errorf("got %x, want about %x", got, want)
	}
	for i, at := range []uint{0, 6, 12} { // the mean of each plane
		mean := func(b []byte) int { return int(uint32(b[0])|uint32(b[1])<<8|uint32(b[2])<<16) >> at & 63 }
		if apart := mean(got) - mean(want); apart < -2 || apart > 2 {
			t.Errorf("plane %d: the mean is %d, want about %d", i, mean(got), mean(want))
		}
	}
	if got := hash(tall, asPNG(t, tall)); got[4]&landscape != 0 {
		t.Errorf("a tall image: hash is %x", got)
	}
	glass := gradient(64, 64)
	for i := 3; i < len(glass.Pix); i += 8 {
		glass.Pix[i] = 90
	}
	if got := hash(glass, asPNG(t, glass)); got[2]&alpha == 0 {
		t.Errorf("a transparent image: hash is %x", got)
	}
}
