package imaging

import (
	"bytes"
	"encoding/binary"
	"slices"

	"vitrine.io/pkg/foundation/pipeline"
)

// sniff returns the format whose magic bytes source begins with, or "". The tables of libvips and govips are not used
// because they include formats that must not be read: SVG, PDF and all formats of ImageMagick.
func sniff(source []byte) pipeline.Format {
	switch {
	case bytes.HasPrefix(source, []byte("\xff\xd8\xff")):
		return pipeline.JPEG
	case bytes.HasPrefix(source, []byte("\x89PNG\r\n\x1a\n")):
		return pipeline.PNG
	case bytes.HasPrefix(source, []byte("GIF87a")), bytes.HasPrefix(source, []byte("GIF89a")):
		return pipeline.GIF
	case len(source) >= 12 && string(source[:4]) == "RIFF" && string(source[8:12]) == "WEBP":
		return pipeline.WebP
	default:
		return sniffBrands(brands(source))
	}
}

// sniffBrands distinguishes AVIF from HEIC by the brands of a ftyp box. A file may have brands of both (mif1 means only "an
// image in HEIF"). AVIF is checked first because every AVIF file must have its brand.
func sniffBrands(names []string) pipeline.Format {
	is := func(brand ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(brand, n) })
	}
	switch {
	case is("avif", "avis"):
		return pipeline.AVIF
	case is("heic", "heix", "heim", "heis", "hevc", "hevx"):
		return pipeline.HEIC
	default:
		return ""
	}
}

// maxBrands bounds the number of brands that are read of a ftyp box; real ones list fewer than ten.
const maxBrands = 64

// brands returns the major and the compatible brands of a file that begins with a ftyp box, or nil.
func brands(source []byte) []string {
	if len(source) < 16 || string(source[4:8]) != "ftyp" {
		return nil
	}
	end := min(int64(binary.BigEndian.Uint32(source)), int64(len(source)), 16+4*maxBrands)
	names := []string{string(source[8:12])}
	for i := int64(16); i+4 <= end; i += 4 {
		names = append(names, string(source[i:i+4]))
	}
	return names
}

// isSequence reports whether the brands of an AVIF or HEIC file announce an animation. libheif 1.15 decodes only its still
// image.
func isSequence(source []byte) bool {
	return slices.ContainsFunc(brands(source), func(n string) bool { return n == "avis" || n == "hevc" || n == "hevx" })
}
