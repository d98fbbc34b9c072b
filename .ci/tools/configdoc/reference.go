package main

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// introduction is the text of the page before the table.
//
//go:embed introduction.md
var introduction string

// prefix is the prefix of all variables.
const prefix = "VITRINE_"

// required is the default that a table shows for a required variable.
const required = "required"

// variable is one row of a program's table.
type variable struct {
	name, kind, fallback, meaning string // cells of the table, as Markdown
	part                          string // such as "http", for VITRINE_HTTP_ADDR
	programs                      []string
}

// reference holds the variables of all programs, in the order of their first table.
type reference struct {
	programs  []string
	variables []*variable
}

// add adds a program's table, the output of --help-markdown.
func (r *reference) add(program, table string) error {
	r.programs = append(r.programs, program)
	rows := 0
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| `") {
			continue // the head
		}
		rows++
		v, err := parse(strings.TrimSpace(line))
		if err != nil {
			return err
		}
		if err := r.merge(program, v); err != nil {
			return err
		}
	}
	if rows == 0 {
		return errors.New("there are no rows")
	}
	return nil
}

// parse parses a row: name, key in the file, type, default, meaning.
func parse(row string) (*variable, error) {
	cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(row, "| "), " |"), " | ")
	if len(cells) != 5 {
		return nil, fmt.Errorf("%q has %d cells, want 5", row, len(cells))
	}
	name, key := strings.Trim(cells[0], "`"), strings.Trim(cells[1], "`")
	part, rest, _ := strings.Cut(key, ".")
	// The page describes the rule for keys instead of listing them, so every key has to follow it.
	if name != prefix+strings.ToUpper(part+"_"+rest) || strings.Contains(part, "_") {
		return nil, fmt.Errorf("key %q does not follow from %s: the page's rule for keys is wrong", key, name)
	}
	return &variable{name: name, part: part, kind: cells[2], fallback: cells[3], meaning: cells[4]}, nil
}

// merge adds a program's variable, after the others of its part.
func (r *reference) merge(program string, v *variable) error {
	index := len(r.variables)
	for i, known := range r.variables {
		if known.name == v.name {
			if known.kind != v.kind || known.fallback != v.fallback || known.meaning != v.meaning {
				return fmt.Errorf("%s differs from that of %s", v.name, strings.Join(known.programs, " and "))
			}
			known.programs = append(known.programs, program)
			return nil
		}
		if known.part == v.part {
			index = i + 1
		}
	}
	v.programs = []string{program}
	r.variables = slices.Insert(r.variables, index, v)
	return nil
}

// page returns the reference in Markdown.
func (r *reference) page() string {
	var b strings.Builder
	b.WriteString("<!-- Written by make generate, from the programs' --help-markdown. Do not edit. -->\n")
	b.WriteString(introduction)
	b.WriteString("\n| variable | read by | type | default | meaning |\n|---|---|---|---|---|\n")
	for _, v := range r.variables {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", v.name, strings.Join(v.programs, ", "), v.kind, v.fallback, v.meaning)
	}
	return b.String()
}

// example returns the .env example: defaults are commented out, required variables have an empty value.
func (r *reference) example() string {
	var b strings.Builder
	b.WriteString("# Vitrine's variables with their defaults; what is not commented out is required.\n" +
		"# One file serves all programs; docs/configuration.md says how they read it. Written by make generate.\n")
	part := ""
	for _, v := range r.variables {
		if v.part != part {
			part = v.part
			fmt.Fprintf(&b, "\n# ---- %s ----\n", part)
		}
		plain := strings.NewReplacer(`\|`, "|", "`", "")
		readers := ""
		if len(v.programs) < len(r.programs) {
			readers = strings.Join(v.programs, ", ") + ": "
		}
		fmt.Fprintf(&b, "\n# %s%s\n", readers, plain.Replace(v.meaning))
		if v.fallback == required {
			fmt.Fprintf(&b, "%s=\n", v.name)
		} else {
			fmt.Fprintf(&b, "#%s=%s\n", v.name, plain.Replace(v.fallback))
		}
	}
	return b.String()
}
