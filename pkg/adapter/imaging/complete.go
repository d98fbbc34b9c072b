package imaging

import (
	"bytes"
	"encoding/binary"

	"vitrine.io/pkg/foundation/pipeline"
)

// complete reports whether source reaches the end that its container announces. libvips 8.14 does not check this: it
// accepts a GIF that ends in a later frame and a PNG without its last chunks. If a JPEG is cut in its last rows, it
// returns grey rows and only a warning. Walking the container takes microseconds and decodes nothing.
func complete(format pipeline.Format, source []byte) bool {
	switch format {
	case pipeline.JPEG:
		return completeJPEG(source)
	case pipeline.PNG:
		return completePNG(source)
	case pipeline.GIF:
		return completeGIF(source)
	case pipeline.WebP:
		return len(source) >= 12 && int64(binary.LittleEndian.Uint32(source[4:]))+8 <= int64(len(source))
	case pipeline.AVIF, pipeline.HEIC:
		return completeBoxes(source)
	default:
		return false
	}
}

// completeJPEG looks for the end-of-image marker of the first image. Segments are skipped by their length, so that the
// end of a thumbnail inside Exif does not count.
func completeJPEG(b []byte) bool {
	for b = b[2:]; ; {
		i := bytes.IndexByte(b, 0xff) // like libjpeg, skip bytes between segments that do not begin a marker
		if i < 0 || i+2 > len(b) {
			return false
		}
		marker := b[i+1]
		switch {
		case marker == 0xd9:
			return true
		case marker == 0xff:
			b = b[i+1:] // fill byte
		case marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8):
			b = b[i+2:] // stuffed byte in entropy-coded data or restart marker: no length follows
		default:
			if b = b[i+2:]; len(b) < 2 {
				return false
			}
			n := int(binary.BigEndian.Uint16(b))
			if n < 2 || n > len(b) {
				return false
			}
			b = b[n:]
		}
	}
}

// completePNG looks for the IEND chunk.
func completePNG(b []byte) bool {
	for b = b[8:]; len(b) >= 12; {
		n := int64(binary.BigEndian.Uint32(b)) + 12 // length, type, CRC
		if n > int64(len(b)) {
			return false
		}
		if string(b[4:8]) == "IEND" {
			return true
		}
		b = b[n:]
	}
	return false
}

// completeGIF looks for the trailer after the last block.
func completeGIF(b []byte) bool { return walkGIF(b, func([]byte) bool { return true }) }

// walkGIF calls visit with the bytes from each frame's descriptor to the end of the file until visit returns false. It
// reports whether it has reached the trailer.
func walkGIF(b []byte, visit func(frame []byte) bool) bool {
	if len(b) < 13 {
		return false
	}
	b, ok := skip(b, 13+colourTable(b[10]))
	for ok && len(b) > 0 {
		switch b[0] {
		case 0x3b:
			return true
		case 0x00: // padding that some encoders write and every decoder skips
			b = b[1:]
		case 0x21: // extension: introducer, label, sub-blocks
			if b, ok = skip(b, 2); ok {
				b, ok = skipSubBlocks(b)
			}
		case 0x2c: // frame: descriptor, its colour table, code size, sub-blocks
			if len(b) < 10 || !visit(b) {
				return false
			}
			if b, ok = skip(b, 10+colourTable(b[9])+1); ok {
				b, ok = skipSubBlocks(b)
			}
		default:
			return false
		}
	}
	return false
}

// colourTable returns the size in bytes of the colour table that a packed field of a GIF announces.
func colourTable(packed byte) int {
	if packed&0x80 == 0 {
		return 0
	}
	return 3 << (packed&7 + 1)
}

func skip(b []byte, n int) ([]byte, bool) {
	if n > len(b) {
		return nil, false
	}
	return b[n:], true
}

func skipSubBlocks(b []byte) ([]byte, bool) {
	for len(b) > 0 {
		n := int(b[0])
		if n == 0 {
			return b[1:], true
		}
		var ok bool
		if b, ok = skip(b, n+1); !ok {
			return nil, false
		}
	}
	return nil, false
}

// completeBoxes walks the top-level boxes of an ISO media file.
func completeBoxes(b []byte) bool {
	for len(b) >= 8 {
		n, header := uint64(binary.BigEndian.Uint32(b)), uint64(8)
		switch n {
		case 0: // the last box extends to the end of the file
			return true
		case 1:
			if len(b) < 16 {
				return false
			}
			n, header = binary.BigEndian.Uint64(b[8:]), 16
		}
		if n < header || n > uint64(len(b)) {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0
}
