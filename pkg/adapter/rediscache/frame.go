package rediscache

import (
	"strconv"

	"vitrine.io/pkg/domain/catalog"
)

// A frame is what lies under a product's key:
//
//	'V' kind version[20] len(tag)[1] tag len(etag)[1] etag body
//
// kind is 'd' (a document), 'm' (there is no such product) or 't' (a tombstone, which ends after its version). The version
// is written as twenty decimal digits, because the scripts compare it: a Lua number is a double and exact only to 2^53,
// and Lua compares strings by the server's locale, in which only digits are sure to be in order. The first 22 bytes are
// read by every release that is running, so they never change; what follows them is named by the tag.
const (
	frameMagic     = 'V'
	kindDocument   = 'd'
	kindMissing    = 'm'
	kindTombstone  = 't'
	versionDigits  = 20
	frameHeadBytes = 2 + versionDigits
	maxTextBytes   = 255 // of tag and of ETag: their lengths are one byte each
)

// lookup says what a Get found.
type lookup int

const (
	found lookup = iota
	absent
	tombstoned // a tombstone
	foreign    // under another tag
	damaged    // not a frame
	lookups    // how many there are
	noneHere   = -1
)

// appendHead appends the 22 bytes that the scripts read.
func appendHead(to []byte, kind byte, version int64) []byte {
	to = append(to, frameMagic, kind)
	var digits [versionDigits]byte
	text := strconv.AppendInt(digits[:0], version, 10)
	for range versionDigits - len(text) {
		to = append(to, '0')
	}
	return append(to, text...)
}

// tombstone returns the frame that makes everything older than version unreadable.
func tombstone(version int64) []byte {
	return appendHead(make([]byte, 0, frameHeadBytes), kindTombstone, version)
}

// encode returns doc as a frame, and how many of its first bytes name kind, version and tag: two frames that begin alike
// hold the same document.
func encode(doc catalog.Document, tag string) (frame []byte, name int) {
	kind := byte(kindDocument)
	if doc.Missing {
		kind = kindMissing
	}
	frame = make([]byte, 0, frameHeadBytes+2+len(tag)+len(doc.ETag)+len(doc.Body))
	frame = appendHead(frame, kind, doc.Version)
	frame = append(frame, byte(len(tag)))
	frame = append(frame, tag...)
	name = len(frame)
	frame = append(frame, byte(len(doc.ETag)))
	frame = append(frame, doc.ETag...)
	return append(frame, doc.Body...), name
}

// decode reads a frame. text and raw are the same bytes: the ETag is a part of the one and the body a part of the other,
// so nothing is copied.
func decode(text string, raw []byte, tag string) (catalog.Document, lookup) {
	if len(text) < frameHeadBytes || text[0] != frameMagic {
		return catalog.Document{}, damaged
	}
	version, ok := parseVersion(text[2:frameHeadBytes])
	if !ok {
		return catalog.Document{}, damaged
	}
	if text[1] == kindTombstone {
		return catalog.Document{}, tombstoned
	}
	if text[1] != kindDocument && text[1] != kindMissing {
		return catalog.Document{}, damaged
	}
	held, at := field(text, frameHeadBytes)
	if at == noneHere {
		return catalog.Document{}, damaged
	}
	if held != tag {
		return catalog.Document{}, foreign
	}
	etag, at := field(text, at)
	if at == noneHere {
		return catalog.Document{}, damaged
	}
	if text[1] == kindMissing {
		return catalog.Document{Version: version, Missing: true}, found
	}
	return catalog.Document{Version: version, ETag: etag, Body: raw[at:len(raw):len(raw)]}, found
}

// field reads one length and that many bytes, and returns where the next field begins, or noneHere.
func field(text string, at int) (value string, next int) {
	if at >= len(text) {
		return "", noneHere
	}
	next = at + 1 + int(text[at])
	if next > len(text) {
		return "", noneHere
	}
	return text[at+1 : next], next
}

// parseVersion reads the twenty digits. No version above an int64 was ever written.
func parseVersion(digits string) (int64, bool) {
	var version int64
	for i := range len(digits) {
		digit := digits[i] - '0'
		if digit > 9 || version > (1<<63-1-int64(digit))/10 {
			return 0, false
		}
		version = version*10 + int64(digit)
	}
	return version, true
}
