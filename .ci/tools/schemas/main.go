// Command schemas makes JSON schemas, one a file and each whole in itself, for kubeconform: of Kubernetes' own kinds from its
// OpenAPI document, of custom resources from their definitions. They are strict: a field that is not known is an error, as it is for
// `kubectl apply --validate=strict`. Descriptions are left out, which makes them a tenth of the size.
//
//	schemas -out DIR -kinds "apps/v1 Deployment, v1 Service" swagger.json
//	schemas -out DIR -crd definitions.yaml...
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "schemas:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("schemas", flag.ContinueOnError)
	out := flags.String("out", "", "directory to write to")
	kinds := flags.String("kinds", "", "kinds to write, \"apps/v1 Deployment, v1 Service\"")
	crd := flags.Bool("crd", false, "the arguments are files of CustomResourceDefinitions")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	for _, file := range flags.Args() {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read source: %w", err)
		}
		if *crd {
			err = custom(*out, text)
		} else {
			err = builtin(*out, text, strings.Split(*kinds, ","))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

type object = map[string]any

// builtin writes group-version-kind.json in the names that kubeconform looks for: deployment-apps-v1.json, service-v1.json.
func builtin(dir string, text []byte, kinds []string) error {
	var swagger struct {
		Definitions map[string]object `json:"definitions"`
	}
	if err := json.Unmarshal(text, &swagger); err != nil {
		return fmt.Errorf("read swagger: %w", err)
	}
	for _, wanted := range kinds {
		version, kind, _ := strings.Cut(strings.TrimSpace(wanted), " ")
		name, root := find(swagger.Definitions, version, kind)
		if root == nil {
			return fmt.Errorf("no %s %s", version, kind)
		}
		definitions := object{}
		collect(swagger.Definitions, name, definitions)
		schema := object{"$schema": "http://json-schema.org/schema#", "$ref": "#/definitions/" + name, "definitions": definitions}
		properties, _ := definitions[name].(object)["properties"].(object)
		properties["apiVersion"] = object{"enum": []string{version}}
		properties["kind"] = object{"enum": []string{kind}}
		group, v, grouped := strings.Cut(version, "/")
		file := strings.ToLower(kind) + "-" + group + ".json"
		if grouped {
			group, _, _ = strings.Cut(group, ".")
			file = strings.ToLower(kind) + "-" + group + "-" + v + ".json"
		}
		if err := write(filepath.Join(dir, file), schema); err != nil {
			return err
		}
	}
	return nil
}

// find returns the definition of a kind.
func find(definitions map[string]object, version, kind string) (string, object) {
	group, v, grouped := strings.Cut(version, "/")
	if !grouped {
		group, v = "", version
	}
	for name, definition := range definitions {
		gvks, _ := definition["x-kubernetes-group-version-kind"].([]any)
		for _, gvk := range gvks {
			g, ok := gvk.(object)
			if ok && len(gvks) == 1 && g["group"] == group && g["version"] == v && g["kind"] == kind {
				return name, definition
			}
		}
	}
	return "", nil
}

// collect puts a definition and all that it refers to into to.
func collect(from map[string]object, name string, to object) {
	if _, done := to[name]; done {
		return
	}
	switch {
	case strings.HasSuffix(name, "util.intstr.IntOrString"), strings.HasSuffix(name, "api.resource.Quantity"):
		to[name] = object{"type": []string{"string", "number"}}
		return
	case strings.HasSuffix(name, "runtime.RawExtension"):
		to[name] = object{"type": "object"}
		return
	}
	to[name] = nil // for definitions that refer to themselves
	definition := strict(from[name]).(object)
	to[name] = definition
	for _, reference := range references(definition) {
		collect(from, reference, to)
	}
}

func references(value any) []string {
	var found []string
	switch v := value.(type) {
	case object:
		for key, inner := range v {
			if text, ok := inner.(string); ok && key == "$ref" {
				found = append(found, strings.TrimPrefix(text, "#/definitions/"))
				continue
			}
			found = append(found, references(inner)...)
		}
	case []any:
		for _, inner := range v {
			found = append(found, references(inner)...)
		}
	}
	return found
}

// custom writes group/kind_version.json for every version that is served.
func custom(dir string, text []byte) error {
	for _, document := range bytes.Split(text, []byte("\n---")) {
		var crd struct {
			Kind string `json:"kind"`
			Spec struct {
				Group    string                `json:"group"`
				Names    struct{ Kind string } `json:"names"`
				Versions []struct {
					Name   string `json:"name"`
					Served bool   `json:"served"`
					Schema struct {
						OpenAPI object `json:"openAPIV3Schema"`
					} `json:"schema"`
				} `json:"versions"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal(document, &crd); err != nil {
			return fmt.Errorf("read definition: %w", err)
		}
		if crd.Kind == "" {
			continue
		}
		if crd.Kind != "CustomResourceDefinition" {
			return errors.New("not a CustomResourceDefinition: " + crd.Kind)
		}
		for _, version := range crd.Spec.Versions {
			schema := strict(version.Schema.OpenAPI).(object)
			schema["properties"].(object)["metadata"] = object{"type": "object"}
			file := filepath.Join(dir, crd.Spec.Group, strings.ToLower(crd.Spec.Names.Kind)+"_"+version.Name+".json")
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				return fmt.Errorf("make directory: %w", err)
			}
			if err := write(file, schema); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropped are keywords that say nothing to a validator, or what it would take differently from Kubernetes.
var dropped = []string{"description", "format", "default", "title", "example", "nullable", "externalDocs"}

// combined are keywords whose schemas are about the same object as the one they stand in.
var combined = []string{"anyOf", "allOf", "oneOf", "not"}

// strict returns a schema without descriptions that forbids unknown fields wherever it names fields.
func strict(value any) any {
	switch v := value.(type) {
	case []any:
		all := make([]any, len(v))
		for i := range v {
			all[i] = strict(v[i])
		}
		return all
	case object:
		return strictObject(v)
	default:
		return value
	}
}

func strictObject(v object) object {
	result := object{}
	for key, inner := range v {
		switch {
		case key == "properties" || key == "definitions":
			// Names of fields, which may be called like keywords.
			fields := object{}
			for name, field := range inner.(object) {
				fields[name] = strict(field)
			}
			result[key] = fields
		case slices.Contains(dropped, key) || strings.HasPrefix(key, "x-"):
		case key == "enum" || key == "required":
			result[key] = inner
		case slices.Contains(combined, key):
			result[key] = inner // conditions on fields that are named outside of it
		default:
			result[key] = strict(inner)
		}
	}
	if v["x-kubernetes-int-or-string"] == true {
		return object{"type": []string{"string", "number"}}
	}
	if v["nullable"] == true {
		if kind, ok := result["type"].(string); ok {
			result["type"] = []string{kind, "null"}
		}
	}
	_, named := v["properties"]
	_, open := v["additionalProperties"]
	if named && !open && v["x-kubernetes-preserve-unknown-fields"] != true {
		result["additionalProperties"] = false
	}
	return result
}

func write(file string, schema object) error {
	text, err := json.Marshal(schema)
	if err != nil {
		return fmt.Errorf("write schema: %w", err)
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
