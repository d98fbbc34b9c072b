package config

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"vitrine.io/pkg/foundation/fault"
)

// fileVariable names the YAML file, unless the argument --config does.
const fileVariable = Prefix + "CONFIG"

// Load reads T from environ (as os.Environ gives it), the YAML file that --config or VITRINE_CONFIG names, and the
// defaults, in this order of precedence. args are the program's arguments without its name. An argument other than
// --config is an error, so a program calls Help before Load. Load also returns the variables that the program does not
// know. The error is an *Error that lists every invalid setting; T is then not valid.
func Load[T any](args, environ []string) (T, []Unknown, error) {
	var (
		cfg   T
		wrong problems
		s     = schemaOf[T]()
		vars  = variablesOf(environ)
	)
	path, label := configFile(args, vars, &wrong)
	r := resolver{
		layers: []map[string]setting{environmentLayer(vars), fileLayer(s, path, label, &wrong)},
		wrong:  &wrong, bad: map[string]bool{}, labels: map[string]string{},
	}
	r.fill(reflect.ValueOf(&cfg).Elem(), s)
	return cfg, unknown(s, vars), wrong.err()
}

// Hint adds the variables that are probably misspelled to the error of Load, because a variable that Load reports as
// missing may be among them.
func Hint(err error, unknown []Unknown) error {
	for _, name := range unknown {
		if name.Meant != "" {
			err = fmt.Errorf("%w\n  %s", err, name)
		}
	}
	return err
}

// setting is the value of a variable in one layer.
type setting struct {
	label   string // the variable's name, or the file and the key
	text    string
	list    []string
	listed  bool   // the value is list, not text
	detail  string // why the value is invalid, or ""
	refused bool   // its type is wrong, and the error is recorded already
}

// resolver finds each variable's value in the first layer that has it.
type resolver struct {
	layers []map[string]setting
	wrong  *problems
	bad    map[string]bool   // variables without a usable value
	labels map[string]string // where a variable's value came from
}

// fill sets every variable of the struct and validates its sections.
func (r *resolver) fill(root reflect.Value, s schema) {
	for _, v := range s.variables {
		root.FieldByIndex(v.index).Set(r.resolve(v))
	}
	r.validate(root, s.sections)
}

// documented returns the variables of T. A variable is required if Validate rejects its default.
func documented[T any]() []variable {
	var wrong problems
	s := schemaOf[T]()
	r := resolver{wrong: &wrong}
	r.fill(reflect.ValueOf(new(T)).Elem(), s)
	for i, v := range s.variables {
		s.variables[i].required = slices.ContainsFunc(wrong.fields, func(f fault.Field) bool { return f.Path == v.name })
	}
	return s.variables
}

// resolve returns the variable's value. If the value is invalid, resolve records the error and returns the default.
func (r *resolver) resolve(v variable) reflect.Value {
	fallback := reflect.Zero(v.typ)
	if v.defaultText != "" {
		fallback, _ = v.parse(v.defaultText)
	}
	for _, layer := range r.layers {
		given, ok := find(v, layer)
		if !ok {
			continue
		}
		r.labels[v.name] = given.label
		value := reflect.ValueOf(given.list)
		if !given.listed && !given.refused && given.detail == "" {
			value, given.detail = v.parse(given.text)
		}
		switch {
		case given.refused:
		case given.detail != "":
			r.wrong.add(given.label, "invalid", given.detail)
		default:
			return value
		}
		r.bad[v.name] = true
		return fallback
	}
	return fallback
}

// find looks a variable up in one layer. A layer may have a secret or the name of its file, but not both.
func find(v variable, layer map[string]setting) (given setting, ok bool) {
	given, ok = layer[v.name]
	named, viaFile := layer[v.name+fileSuffix]
	switch {
	case !v.secret || !viaFile:
		return given, ok
	case ok:
		given.detail = "is set, and so is " + named.label
		return given, true
	case named.refused:
		return named, true
	}
	secret, err := os.ReadFile(named.text) //nolint:gosec // the operator names the file
	named.text = strings.TrimSuffix(strings.TrimSuffix(string(secret), "\n"), "\r")
	switch {
	case err != nil:
		named.detail = err.Error()
	case named.text == "":
		named.detail = "the file is empty"
	}
	return named, true
}

// validate calls Validate of every section, and ignores results for variables that are known to be invalid.
func (r *resolver) validate(root reflect.Value, sections []section) {
	for _, s := range sections {
		part, ok := root.FieldByIndex(s.index).Addr().Interface().(interface{ Validate() []fault.Field })
		if !ok {
			continue
		}
		for _, f := range part.Validate() {
			name := s.prefix + f.Path
			if r.bad[name] {
				continue
			}
			if label := r.labels[name]; label != "" {
				name = label
			}
			r.wrong.add(name, f.Code, f.Detail)
		}
	}
}
