package imaging

import (
	"encoding/binary"
	"errors"
)

// bareWebP returns a WebP file with its pixels and nothing else. govips always names a colour profile when it writes WebP
// ("none"), and libvips 8.14 takes a named profile for a wish to keep metadata: it then ignores strip, and adds an Exif
// block of its own to every file, 180 bytes of resolution and size.
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
			return nil, errors.New("webp: a chunk is longer than the file")
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
	if alpha != nil { // only then is the extended header needed
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
