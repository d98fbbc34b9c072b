package imaging

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"io"
)

// hasAllPixels reports whether the first frame of a complete GIF has a code for each of its pixels; at most maxPixels are
// checked. The GIF reader of libvips reports no error when the codes end early: it leaves the rest of the frame empty.
// Decompression takes about 10 ms for a million pixels (measured) and no memory.
func hasAllPixels(b []byte, maxPixels int64) (full bool) {
	walkGIF(b, func(frame []byte) bool {
		pixels := int64(binary.LittleEndian.Uint16(frame[5:])) * int64(binary.LittleEndian.Uint16(frame[7:]))
		codes, ok := skip(frame, 10+colourTable(frame[9]))
		full = ok && pixels > 0 && hasPixels(codes, min(pixels, maxPixels))
		return false
	})
	return full
}

// hasPixels reports whether a frame's data (code size, then sub-blocks) decompresses to at least that many pixels.
func hasPixels(b []byte, pixels int64) bool {
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
