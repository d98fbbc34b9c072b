package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v2"

	"vitrine.io/pkg/foundation/fault"
)

const (
	maxErrors = 100 // reported at once; a document with more is not an ImagePipeline
	maxItems  = 256 // of any list: bounds the expansion of repeated YAML aliases
	maxText   = 32  // of a duration or a number of bytes, in characters, as in the schema of the resource
)

// reader decodes a document into typed values and collects all errors.
//
// It walks the tree itself, because encoding/json stops at the first error, ignores the case of names, does not distinguish
// a missing value from a zero, and reports no path.
type reader struct {
	wrong  []fault.Field
	seen   map[string]bool // paths of fields in the document
	broken map[string]bool // paths of values of the wrong type: further errors at or below them are dropped
}

// add adds an error, at most one for each path, and none at or below a value of the wrong type.
func (r *reader) add(path, code, detail string) {
	if len(r.wrong) >= maxErrors || !r.readable(path) {
		return
	}
	if !slices.ContainsFunc(r.wrong, func(f fault.Field) bool { return f.Path == path }) {
		r.wrong = append(r.wrong, fault.Field{Path: path, Code: code, Detail: detail})
	}
}

// unreadable adds the error that the value at path has the wrong type.
func (r *reader) unreadable(path, detail string) {
	r.add(path, "wrong_type", detail)
	r.broken[path] = true
}

// readable reports whether neither the value at path nor one above it was of the wrong type.
func (r *reader) readable(path string) bool {
	if r.broken[""] || r.broken[path] {
		return false
	}
	for i, c := range path {
		if (c == '.' || c == '[') && r.broken[path[:i]] {
			return false
		}
	}
	return true
}

// document decodes the one YAML or JSON document in data. Mappings are yaml.MapSlice, which keeps repeated keys.
func document(data []byte) (any, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	root := yaml.MapSlice{}
	switch err := decoder.Decode(&root); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the document is empty")
	case err != nil:
		return nil, err
	case len(root) == 0: // the decoder returns this for an empty list too
		return nil, errors.New("there is no field")
	}
	var more any
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one document")
	}
	return root, nil
}

// value decodes raw into out, which holds the default.
func (r *reader) value(path string, raw any, out reflect.Value) {
	r.seen[path] = true
	switch out.Kind() {
	case reflect.Struct:
		r.object(path, raw, out)
	case reflect.Slice:
		r.list(path, raw, out)
	case reflect.Pointer:
		out.Set(reflect.New(out.Type().Elem()))
		r.value(path, raw, out.Elem())
	default:
		if err := decodeScalar(reflect.ValueOf(raw), out); err != nil {
			r.unreadable(path, err.Error())
		}
	}
}

func (r *reader) object(path string, raw any, out reflect.Value) {
	items, ok := raw.(yaml.MapSlice)
	if !ok {
		r.unreadable(path, "must be a mapping")
		return
	}
	var known []string
	for field := range out.Type().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		known = append(known, name)
	}
	for _, item := range items {
		name := fmt.Sprint(item.Key)
		at := join(path, name)
		index := slices.Index(known, name)
		switch {
		case ignored(path, name):
		case index < 0 && movedTo(at) != "":
			r.add(at, "unknown_field", movedTo(at))
		case index < 0:
			r.add(at, "unknown_field", "is not a field here: there are "+strings.Join(known, ", "))
		case r.seen[at]:
			r.add(at, "duplicate_field", "is given twice")
		default:
			r.value(at, item.Value, out.Field(index))
		}
	}
}

// objectMeta are the fields of an object's metadata that the API server returns beside the name.
var objectMeta = []string{
	"annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName",
	"generation", "labels", "managedFields", "namespace", "ownerReferences", "resourceVersion", "selfLink", "uid",
}

// ignored reports whether a field of the mapping at path belongs to the cluster: an object that kubectl prints is a valid
// document, too.
func ignored(path, name string) bool {
	return path == "" && name == "status" || path == "metadata" && slices.Contains(objectMeta, name)
}

func (r *reader) list(path string, raw any, out reflect.Value) {
	items, ok := raw.([]any)
	switch {
	case !ok:
		r.unreadable(path, "must be a list")
		return
	case len(items) > maxItems:
		r.unreadable(path, fmt.Sprintf("has %d entries, more than any list here may have", len(items)))
		return
	}
	out.Set(reflect.MakeSlice(out.Type(), len(items), len(items)))
	for i, item := range items {
		r.value(fmt.Sprintf("%s[%d]", path, i), item, out.Index(i))
	}
}

// decodeScalar decodes raw into out, which stays unchanged after an error. The YAML decoder returns an integer as the first
// of int, int64 and uint64 that holds it; a value that only uint64 holds is not accepted.
func decodeScalar(raw, out reflect.Value) error {
	text := ""
	if raw.Kind() == reflect.String {
		text = raw.String()
	}
	switch target := out.Addr().Interface().(type) {
	case *Duration:
		return target.parse(text)
	case *Bytes:
		if !raw.CanInt() {
			return target.parse(text)
		}
	}
	switch kind := out.Kind(); {
	case kind == raw.Kind() && !out.CanInt(), kind == reflect.Float64 && raw.CanInt():
		out.Set(raw.Convert(out.Type()))
	case out.CanInt() && raw.CanInt() && !out.OverflowInt(raw.Int()):
		out.SetInt(raw.Int())
	case out.CanInt():
		return errors.New("must be a whole number")
	default:
		return errors.New(map[reflect.Kind]string{
			reflect.String:  "must be text (in quotes, if it looks like something else)",
			reflect.Bool:    "must be true or false",
			reflect.Float64: "must be a number",
		}[kind])
	}
	return nil
}

// join appends a field's name to a path: "spec" and "limits" make "spec.limits".
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
