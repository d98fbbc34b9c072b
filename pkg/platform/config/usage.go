package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Program describes a program in help texts.
type Program struct {
	Name    string // vitrine-api
	About   string // one sentence
	Version string
}

// Help returns the text for --help, --help-markdown, --help-env or --version, and whether args have one of them.
func Help[T any](p Program, args []string) (text string, ok bool) {
	for _, arg := range args {
		switch arg {
		case "--help", "-help", "-h":
			return Usage[T](p), true
		case "--help-markdown":
			return Markdown[T](), true
		case "--help-env":
			return EnvExample[T](p), true
		case "--version":
			return p.Name + " " + p.Version + "\n", true
		}
	}
	return "", false
}

// Usage returns the text of --help.
func Usage[T any](p Program) string {
	var b strings.Builder
	fmt.Fprintf(&b, `%[1]s: %[2]s

Usage:
  %[1]s [--config FILE]
  %[1]s --help | --help-markdown | --help-env | --version

Configuration is read from the variables below, over the YAML file that --config or
%[3]s names (http.addr is %[4]sHTTP_ADDR), over the defaults.

Variables:
`, p.Name, p.About, fileVariable, Prefix)
	for _, v := range documented[T]() {
		fmt.Fprintf(&b, "  %s (%s)\n      %s\n", v.name, strings.Join(v.facts(), ", "), v.desc)
	}
	return b.String()
}

// facts returns what the help text has about a variable beside its description.
func (v variable) facts() []string {
	facts := []string{v.kind()}
	switch {
	case v.required:
		facts = append(facts, "required")
	case v.defaultText != "" && v.kind() == kindText:
		facts = append(facts, "default "+strconv.Quote(v.defaultText))
	case v.defaultText != "":
		facts = append(facts, "default "+v.defaultText)
	}
	if v.secret {
		facts = append(facts, "secret", "or "+v.name+fileSuffix)
	}
	return facts
}

// Markdown returns the reference table.
func Markdown[T any]() string {
	var b strings.Builder
	b.WriteString("| variable | key in the file | type | default | meaning |\n|---|---|---|---|---|\n")
	for _, v := range documented[T]() {
		fallback := ""
		switch {
		case v.required:
			fallback = "required"
		case v.defaultText != "":
			fallback = "`" + v.defaultText + "`"
		}
		desc := v.desc
		if v.secret {
			desc += " (secret; or `" + v.name + fileSuffix + "`)"
		}
		cells := []string{"`" + v.name + "`", "`" + v.path + "`", v.kind(), fallback, desc}
		for i := range cells {
			cells[i] = strings.ReplaceAll(cells[i], "|", `\|`)
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	return b.String()
}

// EnvExample returns an .env file with every variable: defaults are commented out, required ones are empty.
func EnvExample[T any](p Program) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: %s\n# Every variable with its default; what is not commented out is required.\n", p.Name, p.About)
	for _, v := range documented[T]() {
		fmt.Fprintf(&b, "\n# %s\n", v.desc)
		if !v.required {
			b.WriteByte('#')
		}
		b.WriteString(v.name + "=" + v.defaultText + "\n")
	}
	return b.String()
}
