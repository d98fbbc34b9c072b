package config

import (
	"fmt"
	"os"
	"reflect"
	"strings"

	"vitrine.io/pkg/foundation/fault"
)

// fileVariable names the YAML file, unless the argument --config does.
const fileVariable = Prefix + "CONFIG"

// Load reads T from environ (as os.Environ gives it), the YAML file that --config or VITRINE_CONFIG names, and the defaults,
// in this order of precedence. args are the program's arguments without its name; anything but --config is a mistake, so
// call Help before. Load also returns the variables that the program does not know. The error is an *Error with every
// mistake; T is not valid then.
func Load[T any](args, environ []string) (T, []Unknown, error) {
	var (
		cfg   T
		wrong problems
		s     = schemaOf[T]()
		vars  = variablesOf(environ)
	)
	path, label := configFile(args, vars, &wrong)
	r := resolver{
		layers: []map[string]setting{environmentLayer(s, vars), fileLayer(s, path, label, &wrong)},
		wrong:  &wrong, bad: map[string]bool{}, labels: map[string]string{},
	}
	r.fill(reflect.ValueOf(&cfg).Elem(), s)
	return cfg, unknown(s, vars), wrong.err()
}

// Hint adds the variables that are probably misspelled to the error of Load: a required variable may be among them.
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
	listed  bool // the value is list, not text
	refused bool // its type is wrong, which is reported already
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

// required returns the names of the variables whose defaults are refused.
func required[T any](s schema) map[string]bool {
	var wrong problems
	r := resolver{wrong: &wrong}
	r.fill(reflect.ValueOf(new(T)).Elem(), s)
	names := map[string]bool{}
	for _, f := range wrong.fields {
		names[f.Path] = true
	}
	return names
}

// resolve returns the variable's value, or its default after recording a mistake.
func (r *resolver) resolve(v variable) reflect.Value {
	fallback, _ := v.parse(v.defaultText)
	if v.defaultText == "" {
		fallback = reflect.Zero(v.typ)
	}
	for _, layer := range r.layers {
		given, ok, detail := find(v, layer)
		if !ok {
			continue
		}
		r.labels[v.name] = given.label
		if given.refused {
			r.bad[v.name] = true
			return fallback
		}
		if detail != "" {
			r.refuse(v, given.label, detail)
			return fallback
		}
		if given.listed {
			return reflect.ValueOf(given.list)
		}
		value, detail := v.parse(given.text)
		if detail != "" {
			r.refuse(v, given.label, detail)
			return fallback
		}
		return value
	}
	return fallback
}

func (r *resolver) refuse(v variable, label, detail string) {
	r.bad[v.name] = true
	r.wrong.add(label, "invalid", detail)
}

// find looks a variable up in one layer. A layer may have a secret or the name of its file, not both. detail is the mistake,
// or "".
func find(v variable, layer map[string]setting) (given setting, ok bool, detail string) {
	given, ok = layer[v.name]
	named, viaFile := layer[v.name+fileSuffix]
	switch {
	case !v.secret || !viaFile:
		return given, ok, ""
	case ok:
		return given, true, "is set, and so is " + named.label
	}
	if named.refused {
		return named, true, ""
	}
	secret, err := os.ReadFile(named.text) //nolint:gosec // the operator names the file
	if err != nil {
		return named, true, err.Error()
	}
	named.text = strings.TrimSuffix(strings.TrimSuffix(string(secret), "\n"), "\r")
	if named.text == "" {
		return named, true, "the file is empty"
	}
	return named, true, ""
}

// validate calls Validate of every section, and ignores results for variables that are wrong already.
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
