package httpapi

import (
	"mime"
	"strings"

	"github.com/valyala/fasthttp"
)

const (
	headerRequestID   = "X-Request-Id"
	headerTraceparent = "Traceparent"

	maxRequestID = 128 // bytes
)

// clientRequestID returns the client's own request id, or "" if it gave none that is fit for a log: at most 128 visible
// ASCII characters.
func clientRequestID(h *fasthttp.RequestHeader) string {
	id := h.Peek(headerRequestID)
	if len(id) > maxRequestID {
		return ""
	}
	for _, b := range id {
		if b <= ' ' || b > '~' {
			return ""
		}
	}
	return string(id)
}

// The layout of a W3C traceparent: version-traceid-parentid-flags (https://www.w3.org/TR/trace-context/#traceparent-header).
const (
	traceVersionEnd = 2
	traceIDEnd      = traceVersionEnd + 1 + 32
	traceParentEnd  = traceIDEnd + 1 + 16
	traceLength     = traceParentEnd + 1 + 2
)

// traceparent returns the client's trace context, or "" if there is none that is valid.
func traceparent(h *fasthttp.RequestHeader) string {
	raw := h.Peek(headerTraceparent)
	if len(raw) < traceLength {
		return ""
	}
	text := string(raw)
	version, traceID := text[:traceVersionEnd], text[traceVersionEnd+1:traceIDEnd]
	parentID, flags := text[traceIDEnd+1:traceParentEnd], text[traceParentEnd+1:traceLength]
	switch {
	case text[traceVersionEnd] != '-' || text[traceIDEnd] != '-' || text[traceParentEnd] != '-':
		return ""
	case !lowerHex(version) || !lowerHex(traceID) || !lowerHex(parentID) || !lowerHex(flags):
		return ""
	case version == "ff" || strings.Trim(traceID, "0") == "" || strings.Trim(parentID, "0") == "":
		return ""
	case len(text) > traceLength && (version == "00" || text[traceLength] != '-'):
		return "" // only versions to come may have more parts
	}
	return text[:traceLength]
}

// traceIDOf returns the trace id of a valid traceparent.
func traceIDOf(valid string) string { return valid[traceVersionEnd+1 : traceIDEnd] }

func lowerHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

// notJSON says why the body cannot be taken for plain JSON, or "". A compressed body is refused: it would have to be
// inflated before its size is known.
func notJSON(h *fasthttp.RequestHeader) string {
	if encoding := h.Peek(fasthttp.HeaderContentEncoding); len(encoding) > 0 && string(encoding) != "identity" {
		return "send the body without a Content-Encoding"
	}
	kind, _, err := mime.ParseMediaType(string(h.ContentType()))
	if err != nil || kind != "application/json" {
		return "send Content-Type: application/json"
	}
	return ""
}

// matches reports whether etag is in an If-None-Match header, by weak comparison (RFC 9110, 13.1.2).
func matches(ifNoneMatch []byte, etag string) bool {
	rest := strings.TrimSpace(string(ifNoneMatch))
	if rest == "*" {
		return true
	}
	for rest != "" {
		rest = strings.TrimPrefix(strings.TrimLeft(rest, ", \t"), "W/")
		if !strings.HasPrefix(rest, `"`) {
			return false // not a list of entity tags
		}
		end := strings.IndexByte(rest[1:], '"')
		if end < 0 {
			return false
		}
		if rest[:end+2] == etag {
			return true
		}
		rest = rest[end+2:]
	}
	return false
}
