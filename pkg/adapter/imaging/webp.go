package imaging

import (
	"encoding/binary"
	"errors"
	"iter"
)

// bareWebP returns a WebP file with only the chunks of its pixels. govips always sets a colour profile when it writes WebP
// ("none"), and libvips 8.14 keeps metadata when a profile is set: it then ignores strip and adds an Exif block to every
// file, 180 bytes of resolution and size.
func bareWebP(file []byte) ([]byte, error) {
	const headerSize = 12
	if len(file) < headerSize {
		return nil, errors.New("webp: no header")
	}
	var extended, alpha, pixels []byte
	for rest := file[headerSize:]; len(rest) >= 8; {
		n := 8 + int64(binary.LittleEndian.Uint32(rest[4:]))
		n += n & 1 // chunks are padded to an even length
		if n > int64(len(rest)) {
			return nil, errors.New("webp: chunk is longer than the file")
		}
		switch chunk := rest[:n]; string(chunk[:4]) {
		case "VP8X":
			extended = chunk
		case "ALPH":
			alpha = chunk
		case "VP8 ", "VP8L":
			pixels = chunk
		}
		rest = rest[n:]
	}
	if pixels == nil || (alpha != nil && len(extended) < 18) {
		return nil, errors.New("webp: no pixels")
	}
	bare := make([]byte, headerSize, len(file))
	if alpha != nil { // the extended header is needed for alpha only
		const onlyAlpha = 0x10
		bare = append(bare, extended...)
		bare[headerSize+8] = onlyAlpha
	}
	bare = append(append(bare, alpha...), pixels...)
	copy(bare, "RIFF")
	binary.LittleEndian.PutUint32(bare[4:], uint32(len(bare)-8))
	copy(bare[8:], "WEBP")
	return bare, nil
}

// webpClaim returns the number of frames of a WebP and the largest size in any of its headers. The caller checks them
// before libvips reads the header, because libvips 8.14 allocates memory for a whole frame before it returns the size.
func webpClaim(file []byte) claim {
	var c claim
	largest := func(width, height uint32) {
		if uint64(width)*uint64(height) > uint64(c.width)*uint64(c.height) {
			c.size = size{int(width), int(height)}
		}
	}
	u24 := func(b []byte) uint32 { return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 }
	for name, body := range webpChunks(file) {
		switch {
		case name == "VP8X" && len(body) >= 10:
			largest(1+u24(body[4:]), 1+u24(body[7:]))
		case name == "VP8 " && len(body) >= 10:
			largest(uint32(binary.LittleEndian.Uint16(body[6:])&0x3fff), uint32(binary.LittleEndian.Uint16(body[8:])&0x3fff))
		case name == "VP8L" && len(body) >= 5:
			bits := binary.LittleEndian.Uint32(body[1:])
			largest(1+bits&0x3fff, 1+bits>>14&0x3fff)
		case name == "ANMF":
			c.frames++
		}
	}
	c.frames = max(1, c.frames)
	return c
}

// losslessWebP reports whether a WebP that is no animation is stored without loss.
func losslessWebP(file []byte) bool {
	for name := range webpChunks(file) {
		if name == "VP8L" {
			return true
		}
	}
	return false
}

// webpChunks iterates over the chunks of a WebP: the name and the body, which is shorter than announced if the file is cut.
func webpChunks(file []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for rest := file[12:]; len(rest) >= 8; {
			n := int64(binary.LittleEndian.Uint32(rest[4:]))
			if !yield(string(rest[:4]), rest[8:min(8+n, int64(len(rest)))]) {
				return
			}
			rest = rest[min(8+n+n&1, int64(len(rest))):] // padded to an even length
		}
	}
}
