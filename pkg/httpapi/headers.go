package httpapi

import (
	"mime"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"vitrine.io/pkg/catalog"
)

const (
	headerRequestID   = "X-Request-Id"
	headerTraceparent = "Traceparent"
	headerKey         = "Idempotency-Key"
	headerReplayed    = "Idempotent-Replayed"
	headerAcceptPatch = "Accept-Patch"

	maxRequestID = 128 // bytes
	maxKey       = 255 // characters

	mimeMergePatch = "application/merge-patch+json" // RFC 7396
)

// clientRequestID returns the client's own request id, or "" if it gave none that is fit for a log: at most 128 visible
// ASCII characters.
func clientRequestID(h *fasthttp.RequestHeader) string {
	id := h.Peek(headerRequestID)
	if !fitForLog(id) {
		return ""
	}
	return string(id)
}

// fitForLog reports whether a client's request id is short and can be seen.
func fitForLog[T string | []byte](id T) bool {
	return len(id) > 0 && len(id) <= maxRequestID && visible(id)
}

// visible reports whether a text is visible ASCII characters only.
func visible[T string | []byte](text T) bool {
	for i := range len(text) {
		if unfit(rune(text[i])) || text[i] > '~' {
			return false
		}
	}
	return true
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

func lowerHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

// notOf says why the body cannot be taken for one of the types, the first of which is the usual one, or "". A compressed
// body is refused: it would have to be inflated before its size is known.
func notOf(h *fasthttp.RequestHeader, types ...string) string {
	return wrongType(string(h.ContentType()), string(h.Peek(fasthttp.HeaderContentEncoding)), types...)
}

// wrongType is notOf for the two headers that matter.
func wrongType(contentType, encoding string, types ...string) string {
	if encoding != "" && encoding != "identity" {
		return "send the body without a Content-Encoding"
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil || !slices.Contains(types, kind) {
		return "send Content-Type: " + types[0]
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

// revisions returns those that an If-Match header names, nil if it does not matter: there is none, or it is "*". Only our
// own strong tags name one (RFC 9110, 13.1.1): what a client has seen weakly, it may not have seen whole.
func (e *Encoder) revisions(h *fasthttp.RequestHeader) (catalog.Revisions, *fieldError) {
	lines := h.PeekAll(fiber.HeaderIfMatch)
	if len(lines) == 0 {
		return nil, nil
	}
	seen := catalog.Revisions{}
	for _, line := range lines {
		text := strings.Trim(string(line), " \t")
		if text == "*" && len(lines) == 1 {
			return nil, nil
		}
		tags, ok := entityTags(text)
		if !ok {
			return nil, &fieldError{
				Pointer: fiber.HeaderIfMatch, Code: "invalid_etag", Detail: "must be * or a list of entity tags, with their quotes",
			}
		}
		for _, tag := range tags {
			if revision, ours := e.revisionOf(tag); ours {
				seen = append(seen, revision)
			}
		}
	}
	return seen, nil
}

// entityTags returns the tags of a list as they stand there, or false if it is none (RFC 9110, 8.8.3).
func entityTags(list string) (tags []string, ok bool) {
	for rest := list; ; {
		rest = strings.TrimLeft(rest, ", \t")
		if rest == "" {
			return tags, len(tags) > 0
		}
		weak := len(rest) - len(strings.TrimPrefix(rest, "W/"))
		opaque, after, closed := strings.Cut(strings.TrimPrefix(rest[weak:], `"`), `"`)
		if !strings.HasPrefix(rest[weak:], `"`) || !closed || strings.ContainsFunc(opaque, unfit) {
			return nil, false
		}
		tags = append(tags, rest[:weak]+`"`+opaque+`"`)
		if rest = strings.TrimLeft(after, " \t"); rest != "" && rest[0] != ',' {
			return nil, false
		}
	}
}

// unfit reports whether a character is none that can be seen: white space and what controls terminals.
func unfit(r rune) bool { return r <= ' ' || r == 0x7f }

// idempotencyKey returns a copy of the client's key, or "" if it sent none. It may stand between quotes, as the draft of the
// standard has it (draft-ietf-httpapi-idempotency-key-header), or without, as most have it: both are one key.
func idempotencyKey(h *fasthttp.RequestHeader) (string, *fieldError) {
	wrong := func(code, detail string) *fieldError {
		return &fieldError{Pointer: headerKey, Code: code, Detail: detail}
	}
	lines := h.PeekAll(headerKey)
	switch len(lines) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", wrong("repeated", "stands here more than once")
	}
	key := strings.Trim(string(lines[0]), " \t")
	if strings.HasPrefix(key, `"`) {
		var ok bool
		if key, ok = structuredString(key); !ok {
			return "", wrong("invalid_key", "begins with a quote, but is not one string in quotes")
		}
	}
	switch {
	case key == "":
		return "", wrong("required", "must not be empty")
	case len(key) > maxKey:
		return "", wrong("too_long", "at most 255 characters")
	case !visible(key):
		return "", wrong("invalid_key", "must be visible ASCII characters, without spaces")
	}
	return key, nil
}

// structuredString returns what a string of a structured field says (RFC 9651, 3.3.3), or false if it is not one.
func structuredString(quoted string) (string, bool) {
	var text strings.Builder
	for i := 1; i < len(quoted); i++ {
		switch quoted[i] {
		case '"':
			return text.String(), i == len(quoted)-1
		case '\\':
			if i++; i == len(quoted) || quoted[i] != '"' && quoted[i] != '\\' {
				return "", false
			}
		}
		text.WriteByte(quoted[i])
	}
	return "", false
}
