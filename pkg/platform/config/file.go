package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// configFile returns the path of the YAML file, "" for none, and the argument or variable that named it.
func configFile(args []string, vars map[string]string, wrong *problems) (path, label string) {
	path, label = vars[fileVariable], fileVariable
	for i := 0; i < len(args); i++ {
		name, value, joined := strings.Cut(args[i], "=")
		if name != "--config" && name != "-config" {
			wrong.add(args[i], "unknown", "is not an argument of this program, see --help")
			continue
		}
		if !joined && i+1 < len(args) {
			i++
			value = args[i]
		}
		if value == "" {
			wrong.add("--config", "required", "needs the path of a file")
			continue
		}
		path, label = value, "--config"
	}
	return path, label
}

// fileLayer reads the YAML file. It records unknown keys and values of a wrong type as invalid settings.
func fileLayer(s schema, path, label string, wrong *problems) map[string]setting {
	if path == "" {
		return nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		wrong.add(label, "unreadable", err.Error())
		return nil
	}
	root, err := decode(raw)
	if err != nil {
		wrong.add(path, "syntax", err.Error())
		return nil
	}
	f := fileReader{file: path, known: s.paths(), layer: map[string]setting{}, wrong: wrong}
	f.paths = slices.Sorted(maps.Keys(f.known))
	f.walk(root, "")
	return f.layer
}

// decode reads one YAML document into maps, lists, texts, booleans and json.Numbers.
func decode(raw []byte) (map[string]any, error) {
	if multipleDocuments(raw) {
		return nil, errors.New("has more than one document") // the library would ignore all but the first
	}
	asJSON, err := yaml.YAMLToJSONStrict(raw)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(asJSON))
	dec.UseNumber()
	var root map[string]any
	if err := dec.Decode(&root); err != nil {
		return nil, errors.New("is not a mapping of sections")
	}
	return root, nil
}

func multipleDocuments(raw []byte) bool {
	content := false
	for line := range strings.Lines(string(raw)) {
		text := strings.TrimSpace(line)
		switch {
		case content && (text == "---" || strings.HasPrefix(line, "--- ")):
			return true
		case text != "" && text != "---" && !strings.HasPrefix(text, "#"):
			content = true
		}
	}
	return false
}

type fileReader struct {
	file  string
	known map[string]variable
	paths []string // the keys of known, sorted
	layer map[string]setting
	wrong *problems
}

func (f fileReader) walk(section map[string]any, path string) {
	for _, key := range slices.Sorted(maps.Keys(section)) {
		at, value := path+key, section[key]
		label := f.file + ": " + at
		if v, ok := f.known[at]; ok && !strings.Contains(key, ".") {
			f.read(v, at, label, value)
			continue
		}
		inner, isSection := value.(map[string]any)
		switch {
		case strings.Contains(key, "."):
			f.wrong.add(label, "unknown", "keys are nested, not joined with dots")
		case !slices.ContainsFunc(f.paths, func(known string) bool { return strings.HasPrefix(known, at+".") }):
			detail := "there is no such key"
			if near := nearest(at, f.paths); near != "" {
				detail += ": is " + near + " meant?"
			}
			f.wrong.add(label, "unknown", detail)
		case isSection:
			f.walk(inner, at+".")
		case value != nil: // a section without keys is null
			f.wrong.add(label, "wrong_type", "must be a section, not "+typeName(value))
		}
	}
}

func (f fileReader) read(v variable, path, label string, value any) {
	name, want := v.name, v.kind()
	if path != v.path {
		name, want = v.name+fileSuffix, kindText
	}
	given := setting{label: label}
	ok := false
	switch x := value.(type) {
	case string:
		given.text, ok = x, want == kindText || want == kindDuration
	case bool:
		given.text, ok = fmt.Sprint(x), want == kindBool
	case json.Number:
		given.text, ok = x.String(), want == kindWhole || want == kindNumber
	case []any:
		given.listed = true
		given.list, ok = texts(x)
		ok = ok && want == kindList
	}
	if !ok {
		f.wrong.add(label, "wrong_type", "must be "+withArticle(want)+", not "+typeName(value))
		given.refused = true
	}
	f.layer[name] = given
}

func texts(items []any) ([]string, bool) {
	list := make([]string, 0, len(items))
	for _, item := range items {
		text, ok := item.(string)
		if !ok {
			return nil, false
		}
		list = append(list, text)
	}
	return list, true
}

func withArticle(kind string) string {
	switch kind {
	case kindText:
		return "text (in quotes if YAML reads it as something else)"
	case kindBool:
		return kind
	case kindList:
		return "a list of texts"
	case kindDuration:
		return "a duration as text, such as 500ms, 30s or 10m"
	default:
		return "a " + kind
	}
}

func typeName(value any) string {
	switch value.(type) {
	case nil:
		return "nothing"
	case string:
		return kindText
	case bool:
		return kindBool
	case json.Number:
		return "a number"
	case []any:
		return "this list"
	default:
		return "a section"
	}
}
