package imaging

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"io"
)

// hasAllPixels reports whether the first frame of a complete GIF has a code for each of its pixels, up to most of them. libvips'
// GIF reader says nothing when the codes end early, by damage or by a cut that was mended: it leaves the rest of the frame
// empty. Unpacking takes about 10 ms for a million pixels and no memory; GIFs are few.
func hasAllPixels(b []byte, most int64) (full bool) {
	walkGIF(b, func(frame []byte) bool {
		pixels := int64(binary.LittleEndian.Uint16(frame[5:])) * int64(binary.LittleEndian.Uint16(frame[7:]))
		codes, ok := skip(frame, 10+colourTable(frame[9]))
		full = ok && pixels > 0 && hasPixels(codes, min(pixels, most))
		return false
	})
	return full
}

// hasPixels reports whether so many pixels are in a frame's data: code size, sub-blocks.
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
