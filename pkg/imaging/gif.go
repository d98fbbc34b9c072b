package imaging

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"io"
)

// fullGIF reports whether the first frame of a complete GIF has a code for each of its pixels, up to most of them. libvips'
// GIF reader says nothing when the codes end early, by damage or by a cut that was mended: it leaves the rest of the frame
// empty. Unpacking takes about 10 ms for a million pixels and no memory; GIFs are few.
func fullGIF(b []byte, most int64) bool {
	b, ok := skip(b, 13+colourTable(b[10]))
	for ok && len(b) > 0 {
		switch b[0] {
		case 0x00:
			b = b[1:]
		case 0x21:
			if b, ok = skip(b, 2); ok {
				b, ok = skipSubBlocks(b)
			}
		case 0x2c:
			if len(b) < 10 {
				return false
			}
			pixels := int64(binary.LittleEndian.Uint16(b[5:])) * int64(binary.LittleEndian.Uint16(b[7:]))
			b, ok = skip(b, 10+colourTable(b[9]))
			return ok && pixels > 0 && unpacks(b, min(pixels, most))
		default:
			return false
		}
	}
	return false
}

// unpacks reports whether so many pixels are in a frame's data: code size, sub-blocks.
func unpacks(b []byte, pixels int64) bool {
	if len(b) < 2 || b[0] < 2 || b[0] > 8 {
		return false
	}
	codeSize, codes := int(b[0]), make([]byte, 0, len(b))
	for b = b[1:]; len(b) > 0 && b[0] != 0; {
		end := min(1+int(b[0]), len(b))
		codes, b = append(codes, b[1:end]...), b[end:]
	}
	n, _ := io.CopyN(io.Discard, lzw.NewReader(bytes.NewReader(codes), lzw.LSB, codeSize), pixels)
	return n == pixels
}
