package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/caarlos0/env/v11"
)

// parse reads the variable's value from text. problem is "", or the rest of a sentence that begins with the variable's
// name.
func (v variable) parse(text string) (value reflect.Value, problem string) {
	if v.kind() == kindList {
		return reflect.ValueOf(splitList(text)), ""
	}
	// A struct with one field, because the library's errors name the field, not the variable.
	holder := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "Value", Type: v.typ, Tag: `env:"V"`}}))
	err := env.ParseWithOptions(holder.Interface(), env.Options{Environment: map[string]string{"V": text}})
	value = holder.Elem().Field(0)
	if err == nil && value.CanFloat() && (math.IsNaN(value.Float()) || math.IsInf(value.Float(), 0)) {
		err = strconv.ErrSyntax // a range check does not reject a NaN
	}
	if err != nil {
		return reflect.Zero(v.typ), v.quote(text) + " " + v.problem(err)
	}
	return value, ""
}

// problem describes an error of parse.
func (v variable) problem(err error) string {
	var parse env.ParseError // it does not implement Unwrap
	if errors.As(err, &parse) && errors.Is(parse.Err, strconv.ErrRange) {
		return "is out of range"
	}
	switch v.kind() {
	case kindDuration:
		return "is not a duration, such as 500ms, 30s or 10m"
	case kindBool:
		return "is not true or false"
	default:
		return "is not a " + v.kind()
	}
}

// quote returns a value for an error text: quoted, at most maxLength bytes, and no secret.
func (v variable) quote(text string) string {
	const maxLength = 60
	switch {
	case v.secret:
		return "the value"
	case len(text) > maxLength:
		return strconv.Quote(text[:maxLength]) + "..."
	default:
		return strconv.Quote(text)
	}
}

// splitList reads "a, b" as a and b; empty elements are dropped.
func splitList(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// Redacted replaces the value of a secret.
const Redacted = "***"

// Values has a configuration's values by variable, without secrets.
type Values map[string]string

// Effective returns the values of cfg, with secrets redacted, for the log.
func Effective[T any](cfg T) Values {
	root := reflect.ValueOf(cfg)
	variables := schemaOf[T]().variables
	values := make(Values, len(variables))
	for _, v := range variables {
		values[v.name] = v.show(root.FieldByIndex(v.index))
	}
	return values
}

func (v variable) show(value reflect.Value) string {
	text := fmt.Sprint(value.Interface())
	if list, ok := value.Interface().([]string); ok {
		text = strings.Join(list, ",")
	}
	if v.secret && !value.IsZero() && text != "" {
		return Redacted
	}
	return text
}
