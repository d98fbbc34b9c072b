package imaging_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"slices"
	"testing"

	"github.com/davidbyttow/govips/v2/vips"

	"vitrine.io/pkg/foundation/pipeline"
)

// exifOf returns an Exif block with only an orientation.
func exifOf(orientation uint16) []byte {
	tiff := []byte("II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x00")
	tiff[len(tiff)-1] = 0
	tiff = binary.LittleEndian.AppendUint16(tiff[:18], orientation)
	return append(tiff, 0, 0, 0, 0, 0, 0)
}

// propertied adds a transformation to the first item of an AVIF or HEIC of libheif, as cameras do: to the list of properties
// and to those of the item. Offsets of later boxes are corrected.
func propertied(t *testing.T, source, property []byte) []byte {
	t.Helper()
	find := func(name string) int {
		at := bytes.Index(source, []byte(name))
		if at < 4 {
			t.Fatalf("no %s", name)
		}
		return at - 4
	}
	meta, iloc, iprp, ipco, ipma := find("meta"), find("iloc"), find("iprp"), find("ipco"), find("ipma")
	add := func(b []byte, at, n int) {
		binary.BigEndian.PutUint32(b[at:], binary.BigEndian.Uint32(b[at:])+uint32(n))
	}
	out, more := bytes.Clone(source), len(property)+1
	add(out, meta, more)
	add(out, iprp, more)
	add(out, ipco, len(property))
	add(out, ipma, 1)
	for i := range int(binary.BigEndian.Uint16(out[iloc+14:])) { // version 0: id, reference, base offset, extents
		add(out, iloc+16+i*18+4, more)
	}
	count := 0 // of the properties
	for at := ipco + 8; at < ipma; at += int(binary.BigEndian.Uint32(source[at:])) {
		count++
	}
	const first = 16 // of the items: its id, its number of properties, a byte for each
	out[ipma+first+2]++
	last := ipma + first + 3 + int(source[ipma+first+2])
	return slices.Concat(out[:ipma], property, out[ipma:last], []byte{0x80 | byte(count+1)}, out[last:])
}

func TestOrientation(t *testing.T) {
	t.Parallel()
	t.Run("every_format", testOrientationEveryFormat)
	t.Run("heic_container_overrides_exif", testOrientationHeicContainerOverridesExif)
	t.Run("jpeg_exif", testOrientationJpegExif)
}

func testOrientationEveryFormat(t *testing.T) {
	t.Parallel()
	img := gradient(180, 120)
	webp := func(orientation uint16) []byte {
		stored := turned(img, orientation)
		return extendedWebP(bareWebP(t, stored, true), stored.Rect, 0x08, nil, riff("EXIF", exifOf(orientation)))
	}
	png := func(orientation uint16) []byte {
		stored := asPNG(t, turned(img, orientation))
		return slices.Concat(stored[:33], pngChunk(nil, "eXIf", exifOf(orientation)), stored[33:])
	}
	for orientation := uint16(1); orientation <= 8; orientation++ {
		wantUpright(t, fmt.Sprintf("WebP, Exif %d", orientation), webp(orientation), img)
		wantUpright(t, fmt.Sprintf("PNG, Exif %d", orientation), png(orientation), img)
	}
	for name, tc := range map[string]struct {
		orientation uint16
		property    string
	}{
		"as it is":         {1, "\x00\x00\x00\x09irot\x00"},
		"a quarter right":  {8, "\x00\x00\x00\x09irot\x01"},
		"a half":           {3, "\x00\x00\x00\x09irot\x02"},
		"a quarter left":   {6, "\x00\x00\x00\x09irot\x03"},
		"left for right":   {2, "\x00\x00\x00\x09imir\x01"},
		"top for bottom":   {4, "\x00\x00\x00\x09imir\x00"},
		"a free space box": {1, "\x00\x00\x00\x09free\x00"},
	} {
		stored := turned(img, tc.orientation)
		wantUpright(t, "AVIF, "+name, propertied(t, asAVIF(t, stored), []byte(tc.property)), img)
		wantUpright(t, "HEIC, "+name, propertied(t, asHEIC(t, stored), []byte(tc.property)), img)
	}
}

// testOrientationHeicContainerOverridesExif renders a HEIC as telephones write it, with an orientation in Exif and in the
// container: only the container's is applied.
func testOrientationHeicContainerOverridesExif(t *testing.T) {
	t.Parallel()
	img := gradient(180, 120)
	source := through(t, turned(img, 6), func(ref *vips.ImageRef) ([]byte, error) {
		if err := ref.SetOrientation(6); err != nil {
			return nil, err
		}
		body, _, err := ref.ExportHeif(&vips.HeifExportParams{Quality: 85, Effort: 1, Bitdepth: 8})
		return body, err
	})
	if !bytes.Contains(source, []byte("Exif\x00\x00")) {
		t.Fatal("the source has no Exif")
	}
	wantUpright(t, "turned by both", propertied(t, source, []byte("\x00\x00\x00\x09irot\x03")), img)
	wantUpright(t, "turned by Exif alone", source, turned(img, 6))
}

func wantUpright(t *testing.T, name string, source []byte, want image.Image) {
	t.Helper()
	size := want.Bounds().Size()
	got := render(t, source, spec(inside("full", 180, pipeline.JPEG), inside("small", 40, pipeline.PNG)))
	if got.Width != size.X || got.Height != size.Y {
		t.Errorf("%s: reported as %d x %d, want %v", name, got.Width, got.Height, size)
		return
	}
	for _, o := range got.Files {
		wantClose(t, name+", "+o.Name, o.Body, want, 25)
	}
}
