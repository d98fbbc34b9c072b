package imaging_test

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"hash/crc32"
	"image"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/adapter/imaging"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestRefused(t *testing.T) {
	t.Parallel()
	t.Run("unsupported_formats", testRefusedUnsupportedFormats)
	t.Run("blocked_by_libvips", testRefusedBlockedByLibvips)
	t.Run("too_many_pixels", testRefusedTooManyPixels)
	t.Run("detail_hides_libvips_text", testRefusedDetailHidesLibvipsText)
	t.Run("impossible_sizes", testRefusedImpossibleSizes)
}

func testRefusedUnsupportedFormats(t *testing.T) {
	t.Parallel()
	all := spec(inside("full", 100, pipeline.JPEG))
	noGIF := all
	noGIF.Accept = []pipeline.Format{pipeline.JPEG}
	for name, tc := range map[string]struct {
		source string
		spec   pipeline.Spec
	}{
		"nothing":                           {"", all},
		"a web page":                        {"<!doctype html><title>404</title>", all},
		"an SVG":                            {`<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>`, all},
		"a PDF":                             {"%PDF-1.4\n", all},
		"a BMP":                             {"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00", all},
		"a TIFF":                            {"II*\x00\x08\x00\x00\x00", all},
		"a PPM":                             {"P6 1 1 255 abc", all},
		"a JPEG XL":                         {"\xff\x0a\xfa\x1f", all},
		"a JPEG XL in boxes":                {"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a\x00\x00\x00\x14ftypjxl \x00\x00\x00\x00jxl ", all},
		"a JPEG 2000":                       {"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a\x00\x00\x00\x14ftypjp2 \x00\x00\x00\x00jp2 ", all},
		"a bare JPEG 2000":                  {"\xff\x4f\xff\x51\x00\x2f\x00\x00", all},
		"an icon":                           {"\x00\x00\x01\x00\x01\x00\x10\x10\x00\x00\x01\x00\x20\x00", all},
		"a Photoshop file":                  {"8BPS\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03", all},
		"an OpenEXR":                        {"\x76\x2f\x31\x01\x02\x00\x00\x00", all},
		"a big-endian TIFF":                 {"MM\x00*\x00\x00\x00\x08", all},
		"a raw photograph":                  {"II*\x00\x10\x00\x00\x00CR\x02\x00", all},
		"a zip":                             {"PK\x03\x04\x14\x00\x00\x00\x08\x00", all},
		"gzip":                              {"\x1f\x8b\x08\x00\x00\x00\x00\x00", all},
		"XML with an SVG in it":             {"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\"/>", all},
		"a PostScript":                      {"%!PS-Adobe-3.0 EPSF-3.0\n", all},
		"ImageMagick's own":                 {"id=ImageMagick version=1.0\n", all},
		"libvips' own":                      {"\x08\xf2\xa6\xb6\x00\x00\x00\x01", all},
		"a JPEG behind a space":             {" \xff\xd8\xff\xe0\x00\x10JFIF", all},
		"another RIFF":                      {"RIFF\x04\x00\x00\x00WAVE", all},
		"a film":                            {"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp42", all},
		"HEIF without a codec":              {"\x00\x00\x00\x14ftypmif1\x00\x00\x00\x00mif1", all},
		"a GIF where only JPEG is accepted": {"GIF89a\x01\x00\x01\x00\x00\x00\x00;", noGIF},
	} {
		if got := renderFails(t, []byte(tc.source), tc.spec); got.Code != media.UnsupportedFormat {
			t.Errorf("%s: code is %s, want unsupported_format", name, got.Code)
		}
	}
}

// testRefusedBlockedByLibvips checks that libvips does not read other formats, even if the table of formats did not
// exclude them. PDF is not included, because libvips 8.14 opens a document before it checks whether that is allowed; only
// the table excludes it.
func testRefusedBlockedByLibvips(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]string{
		"an SVG": `<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>`, "a PPM": "P6 1 1 255 abc",
		"a JPEG XL": "\xff\x0a\xfa\x1f\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		vipsLock.Lock()
		img, err := vips.LoadThumbnailFromBuffer([]byte(source), 9, 9, vips.InterestingNone, vips.SizeForce, nil)
		vipsLock.Unlock()
		if err == nil {
			img.Close()
			t.Errorf("%s was read", name)
		} else if !strings.Contains(err.Error(), "blocked") {
			t.Errorf("%s: %v, want it blocked", name, err)
		}
	}
}

// sources returns a small image in every accepted format.
func sources(t testing.TB) map[pipeline.Format][]byte {
	t.Helper()
	img := gradient(96, 64)
	return map[pipeline.Format][]byte{
		pipeline.JPEG: asJPEG(t, img), pipeline.PNG: asPNG(t, img), pipeline.GIF: asGIF(t, img, image.NewNRGBA(img.Rect)),
		pipeline.WebP: asWebP(t, img), pipeline.AVIF: asAVIF(t, img), pipeline.HEIC: asHEIC(t, img),
	}
}

func TestCorrupt(t *testing.T) {
	t.Parallel()
	t.Run("truncated", testCorruptTruncated)
	t.Run("missing_pixels", testCorruptMissingPixels)
	t.Run("gif_with_all_pixels_is_accepted", testCorruptGifWithAllPixelsIsAccepted)
	t.Run("random_bytes", testCorruptRandomBytes)
}

func testCorruptTruncated(t *testing.T) {
	t.Parallel()
	s := spec(inside("small", 48, pipeline.JPEG))
	for name, source := range varieties(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			render(t, source, s)
			for length := 16; length < len(source); length += 1 + len(source)/150 {
				got := renderFails(t, source[:length], s)
				if got.Code != media.Corrupt && got.Code != media.UnsupportedFormat {
					t.Errorf("%d of %d bytes: code is %s, want corrupt", length, len(source), got.Code)
				}
			}
			for missing := 1; missing <= 16; missing++ {
				if got := renderFails(t, source[:len(source)-missing], s); got.Code != media.Corrupt {
					t.Errorf("%d bytes short: code is %s, want corrupt", missing, got.Code)
				}
			}
		})
	}
}

// testCorruptMissingPixels checks that decoding is strict: the containers of these sources are complete.
func testCorruptMissingPixels(t *testing.T) {
	t.Parallel()
	s := spec(inside("small", 48, pipeline.JPEG))
	whole := sources(t)
	kinds := varieties(t)
	jpeg, grey, inks, progressive := whole[pipeline.JPEG], kinds["grey.jpg"], kinds["inks.jpg"], kinds["progressive.jpg"]
	gif := whole[pipeline.GIF]
	frame := 13 + colourBytes(gif[10])
	gifCut := append(bytes.Clone(gif[:frame+10+colourBytes(gif[frame+9])]), 8, 3, 0x01, 0x02, 0x03, 0, 0x3b)
	png := whole[pipeline.PNG]
	pngEnd := png[len(png)-12:]
	for name, source := range map[string][]byte{
		"a JPEG that ends in its middle": append(bytes.Clone(jpeg[:len(jpeg)*6/10]), 0xff, 0xd9),
		"a JPEG without rows":            append(bytes.Clone(jpeg[:bytes.Index(jpeg, []byte{0xff, 0xda})+14]), 0xff, 0xd9),
		"a JPEG without its last bytes":  append(bytes.Clone(jpeg[:len(jpeg)-12]), 0xff, 0xd9),
		"the same on its side":           append(oriented(jpeg[:len(jpeg)-12], 6), 0xff, 0xd9),
		"the same in grey":               append(bytes.Clone(grey[:len(grey)-12]), 0xff, 0xd9),
		"the same in inks":               append(bytes.Clone(inks[:len(inks)-12]), 0xff, 0xd9),
		"the same progressive":           append(bytes.Clone(progressive[:len(progressive)-12]), 0xff, 0xd9),
		"a PNG without pixels":           append(bytes.Clone(png[:33]), pngEnd...),
		"a PNG with half its pixels":     halfPNG(png),
		"a GIF whose frame is cut":       gifCut,
		"a GIF with half its pixels":     shortGIF(t, 96*64/2),
		"a GIF whose frame is nothing":   bytes.Replace(shortGIF(t, 96*64), []byte(",\x00\x00\x00\x00\x60"), []byte(",\x00\x00\x00\x00\x00"), 1),
		"a GIF with a pixel less":        shortGIF(t, 96*64-1),
		"an AVIF with half its pixels":   halfMedia(whole[pipeline.AVIF]),
		"a HEIC with half its pixels":    halfMedia(whole[pipeline.HEIC]),
		"a WebP whose data is zeros":     zeroedTail(whole[pipeline.WebP], 0.5),
	} {
		for _, s := range []pipeline.Spec{s, spec(inside("full", 128, pipeline.WebP))} {
			if got := renderFails(t, source, s); got.Code != media.Corrupt {
				t.Errorf("%s: %v, want corrupt", name, got)
			}
		}
	}
}

// shortGIF returns a GIF of 96 x 64 whose codes, which are well-formed, are for the given number of pixels.
func shortGIF(t *testing.T, pixels int) []byte {
	t.Helper()
	var codes bytes.Buffer
	w := lzw.NewWriter(&codes, lzw.LSB, 2)
	if _, err := w.Write(bytes.Repeat([]byte{0, 1, 2, 3}, 96*64/4)[:pixels]); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	const palette, frame = "\x00\x00\x00\xff\x00\x00\x00\xff\x00\x00\x00\xff", ",\x00\x00\x00\x00\x60\x00\x40\x00\x00\x02"
	out := []byte("GIF89a\x60\x00\x40\x00\x81\x00\x00" + palette + frame)
	for b := codes.Bytes(); len(b) > 0; {
		n := min(255, len(b))
		out, b = append(append(out, byte(n)), b[:n]...), b[n:]
	}
	return append(out, 0, 0x3b)
}

func testCorruptGifWithAllPixelsIsAccepted(t *testing.T) {
	t.Parallel()
	render(t, shortGIF(t, 96*64), spec(inside("small", 48, pipeline.JPEG)))
}

func colourBytes(packed byte) int {
	if packed&0x80 == 0 {
		return 0
	}
	return 3 << (packed&7 + 1)
}

func zeroedTail(b []byte, from float64) []byte {
	b = bytes.Clone(b)
	clear(b[int(float64(len(b))*from):])
	return b
}

// halfMedia returns an AVIF or HEIC whose last box, the pixels, is cut in half, with a correct length.
func halfMedia(b []byte) []byte {
	at := bytes.Index(b, []byte("mdat")) - 4
	n := (len(b) - at) / 2
	out := bytes.Clone(b[:at+n])
	binary.BigEndian.PutUint32(out[at:], uint32(n))
	return out
}

// halfPNG returns a PNG whose only data chunk holds the first half of the data, with a correct checksum.
func halfPNG(png []byte) []byte {
	at := bytes.Index(png, []byte("IDAT"))
	n := int(binary.BigEndian.Uint32(png[at-4:])) / 2
	out := append(bytes.Clone(png[:at-4]), 0, 0, 0, 0)
	binary.BigEndian.PutUint32(out[len(out)-4:], uint32(n))
	chunk := png[at : at+4+n]
	out = append(out, chunk...)
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(chunk))
	return append(out, png[len(png)-12:]...)
}

func testCorruptRandomBytes(t *testing.T) {
	t.Parallel()
	s := spec(inside("small", 48, pipeline.JPEG, pipeline.WebP))
	random := rand.New(rand.NewPCG(1, 2))
	for format, source := range sources(t) {
		for range 40 {
			damaged := bytes.Clone(source)
			for range 1 + random.IntN(4) {
				damaged[16+random.IntN(len(damaged)-16)] ^= byte(1 + random.IntN(255))
			}
			vipsLock.Lock()
			got, err := imaging.Render(damaged, s)
			vipsLock.Unlock()
			if err != nil && media.FailureOf(err) == nil {
				t.Errorf("%s: error is %T", format, err)
			}
			if err == nil && len(got.Files) != 2 {
				t.Errorf("%s: %d outputs and no error", format, len(got.Files))
			}
		}
	}
}

// bomb returns a PNG whose header announces a size, without pixels.
func bomb(width, height uint32) []byte {
	header := append([]byte("IHDR"), 0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0)
	binary.BigEndian.PutUint32(header[4:], width)
	binary.BigEndian.PutUint32(header[8:], height)
	out := append([]byte("\x89PNG\r\n\x1a\n"), 0, 0, 0, 13)
	out = append(out, header...)
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(header))
	out = append(out, "\x00\x00\x00\x00IDAT\x35\xaf\x06\x1e"...)
	return append(out, "\x00\x00\x00\x00IEND\xae\x42\x60\x82"...)
}

func testRefusedTooManyPixels(t *testing.T) {
	t.Parallel()
	s := spec(inside("small", 48, pipeline.JPEG))
	if got := renderFails(t, bomb(60000, 60000), s); got.Code != media.TooManyPixels {
		t.Errorf("60000 x 60000: %v, want too_many_pixels", got)
	} else if !strings.Contains(got.Detail, "60000 x 60000") {
		t.Errorf("detail %q does not contain the size", got.Detail)
	}
	if got := renderFails(t, bomb(5000, 5000), s); got.Code != media.Corrupt {
		t.Errorf("an image of allowed size without pixels: %v, want corrupt", got)
	}

	exact := asPNG(t, gradient(50, 40))
	s.Limits.MaxPixels = 2000
	render(t, exact, s)
	s.Limits.MaxPixels = 1999
	if got := renderFails(t, exact, s); got.Code != media.TooManyPixels {
		t.Errorf("one pixel too many: %v", got)
	}

	frame := gradient(50, 40)
	s.Limits.MaxPixels = 3 * 2000
	render(t, asGIF(t, frame, frame, frame), s)
	if got := renderFails(t, asGIF(t, frame, frame, frame, frame), s); got.Code != media.TooManyPixels {
		t.Errorf("one frame too many: %v", got)
	}

	still := varieties(t)["lossy.webp"]
	s.Limits.MaxPixels = 3 * 128 * 96
	render(t, animatedWebP(still, still, still), s)
	if got := renderFails(t, animatedWebP(still, still, still, still), s); got.Code != media.TooManyPixels {
		t.Errorf("one frame of a WebP too many: %v", got)
	}
}

func testRefusedDetailHidesLibvipsText(t *testing.T) {
	t.Parallel()
	s := spec(inside("small", 48, pipeline.JPEG))
	got := renderFails(t, bomb(50, 50), s)
	if got.Cause == nil || strings.Contains(got.Cause.Error(), "goroutine") || strings.Contains(got.Detail, "png") {
		t.Errorf("detail %q, cause %v: want libvips' text in the cause only, without a stack", got.Detail, got.Cause)
	}
}

func TestLeaks(t *testing.T) { //nolint:paralleltest // the counters are global
	s := spec(inside("a", 60, pipeline.JPEG, pipeline.WebP), inside("b", 30, pipeline.PNG))
	cover, contain := inside("c", 20, pipeline.JPEG), inside("d", 20, pipeline.JPEG)
	cover.Height, cover.Fit = 20, pipeline.Cover
	contain.Height, contain.Fit = 20, pipeline.Contain
	s.Renditions = append(s.Renditions, cover, contain)
	run := func() {
		for format, source := range sources(t) {
			render(t, source, s)
			_ = renderFails(t, source[:len(source)/2], s)
			if format == pipeline.HEIC || format == pipeline.AVIF {
				source = halfMedia(source)
			}
			_ = renderFails(t, zeroedTail(source, 0.7), s)
		}
	}
	run()
	var before, after vips.MemoryStats
	vips.ReadVipsMemStats(&before)
	for range 5 {
		run()
	}
	vips.ReadVipsMemStats(&after)
	vips.AssertNoLeaks(t)
	if after.Mem != before.Mem || after.Allocs != before.Allocs || after.Files != before.Files {
		t.Errorf("libvips holds %+v, before %+v", after, before)
	}
}

// testRefusedImpossibleSizes renders sources with sizes for which readers return errors about memory. These must not be
// reported as failures of the codec, which are retried in a new codec.
func testRefusedImpossibleSizes(t *testing.T) {
	t.Parallel()
	s := spec(inside("small", 48, pipeline.JPEG))
	all := varieties(t)
	for _, name := range []string{"plain.avif", "plain.heic"} {
		long := bytes.Clone(all[name])
		binary.BigEndian.PutUint32(long[bytes.Index(long, []byte("ispe"))+8:], 1<<20)
		if got := renderFails(t, long, s); got.Code != media.TooManyPixels {
			t.Errorf("%s of 1,048,576 x 96: %v, want too_many_pixels", name, got)
		}
	}
	far := bytes.Clone(all["one.gif"])
	far[22], far[23] = 0xff, 0xff // the offset of the frame
	if got := renderFails(t, far, s); got.Code != media.Corrupt {
		t.Errorf("a GIF whose frame is out of bounds: %v, want corrupt", got)
	}
}
