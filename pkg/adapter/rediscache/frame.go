package rediscache

import (
	"fmt"
	"strconv"

	"vitrine.io/pkg/domain/catalog"
)

// A frame is the value of a product's key:
//
//	'V' kind version[20] len(tag)[1] tag len(etag)[1] etag body
//
// kind is 'd' (a document), 'm' (the product does not exist) or 't' (a tombstone, which ends after its version). The
// version has twenty decimal digits, because the scripts compare it as a string. They cannot compare it as a number,
// because a Lua number is a double, which is exact only up to 2^53. Lua compares strings by the locale of the server, but
// digits have the same order in every locale. All releases that run at the same time read the first 22 bytes, so these
// never change. The tag names the format of what follows them.
const (
	frameMagic     = 'V'
	kindDocument   = 'd'
	kindMissing    = 'm'
	kindTombstone  = 't'
	versionDigits  = 20
	frameHeadBytes = 2 + versionDigits
	maxTextBytes   = 255 // of the tag and of the ETag, whose lengths are one byte each
)

// lookup is the result of a Get.
type lookup int

const (
	found lookup = iota
	absent
	tombstoned
	otherTag
	malformed // not a frame
	lookups   // the number of results above
)

// appendHead appends the 22 bytes that the scripts read.
func appendHead(to []byte, kind byte, version int64) []byte {
	return fmt.Appendf(to, "%c%c%0*d", frameMagic, kind, versionDigits, version)
}

// tombstone returns the frame that makes every older version unreadable.
func tombstone(version int64) []byte {
	return appendHead(make([]byte, 0, frameHeadBytes), kindTombstone, version)
}

// encode returns doc as a frame. Its first identity bytes hold kind, version and tag: frames that agree in them hold the
// same document.
func encode(doc catalog.Document, tag string) (frame []byte, identity int) {
	kind := byte(kindDocument)
	if doc.Missing {
		kind = kindMissing
	}
	frame = make([]byte, 0, frameHeadBytes+2+len(tag)+len(doc.ETag)+len(doc.Body))
	frame = appendHead(frame, kind, doc.Version)
	frame = append(frame, byte(len(tag)))
	frame = append(frame, tag...)
	identity = len(frame)
	frame = append(frame, byte(len(doc.ETag)))
	frame = append(frame, doc.ETag...)
	return append(frame, doc.Body...), identity
}

// decode reads a frame. text and raw are the same bytes: the ETag is a part of text and the body a part of raw, so nothing
// is copied.
func decode(text string, raw []byte, tag string) (catalog.Document, lookup) {
	if len(text) < frameHeadBytes || text[0] != frameMagic {
		return catalog.Document{}, malformed
	}
	number, err := strconv.ParseUint(text[2:frameHeadBytes], 10, 63)
	if err != nil {
		return catalog.Document{}, malformed
	}
	version := int64(number)
	if text[1] == kindTombstone {
		return catalog.Document{}, tombstoned
	}
	if text[1] != kindDocument && text[1] != kindMissing {
		return catalog.Document{}, malformed
	}
	frameTag, at := field(text, frameHeadBytes)
	if at == noField {
		return catalog.Document{}, malformed
	}
	if frameTag != tag {
		return catalog.Document{}, otherTag
	}
	etag, at := field(text, at)
	if at == noField {
		return catalog.Document{}, malformed
	}
	if text[1] == kindMissing {
		return catalog.Document{Version: version, Missing: true}, found
	}
	return catalog.Document{Version: version, ETag: etag, Body: raw[at:len(raw):len(raw)]}, found
}

// noField is the index that field returns if the frame ends before the end of the field.
const noField = -1

// field reads a length of one byte and that many bytes. It returns the index of the next field, or noField.
func field(text string, at int) (value string, next int) {
	if at >= len(text) {
		return "", noField
	}
	next = at + 1 + int(text[at])
	if next > len(text) {
		return "", noField
	}
	return text[at+1 : next], next
}
