package httpapi

import (
	"regexp"
	"strings"

	"github.com/valyala/fasthttp"
)

// The headers that only this API or few others have, and the bounds of their values.
const (
	headerRequestID   = "X-Request-Id"
	headerTraceparent = "Traceparent"
	headerKey         = "Idempotency-Key"
	headerReplayed    = "Idempotent-Replayed"
	headerAcceptPatch = "Accept-Patch"

	maxRequestID = 128 // bytes
	maxKey       = 255 // characters
)

// fitForLog reports whether a client's request id is at most maxRequestID visible ASCII characters.
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

// traceparentForm is version-traceid-parentid-flags (https://www.w3.org/TR/trace-context/#traceparent-header).
var traceparentForm = regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}`)

// traceparent returns the client's trace context, or "" if there is no valid one.
func traceparent(h *fasthttp.RequestHeader) string {
	text := string(h.Peek(headerTraceparent))
	parts := traceparentForm.FindStringSubmatch(text)
	if parts == nil || parts[1] == "ff" || strings.Trim(parts[2], "0") == "" || strings.Trim(parts[3], "0") == "" {
		return ""
	}
	if rest := text[len(parts[0]):]; rest != "" && (parts[1] == "00" || rest[0] != '-') {
		return "" // only future versions may have more parts
	}
	return parts[0]
}

// unfit reports whether r is white space or a control character.
func unfit(r rune) bool { return r <= ' ' || r == 0x7f }

// idempotencyKey returns the key in the lines of the header, or "" if there is none. Quotes around the key, as in
// draft-ietf-httpapi-idempotency-key-header, are optional and not part of it.
func idempotencyKey(lines []string) (string, *fieldError) {
	wrong := func(code, detail string) *fieldError { return &fieldError{inHeader, headerKey, code, detail} }
	switch len(lines) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", wrong("repeated", "is given more than once")
	}
	key := strings.Trim(lines[0], " \t")
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

// quotedString is a string of a structured field (RFC 9651, 3.3.3), in which a backslash escapes a quote or a backslash.
var quotedString = regexp.MustCompile(`^"((?:[^"\\]|\\["\\])*)"$`)

// structuredString returns the value of a string of a structured field, or false if the text is not such a string.
func structuredString(quoted string) (string, bool) {
	found := quotedString.FindStringSubmatch(quoted)
	if found == nil {
		return "", false
	}
	return strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(found[1]), true
}
