package imaging_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/adapter/imaging"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestComplete(t *testing.T) {
	t.Parallel()
	whole := sources(t)
	jpeg, gif, avif := whole[pipeline.JPEG], whole[pipeline.GIF], whole[pipeline.AVIF]
	const onlyThumbnail = "\xff\xd8\xff\xe1\x00\x06\xff\xd8\xff\xd9\xff\xda\x00\x02\x01"
	wide := func(b []byte) []byte { // the last box with a 64-bit length
		at := bytes.Index(b, []byte("mdat")) - 4
		n := uint64(len(b)-at) + 8
		head := []byte{0, 0, 0, 1, 'm', 'd', 'a', 't', 0, 0, 0, 0, 0, 0, byte(n >> 8), byte(n)}
		return slices.Concat(b[:at], head, b[at+8:])
	}
	for name, tc := range map[string]struct {
		format pipeline.Format
		body   []byte
		want   bool
	}{
		"a JPEG with bytes after its end":            {pipeline.JPEG, append(bytes.Clone(jpeg), "a second image"...), true},
		"a JPEG with fill bytes before a marker":     {pipeline.JPEG, slices.Concat(jpeg[:2], []byte{0xff, 0xff}, jpeg[2:]), true},
		"a JPEG whose end is only in its thumbnail":  {pipeline.JPEG, []byte(onlyThumbnail), false},
		"a JPEG whose segment has no length":         {pipeline.JPEG, []byte("\xff\xd8\xff\xe0\x00"), false},
		"a JPEG whose segment is too short for one":  {pipeline.JPEG, []byte("\xff\xd8\xff\xe0\x00\x01\xff\xd9"), false},
		"a GIF padded before its trailer":            {pipeline.GIF, append(bytes.Clone(gif[:len(gif)-1]), 0, 0, 0x3b), true},
		"a GIF with an unknown block":                {pipeline.GIF, append(bytes.Clone(gif[:len(gif)-1]), 0x77, 0x3b), false},
		"an AVIF whose last box goes to the end":     {pipeline.AVIF, append(bytes.Clone(avif), "\x00\x00\x00\x00free!"...), true},
		"an AVIF with a long length":                 {pipeline.AVIF, wide(avif), true},
		"an AVIF with a long length cut":             {pipeline.AVIF, wide(avif)[:len(avif)], false},
		"an AVIF cut in a long length":               {pipeline.AVIF, []byte("\x00\x00\x00\x01mdat\x00\x00"), false},
		"an AVIF whose box is shorter than its head": {pipeline.AVIF, []byte("\x00\x00\x00\x07mdat"), false},
		"an unknown format":                          {pipeline.Format("tiff"), []byte("II*\x00"), false},
	} {
		if got := imaging.Complete(tc.format, tc.body); got != tc.want {
			t.Errorf("%s: complete is %v, want %v", name, got, tc.want)
		}
	}
}

func FuzzContainers(f *testing.F) {
	for _, source := range sources(f) {
		f.Add(source)
		f.Add(source[:len(source)/2])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		format := imaging.Sniff(body)
		if format == "" {
			return
		}
		minLength := 12
		if format == pipeline.JPEG {
			minLength = 4 // start and end markers; the decoder reports missing data
		}
		if imaging.Complete(format, body) && len(body) < minLength {
			t.Errorf("%d bytes are accepted as a complete %s", len(body), format)
		}
		if format == pipeline.WebP {
			if bare, err := imaging.BareWebP(body); err == nil && imaging.Sniff(bare) != pipeline.WebP {
				t.Error("a bare WebP is no WebP")
			}
		}
	})
}

func TestBareWebP(t *testing.T) {
	t.Parallel()
	for name, img := range map[string]struct {
		lossless bool
		alpha    bool
	}{
		"lossy": {false, false}, "lossy with alpha": {false, true}, "lossless": {true, false}, "lossless with alpha": {true, true},
	} {
		pixels := gradient(64, 48)
		if img.alpha {
			pixels = discOnTransparent(64)
		}
		whole := through(t, pixels, func(ref *vips.ImageRef) ([]byte, error) {
			body, _, err := ref.ExportWebp(&vips.WebpExportParams{Quality: 80, Lossless: img.lossless})
			return body, err
		})
		bare, err := imaging.BareWebP(whole)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(bare) >= len(whole) || bytes.Contains(bare, []byte("EXIF")) {
			t.Errorf("%s: %d bytes of %d, want fewer and no Exif", name, len(bare), len(whole))
		}
		if !bytes.Equal(decoded(t, bare).Pix, decoded(t, whole).Pix) {
			t.Errorf("%s: the pixels changed", name)
		}
	}
	for _, broken := range []string{
		"", "RIFF\x04\x00\x00\x00WEBP", "RIFF\x0c\x00\x00\x00WEBPVP8 \xff\x00\x00\x00",
		"RIFF\x14\x00\x00\x00WEBPALPH\x00\x00\x00\x00VP8 \x00\x00\x00\x00",
	} {
		if _, err := imaging.BareWebP([]byte(broken)); err == nil {
			t.Errorf("%q is accepted as WebP", broken)
		}
	}
}
