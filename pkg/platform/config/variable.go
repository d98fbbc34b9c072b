package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Prefix begins the name of every variable.
const Prefix = "VITRINE_"

// fileSuffix is appended to a secret's name for the variable that names a file with the secret.
const fileSuffix = "_FILE"

// The kinds of variables, as in help texts.
const (
	kindText     = "text"
	kindList     = "list"
	kindBool     = "true or false"
	kindWhole    = "whole number"
	kindNumber   = "number"
	kindDuration = "duration"
)

// variable is a field of a configuration struct with the values of its tags.
type variable struct {
	name        string // VITRINE_POSTGRES_DSN
	path        string // postgres.dsn
	index       []int  // for reflect.Value.FieldByIndex
	typ         reflect.Type
	defaultText string // envDefault
	desc        string
	secret      bool
	required    bool // only [documented] sets it
}

// section is a nested struct of the configuration.
type section struct {
	prefix string // VITRINE_POSTGRES_
	index  []int
}

// schema has the variables and sections of a configuration struct, in the order of its fields.
type schema struct {
	variables []variable
	sections  []section // outermost first
}

func schemaOf[T any]() schema {
	typ := reflect.TypeFor[T]()
	if typ.Kind() != reflect.Struct {
		panic(fmt.Sprintf("config: %s is not a struct", typ))
	}
	var s schema
	s.walk(typ, section{prefix: Prefix}, "")
	s.checkNames()
	return s
}

func (s *schema) walk(typ reflect.Type, at section, path string) {
	s.sections = append(s.sections, at)
	for f := range typ.Fields() {
		key := f.Tag.Get("env")
		if !f.IsExported() || key == "-" {
			continue
		}
		index := append(append([]int(nil), at.index...), f.Index...)
		where := typ.String() + "." + f.Name
		if key == "" && f.Type.Kind() == reflect.Struct {
			prefix := f.Tag.Get("envPrefix")
			if prefix != strings.ToUpper(prefix) || (prefix != "" && !strings.HasSuffix(prefix, "_")) {
				panic(fmt.Sprintf("config: %s: envPrefix %q is not UPPER_CASE_", where, prefix))
			}
			inner := path
			if prefix != "" {
				inner += strings.ToLower(strings.TrimSuffix(prefix, "_")) + "."
			}
			s.walk(f.Type, section{prefix: at.prefix + prefix, index: index}, inner)
			continue
		}
		v := variable{
			name: at.prefix + key, path: path + strings.ToLower(key), index: index, typ: f.Type,
			defaultText: f.Tag.Get("envDefault"), desc: f.Tag.Get("desc"), secret: f.Tag.Get("secret") == "true",
		}
		v.checkTags(key, where)
		s.variables = append(s.variables, v)
	}
}

// checkTags panics unless the tags are complete and consistent.
func (v variable) checkTags(key, where string) {
	switch {
	case key == "" || key != strings.ToUpper(key) || strings.Contains(key, ","):
		panic(fmt.Sprintf(`config: %s: env %q is not a name in UPPER_CASE (env:"-" leaves a field out)`, where, key))
	case v.desc == "":
		panic(fmt.Sprintf("config: %s has no desc", where))
	case v.kind() == "":
		panic(fmt.Sprintf("config: %s: type %s is not supported", where, v.typ))
	case v.secret && v.defaultText != "":
		panic(fmt.Sprintf("config: %s: a secret cannot have a default", where))
	}
	if _, problem := v.parse(v.defaultText); v.defaultText != "" && problem != "" {
		panic(fmt.Sprintf("config: %s: the default %s", where, problem))
	}
}

// checkNames panics if two fields have the same name.
func (s schema) checkNames() {
	seen := map[string]bool{}
	for _, v := range s.variables {
		for _, name := range v.names() {
			if seen[name] {
				panic("config: two fields are called " + name)
			}
			seen[name] = true
		}
	}
	paths := s.paths()
	for path := range paths {
		for dot := strings.LastIndexByte(path, '.'); dot > 0; dot = strings.LastIndexByte(path[:dot], '.') {
			if _, isValue := paths[path[:dot]]; isValue {
				panic("config: the file's key " + path[:dot] + " is both a value and a section")
			}
		}
	}
}

// names returns the variable's name, and for a secret also that of its file.
func (v variable) names() []string {
	if v.secret {
		return []string{v.name, v.name + fileSuffix}
	}
	return []string{v.name}
}

// paths returns every key of the file with its variable.
func (s schema) paths() map[string]variable {
	paths := make(map[string]variable, len(s.variables))
	for _, v := range s.variables {
		paths[v.path] = v
		if v.secret {
			paths[v.path+strings.ToLower(fileSuffix)] = v
		}
	}
	return paths
}

// kind returns the name of the variable's type in help texts, or "" if the type is not supported.
func (v variable) kind() string {
	switch zero := reflect.Zero(v.typ); {
	case v.typ == reflect.TypeFor[time.Duration]():
		return kindDuration
	case v.typ == reflect.TypeFor[[]string]():
		return kindList
	case zero.Kind() == reflect.String:
		return kindText
	case zero.Kind() == reflect.Bool:
		return kindBool
	case zero.CanInt() || zero.CanUint():
		return kindWhole
	case zero.CanFloat():
		return kindNumber
	default:
		return ""
	}
}
