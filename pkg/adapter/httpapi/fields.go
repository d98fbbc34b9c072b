package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/foundation/fault"
)

// fieldReader reads a JSON object field by field. It records a wrong field and continues. Its results do not alias the
// request's body.
type fieldReader struct {
	raw   map[string]json.RawMessage
	names []string // as the client ordered them, without those already read
	wrong fieldErrors
}

// newFieldReader parses body. It returns an *httpError if body is not JSON, and a fieldErrors if it is not an object.
// outside are the errors of headers and parameters, which finish returns together with those of the fields.
func newFieldReader(body []byte, outside fieldErrors) (*fieldReader, error) {
	if !utf8.Valid(body) {
		return nil, &httpError{codeBadJSON, "the body is not UTF-8"}
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return nil, &httpError{codeBadJSON, "the body is not JSON" + where(err)}
	}
	r := &fieldReader{raw: map[string]json.RawMessage{}, wrong: outside}
	dec := json.NewDecoder(bytes.NewReader(whole))
	if first, err := dec.Token(); err != nil || first != json.Delim('{') {
		r.wrong.add(inBody, "", "wrong_type", "must be an object, not "+kindOf(whole))
		return nil, r.wrong
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

// kindOf names the type of a JSON value.
func kindOf(value json.RawMessage) string {
	switch value[0] {
	case 'n':
		return "null"
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case 't', 'f':
		return "a boolean"
	default:
		return "a number"
	}
}

func (r *fieldReader) refuse(name, code, detail string) {
	r.wrong.add(inBody, pointer(name), code, detail)
}

// refuseType refuses a value that is not of the type that want names.
func (r *fieldReader) refuseType(name, want string, value json.RawMessage) {
	r.refuse(name, "wrong_type", "must be "+want+", not "+kindOf(value))
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

// ignoreNull makes fields that are null absent.
func (r *fieldReader) ignoreNull(names ...string) {
	for _, name := range names {
		if r.null(name) {
			delete(r.raw, name)
		}
	}
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
	text, wrong := readString(value)
	if wrong != nil {
		r.refuse(name, wrong.Code, wrong.Detail)
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
		r.refuseType(name, "an array of strings", value)
		return nil
	}
	texts := make([]string, len(elements))
	for i, element := range elements {
		var wrong *fieldError
		if texts[i], wrong = readString(element); wrong != nil && len(r.wrong) < maxFields {
			r.wrong.add(inBody, pointer(name)+"/"+strconv.Itoa(i), wrong.Code, wrong.Detail)
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
	if kindOf(value) != "a number" {
		r.refuseType(name, "a whole number", value)
		return 0
	}
	n, wrong := parseWhole(string(value))
	if wrong != nil {
		r.refuse(name, wrong.Code, wrong.Detail)
	}
	return n
}

// boolean reads true or false; one that is absent is false.
func (r *fieldReader) boolean(name string) bool {
	value, ok := r.take(name)
	if ok && kindOf(value) != "a boolean" {
		r.refuseType(name, "true or false", value)
	}
	return string(value) == "true"
}

// between reads a whole number in a range, and returns 0 if the field is absent.
func (r *fieldReader) between(name string, lowest, highest int64) int64 {
	present, wrong := r.has(name), len(r.wrong)
	n := r.whole(name)
	if present && len(r.wrong) == wrong && (n < lowest || n > highest) {
		detail := fmt.Sprintf("a whole number from %d to %d", lowest, highest)
		if highest == math.MaxInt64 {
			detail = fmt.Sprintf("must be at least %d", lowest)
		}
		r.refuse(name, "out_of_range", detail)
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
	if !quoted && kindOf(value) != "a number" {
		r.refuseType(name, "a number or a string that holds one", value)
		return decimal.Zero, false
	}
	price, wrong := parseNumber(text)
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
	return r.wrong.merge(bodyFields(invalid)).orNil()
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

// readString returns a copy of a JSON string's text, or says what is wrong with the value. encoding/json would replace half
// of a surrogate pair by U+FFFD, and the client would not learn that its text was changed.
func readString(value json.RawMessage) (string, *fieldError) {
	text, ok := unquote(value)
	if !ok {
		return "", &fieldError{Code: "wrong_type", Detail: "must be a string, not " + kindOf(value)}
	}
	if escape := loneSurrogate(value); escape != "" {
		return "", &fieldError{Code: "invalid_text", Detail: "must not contain half of a surrogate pair: " + escape}
	}
	return text, nil
}

const escapeLength = len(`\u0000`)

// loneSurrogate returns the first escape of a valid JSON string that is half of a surrogate pair without the other half, or
// "".
func loneSurrogate(quoted []byte) string {
	for i := 0; i < len(quoted); i++ {
		if quoted[i] != '\\' {
			continue
		}
		first := escapedUnit(quoted[i:])
		switch {
		case first < 0:
			i++ // the character after the backslash
			continue
		case utf16.IsSurrogate(first) && utf16.DecodeRune(first, escapedUnit(quoted[i+escapeLength:])) == utf8.RuneError:
			return string(quoted[i : i+escapeLength])
		case utf16.IsSurrogate(first):
			i += escapeLength // the first half
		}
		i += escapeLength - 1
	}
	return ""
}

// escapedUnit returns the UTF-16 unit of the escape, such as \u00e9, at the beginning of text, or -1 if there is none.
func escapedUnit(text []byte) rune {
	if len(text) < escapeLength || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	unit, err := strconv.ParseUint(string(text[2:escapeLength]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(unit)
}
