package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/fault"
)

// object is a JSON object that is being read field by field: a wrong field is noted, and the reading goes on. Nothing of it
// aliases the request's body.
type object struct {
	raw   map[string]json.RawMessage
	names []string // as the client ordered them, without those already read
	wrong fieldErrors
}

// parseObject reads body. A body that is not JSON is an httpError; one that is not an object is a fieldErrors.
func parseObject(body []byte) (*object, error) {
	if !utf8.Valid(body) {
		return nil, &httpError{codeBadJSON, "the body is not UTF-8"}
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return nil, &httpError{codeBadJSON, "the body is not JSON" + where(err)}
	}
	o := &object{raw: map[string]json.RawMessage{}}
	dec := json.NewDecoder(bytes.NewReader(whole))
	if first, err := dec.Token(); err != nil || first != json.Delim('{') {
		o.refuse("", "wrong_type", "must be an object")
		return nil, o.wrong
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
		if _, twice := o.raw[name]; twice {
			o.refuse(pointer(name), "repeated", "stands here more than once")
			continue
		}
		o.raw[name] = value
		o.names = append(o.names, name)
	}
	return o, nil
}

// where says at which byte the JSON breaks, counted from 1.
func where(err error) string {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return ""
	}
	return fmt.Sprintf(", at byte %d: %s", syntax.Offset, syntax.Error())
}

// pointer returns the RFC 6901 pointer of a field, cut to a length that may be shown.
func pointer(name string) string {
	const longest = 100 // bytes
	if len(name) > longest {
		name = strings.ToValidUTF8(name[:longest], "") + "…"
	}
	return "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

func (o *object) refuse(pointer, code, detail string) {
	o.wrong.add(pointer, code, detail)
}

// note adds what is wrong elsewhere in the request, if anything.
func (o *object) note(wrong *fieldError) {
	if wrong != nil {
		o.wrong = append(o.wrong, *wrong)
	}
}

// has reports whether there is such a field that has not been read yet, whatever its value.
func (o *object) has(name string) bool { return slices.Contains(o.names, name) }

// null reports whether a field is there and null, and marks it as read if it is.
func (o *object) null(name string) bool {
	if !o.has(name) || string(o.raw[name]) != "null" {
		return false
	}
	o.take(name)
	return true
}

// take returns a field's value and marks it as read.
func (o *object) take(name string) (json.RawMessage, bool) {
	value, ok := o.raw[name]
	if ok {
		o.names = slices.DeleteFunc(o.names, func(n string) bool { return n == name })
	}
	return value, ok
}

// text reads a string; one that is absent is "".
func (o *object) text(name string) string {
	value, ok := o.take(name)
	if !ok {
		return ""
	}
	text, ok := unquote(value)
	if !ok {
		o.refuse(pointer(name), "wrong_type", "must be a string")
	}
	return text
}

// texts reads an array of strings; one that is absent is nil. A wrong element leaves "" in its place.
func (o *object) texts(name string) []string {
	value, ok := o.take(name)
	if !ok {
		return nil
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(value, &elements); err != nil || value[0] != '[' {
		o.refuse(pointer(name), "wrong_type", "must be an array of strings")
		return nil
	}
	texts := make([]string, len(elements))
	for i, element := range elements {
		if texts[i], ok = unquote(element); !ok && len(o.wrong) < maxFields {
			o.refuse(pointer(name)+"/"+strconv.Itoa(i), "wrong_type", "must be a string")
		}
	}
	return texts
}

// whole reads a whole number; one that is absent is 0.
func (o *object) whole(name string) int64 {
	value, ok := o.take(name)
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		o.refuse(pointer(name), "out_of_range", "is too large a number")
	case err != nil:
		o.refuse(pointer(name), "wrong_type", "must be a whole number")
	}
	return n
}

// price reads a price: a JSON number, or a string that is written like one. It reports whether there is one.
func (o *object) price(name string) (decimal.Decimal, bool) {
	value, ok := o.take(name)
	if !ok {
		return decimal.Zero, false
	}
	text, quoted := unquote(value)
	if !quoted {
		text = string(value)
	}
	if !quoted && text[0] != '-' && (text[0] < '0' || text[0] > '9') {
		o.refuse(pointer(name), "wrong_type", "must be a number, or a string that holds one")
		return decimal.Zero, false
	}
	price, wrong := parsePrice(text)
	if wrong != nil {
		o.refuse(pointer(name), wrong.Code, wrong.Detail)
	}
	return price, wrong == nil
}

// refuseRest notes every field that nobody asked for.
func (o *object) refuseRest() {
	for _, name := range o.names[:min(len(o.names), maxFields)] {
		o.refuse(pointer(name), "unknown_field", "there is no such field")
	}
}

// verdict returns an error with every wrong field: those that could not be read, and those that more says are wrong, except
// what it says about a field that could not be read in the first place.
func (o *object) verdict(more []fault.Field) error {
	return o.wrong.merge(inBody(more)).orNil()
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
