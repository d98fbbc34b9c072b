package config

import (
	"slices"
	"strings"

	"vitrine.io/pkg/foundation/fault"
)

// Error is the error of a configuration that is not valid. Each field's Path is the name of a variable, a key of the file,
// or an argument.
type Error struct {
	Fields []fault.Field
}

// Error lists every invalid setting on a line of its own.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("the configuration is not valid:")
	for _, f := range e.Fields {
		b.WriteString("\n  " + f.Path + ": " + f.Detail)
	}
	return b.String()
}

// problems collects invalid settings.
type problems struct {
	fields []fault.Field
}

// add records an invalid setting once, because an embedded struct and the struct around it may both report it.
func (p *problems) add(name, code, detail string) {
	f := fault.Field{Path: name, Code: code, Detail: detail}
	if !slices.Contains(p.fields, f) {
		p.fields = append(p.fields, f)
	}
}

func (p *problems) err() error {
	if len(p.fields) == 0 {
		return nil
	}
	return &Error{Fields: p.fields}
}
