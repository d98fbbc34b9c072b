package main_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"

	"vitrine.io/pkg/foundation/pipeline"
)

// field is the location of a number in a container.
type field struct {
	at, width int // in bytes; a width of 0 is no field
	little    bool
}

func (f field) get(b []byte) uint64 {
	var v uint64
	for i := range f.width {
		at := f.at + i
		if f.little {
			at = f.at + f.width - 1 - i
		}
		v = v<<8 | uint64(b[at])
	}
	return v
}

func (f field) set(b []byte, v uint64) {
	for i := range f.width {
		at := f.at + f.width - 1 - i
		if f.little {
			at = f.at + i
		}
		b[at] = byte(v >> (8 * i))
	}
}

// part is a segment, chunk, block or box of a container, from its first byte to the one after its last. Parts may be nested.
type part struct {
	at, body, end int
	length        field
}

func (p part) size() int { return p.end - p.at }

// layout lists the parts and the sizes of a well-formed file.
type layout struct {
	parts []part
	sides []field // widths, heights and offsets
}

func layoutOf(format pipeline.Format, b []byte) layout {
	switch format {
	case pipeline.JPEG:
		return layoutJPEG(b)
	case pipeline.PNG:
		return layoutPNG(b)
	case pipeline.GIF:
		return layoutGIF(b)
	case pipeline.WebP:
		l := layout{parts: []part{{0, 12, len(b), field{4, 4, true}}}}
		l.chunks(b, 12, len(b))
		return l
	default:
		var l layout
		l.boxes(b, 0, len(b))
		return l
	}
}

func layoutJPEG(b []byte) (l layout) {
	for at := 2; at+4 <= len(b) && b[at+1] != 0xd9; {
		n := int(binary.BigEndian.Uint16(b[at+2:]))
		l.parts = append(l.parts, part{at, at + 4, at + 2 + n, field{at + 2, 2, false}})
		if marker := b[at+1]; marker == 0xc0 || marker == 0xc2 {
			l.sides = append(l.sides, field{at + 5, 2, false}, field{at + 7, 2, false})
		}
		scan := b[at+1] == 0xda
		if at += 2 + n; scan { // the entropy-coded data after it
			end := at
			for b[end] != 0xff || b[end+1] == 0 || b[end+1]&0xf8 == 0xd0 {
				end++
			}
			l.parts = append(l.parts, part{at: at, body: at, end: end})
			at = end
		}
	}
	return l
}

func layoutPNG(b []byte) (l layout) {
	for at := 8; at+12 <= len(b); {
		n := int(binary.BigEndian.Uint32(b[at:]))
		l.parts = append(l.parts, part{at, at + 8, at + 12 + n, field{at, 4, false}})
		at += 12 + n
	}
	l.sides = []field{{16, 4, false}, {20, 4, false}}
	return l
}

func layoutGIF(b []byte) (l layout) {
	colours := func(packed byte) int {
		if packed&0x80 == 0 {
			return 0
		}
		return 3 << (packed&7 + 1)
	}
	l.sides = []field{{6, 2, true}, {8, 2, true}}
	at := 13 + colours(b[10])
	for b[at] != 0x3b {
		begin := at
		if at += 2; b[begin] == 0x2c {
			for i := range 4 {
				l.sides = append(l.sides, field{begin + 1 + 2*i, 2, true})
			}
			at = begin + 10 + colours(b[begin+9]) + 1
		}
		body := at
		for b[at] != 0 {
			l.parts = append(l.parts, part{at, at + 1, at + 1 + int(b[at]), field{at, 1, false}})
			at += 1 + int(b[at])
		}
		at++
		l.parts = append(l.parts, part{at: begin, body: body, end: at})
	}
	return l
}

// chunks adds the chunks of a RIFF file.
func (l *layout) chunks(b []byte, at, end int) {
	for at+8 <= end {
		n := int(binary.LittleEndian.Uint32(b[at+4:]))
		p := part{at, at + 8, at + 8 + n + n&1, field{at + 4, 4, true}}
		l.parts = append(l.parts, p)
		switch string(b[at : at+4]) {
		case "VP8X":
			l.sides = append(l.sides, field{p.body + 4, 3, true}, field{p.body + 7, 3, true})
		case "VP8 ":
			l.sides = append(l.sides, field{p.body + 6, 2, true}, field{p.body + 8, 2, true})
		case "VP8L":
			l.sides = append(l.sides, field{p.body + 1, 2, true}, field{p.body + 2, 3, true})
		case "ANMF":
			for i := range 4 {
				l.sides = append(l.sides, field{p.body + 3*i, 3, true})
			}
			l.chunks(b, p.body+16, p.end)
		}
		at = p.end
	}
}

// boxes adds the boxes of an ISO media file.
func (l *layout) boxes(b []byte, at, end int) {
	inside := map[string]int{"meta": 4, "iprp": 0, "ipco": 0, "iinf": 6, "iref": 4, "dinf": 0}
	for at+8 <= end {
		p := part{at, at + 8, at + int(binary.BigEndian.Uint32(b[at:])), field{at, 4, false}}
		l.parts = append(l.parts, p)
		name := string(b[at+4 : at+8])
		if name == "ispe" {
			l.sides = append(l.sides, field{p.body + 4, 4, false}, field{p.body + 8, 4, false})
		}
		if head, ok := inside[name]; ok {
			l.boxes(b, p.body+head, p.end)
		}
		at = p.end
	}
}

// replaced returns b with other bytes between from and to. If honest is true, the lengths of the enclosing parts and the
// checksums of a PNG are corrected.
func (l layout) replaced(format pipeline.Format, b []byte, from, to int, with []byte, honest bool) []byte {
	b = bytes.Clone(b)
	if honest {
		for _, p := range l.parts {
			if p.length.width > 0 && p.body <= from && to <= p.end && from < p.end {
				p.length.set(b, p.length.get(b)+uint64(len(with)-(to-from)))
			}
		}
	}
	b = slices.Concat(b[:from], with, b[to:])
	if honest && format == pipeline.PNG {
		summed(b)
	}
	return b
}

// summed sets the checksums of a PNG up to the first chunk that is longer than the file.
func summed(b []byte) {
	for at := 8; at+12 <= len(b); {
		n := int64(binary.BigEndian.Uint32(b[at:]))
		if int64(at)+12+n > int64(len(b)) {
			return
		}
		end := at + 8 + int(n)
		binary.BigEndian.PutUint32(b[end:], crc32.ChecksumIEEE(b[at+4:end]))
		at = end + 4
	}
}
