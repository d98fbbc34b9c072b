package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gofiber/fiber/v2"
	"github.com/shopspring/decimal"
	"github.com/valyala/fasthttp"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

const (
	headerRequestID   = "X-Request-Id"
	headerTraceparent = "Traceparent"
	headerKey         = "Idempotency-Key"
	headerReplayed    = "Idempotent-Replayed"
	headerAcceptPatch = "Accept-Patch"

	maxRequestID = 128 // bytes
	maxKey       = 255 // characters

	maxPriceLength   = 32 // characters: numeric(12,2) needs 14, with sign and point
	maxPriceExponent = 20 // 1e999999999 has eleven characters, but a calculation with it needs a gigabyte of digits

	mimeMergePatch = "application/merge-patch+json" // RFC 7396
)

// requestBody returns the request's body if its Content-Type is one of types. It is valid only until the handler returns.
func requestBody(c *fiber.Ctx, types ...string) ([]byte, error) {
	h := &c.Request().Header
	if err := checkMediaType(string(h.ContentType()), string(h.Peek(fiber.HeaderContentEncoding)), types...); err != nil {
		return nil, err
	}
	return c.Request().Body(), nil
}

// checkMediaType rejects a body whose type is not in types; the error recommends the first of them. It also rejects a
// compressed body, because its size is known only after it is decompressed.
func checkMediaType(contentType, encoding string, types ...string) error {
	if encoding != "" && encoding != "identity" {
		return &httpError{codeMediaType, "send the body without a Content-Encoding"}
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil || !slices.Contains(types, kind) {
		return &httpError{codeMediaType, "send Content-Type: " + types[0]}
	}
	return nil
}

// checkNoBody rejects a body where none is expected, because a client that sends one expects it to have an effect.
func checkNoBody(c *fiber.Ctx) error {
	if len(c.Request().Body()) == 0 {
		return nil
	}
	return fieldErrors{{Code: "unexpected", Detail: "this request must have no body"}}
}

// productID returns the product's id in the path, or fault.NotFound if the path has no valid id.
func productID(c *fiber.Ctx) (catalog.ProductID, error) {
	id, ok := parseID(c.Params("id"))
	if !ok {
		return 0, fault.New(fault.NotFound, "product_not_found", "there is no such product")
	}
	return catalog.ProductID(id), nil
}

// parseID reads an id of a path: a positive whole number in its shortest spelling. "+1" and "01" are not valid.
func parseID(text string) (int64, bool) {
	if text == "" || text[0] < '1' || text[0] > '9' {
		return 0, false
	}
	id, err := strconv.ParseInt(text, 10, 64)
	return id, err == nil
}

// fieldReader reads a JSON object field by field. It records a wrong field and continues. Its results do not alias the
// request's body.
type fieldReader struct {
	raw   map[string]json.RawMessage
	names []string // names of the fields that are not read yet, in the client's order
	wrong fieldErrors
}

// newFieldReader parses body. It returns an *httpError if body is not JSON, and a fieldErrors if it is not an object.
func newFieldReader(body []byte) (*fieldReader, error) {
	if !utf8.Valid(body) {
		return nil, &httpError{codeBadJSON, "the body is not UTF-8"}
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return nil, &httpError{codeBadJSON, "the body is not JSON" + where(err)}
	}
	r := &fieldReader{raw: map[string]json.RawMessage{}}
	dec := json.NewDecoder(bytes.NewReader(whole))
	if first, err := dec.Token(); err != nil || first != json.Delim('{') {
		return nil, fieldErrors{{Code: "wrong_type", Detail: "must be an object"}}
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, &httpError{codeBadJSON, "the body is not JSON" + where(err)}
		}
		name, _ := token.(string)
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, &httpError{codeBadJSON, "the body is not JSON" + where(err)}
		}
		if _, twice := r.raw[name]; twice {
			r.refuse(name, "repeated", "is given more than once")
			continue
		}
		r.raw[name] = value
		r.names = append(r.names, name)
	}
	return r, nil
}

// where returns the position of the first invalid byte of the JSON, counted from 1.
func where(err error) string {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return ""
	}
	return fmt.Sprintf(", at byte %d: %s", syntax.Offset, syntax.Error())
}

// pointer returns the RFC 6901 pointer of a field, truncated to a length that fits into an error.
func pointer(name string) string {
	const maxLength = 100 // bytes
	if len(name) > maxLength {
		name = strings.ToValidUTF8(name[:maxLength], "") + "…"
	}
	return "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

func (r *fieldReader) refuse(name, code, detail string) { r.wrong.add(pointer(name), code, detail) }

// addWrong adds a wrong header, if there is one.
func (r *fieldReader) addWrong(wrong *fieldError) {
	if wrong != nil {
		r.wrong = append(r.wrong, *wrong)
	}
}

// has reports whether the field is present and has not been read yet.
func (r *fieldReader) has(name string) bool { return slices.Contains(r.names, name) }

// null reports whether a field is present and null, and marks it as read if it is.
func (r *fieldReader) null(name string) bool {
	if !r.has(name) || string(r.raw[name]) != "null" {
		return false
	}
	r.take(name)
	return true
}

// take returns a field's value and marks it as read.
func (r *fieldReader) take(name string) (json.RawMessage, bool) {
	value, ok := r.raw[name]
	if ok {
		r.names = slices.DeleteFunc(r.names, func(n string) bool { return n == name })
	}
	return value, ok
}

// text reads a string, and returns "" if the field is absent.
func (r *fieldReader) text(name string) string {
	value, ok := r.take(name)
	if !ok {
		return ""
	}
	text, ok := unquote(value)
	if !ok {
		r.refuse(name, "wrong_type", "must be a string")
	}
	return text
}

// given reads a string, and reports whether the field is present.
func (r *fieldReader) given(name string) (string, bool) {
	present, wrong := r.has(name), len(r.wrong)
	text := r.text(name)
	return text, present && len(r.wrong) == wrong
}

// texts reads an array of strings, and returns nil if the field is absent. A wrong element becomes "".
func (r *fieldReader) texts(name string) []string {
	value, ok := r.take(name)
	if !ok {
		return nil
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(value, &elements); err != nil || value[0] != '[' {
		r.refuse(name, "wrong_type", "must be an array of strings")
		return nil
	}
	texts := make([]string, len(elements))
	for i, element := range elements {
		if texts[i], ok = unquote(element); !ok && len(r.wrong) < maxFields {
			r.wrong.add(pointer(name)+"/"+strconv.Itoa(i), "wrong_type", "must be a string")
		}
	}
	return texts
}

// whole reads a whole number, and returns 0 if the field is absent.
func (r *fieldReader) whole(name string) int64 {
	value, ok := r.take(name)
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		r.refuse(name, "out_of_range", "is too large a number")
	case err != nil:
		r.refuse(name, "wrong_type", "must be a whole number")
	}
	return n
}

// between reads a whole number in a range, and returns 0 if the field is absent.
func (r *fieldReader) between(name string, lowest, highest int64) int64 {
	present, wrong := r.has(name), len(r.wrong)
	n := r.whole(name)
	if present && len(r.wrong) == wrong && (n < lowest || n > highest) {
		r.refuse(name, "out_of_range", fmt.Sprintf("a whole number from %d to %d", lowest, highest))
	}
	return n
}

// price reads a price: a JSON number, or a string that contains one. It reports whether the field is present.
func (r *fieldReader) price(name string) (decimal.Decimal, bool) {
	value, ok := r.take(name)
	if !ok {
		return decimal.Zero, false
	}
	text, quoted := unquote(value)
	if !quoted {
		text = string(value)
	}
	if !quoted && text[0] != '-' && (text[0] < '0' || text[0] > '9') {
		r.refuse(name, "wrong_type", "must be a number, or a string that holds one")
		return decimal.Zero, false
	}
	price, wrong := parsePrice(text)
	if wrong != nil {
		r.refuse(name, wrong.Code, wrong.Detail)
	}
	return price, wrong == nil
}

// finish returns an error with every wrong field, or nil. A field that was not read is unknown and therefore wrong.
// invalid has the fields that the catalogue rejects; those that could not be read are left out.
func (r *fieldReader) finish(invalid []fault.Field) error {
	for _, name := range r.names[:min(len(r.names), maxFields)] {
		r.refuse(name, "unknown_field", "there is no such field")
	}
	return r.wrong.merge(inBody(invalid)).orNil()
}

// unquote returns a copy of a JSON string's text, or false for anything else.
func unquote(value json.RawMessage) (string, bool) {
	if len(value) == 0 || value[0] != '"' {
		return "", false
	}
	var text string
	err := json.Unmarshal(value, &text)
	return text, err == nil
}

// parsePrice reads a number in JSON's notation without rounding, or returns the reason why it cannot. The result does not
// alias text.
func parsePrice(text string) (decimal.Decimal, *fieldError) {
	notANumber := &fieldError{Code: "not_a_number", Detail: "must be a decimal number such as 19.90"}
	if len(text) > maxPriceLength {
		return decimal.Zero, &fieldError{Code: "out_of_range", Detail: "must have at most 32 characters"}
	}
	if !isNumber(text) {
		return decimal.Zero, notANumber
	}
	mantissa, exponent := text, 0
	if e := strings.IndexAny(text, "eE"); e >= 0 {
		var err error
		mantissa = text[:e]
		if exponent, err = strconv.Atoi(text[e+1:]); err != nil || exponent > maxPriceExponent || exponent < -maxPriceExponent {
			return decimal.Zero, &fieldError{Code: "out_of_range", Detail: "must have an exponent from -20 to 20"}
		}
	}
	price, err := decimal.NewFromString(mantissa)
	if err != nil {
		return decimal.Zero, notANumber
	}
	return price.Shift(int32(exponent)), nil //nolint:gosec // at most maxPriceExponent
}

// isNumber reports whether text is a JSON number: valid JSON that begins and ends like a number.
func isNumber(text string) bool {
	return text != "" && (text[0] == '-' || isDigit(text[0])) && isDigit(text[len(text)-1]) && json.Valid([]byte(text))
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

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
		return "" // version 00 has exactly four parts; later versions may have more
	}
	return parts[0]
}

// unfit reports whether r is white space or a control character.
func unfit(r rune) bool { return r <= ' ' || r == 0x7f }

// idempotencyKey returns a copy of the client's key, or "" if it sent none. Quotes around the key, as in
// draft-ietf-httpapi-idempotency-key-header, are optional and not part of it.
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
		return "", wrong("repeated", "is given more than once")
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
