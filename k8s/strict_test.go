package k8s_test

import (
	"fmt"
	"reflect"
	"testing"

	"sigs.k8s.io/yaml"
)

// decode reads YAML into the struct that out points at and refuses every field that it has not. Unlike the package it uses,
// it refuses those in another case too, as skaffold and kind do.
func decode(data []byte, out any) error {
	if err := yaml.UnmarshalStrict(data, out); err != nil {
		return err
	}
	var tree any
	if err := yaml.Unmarshal(data, &tree); err != nil {
		return err
	}
	return exact(tree, reflect.TypeOf(out), "")
}

// exact returns an error for a key of node that no field of the type is tagged with.
func exact(node any, of reflect.Type, path string) error {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	switch node := node.(type) {
	case []any:
		for i, item := range node {
			if of.Kind() == reflect.Slice {
				if err := exact(item, of.Elem(), fmt.Sprintf("%s/%d", path, i)); err != nil {
					return err
				}
			}
		}
	case map[string]any:
		if of.Kind() != reflect.Struct {
			return nil
		}
		fields := map[string]reflect.Type{}
		for i := range of.NumField() {
			fields[of.Field(i).Tag.Get("json")] = of.Field(i).Type
		}
		for key, value := range node {
			field, ok := fields[key]
			if !ok {
				return fmt.Errorf("%s: no field is called %q", path, key)
			}
			if err := exact(value, field, path+"/"+key); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestDecode(t *testing.T) {
	t.Parallel()
	type item struct {
		Name string `json:"name"`
	}
	type list struct {
		Items []item            `json:"items"`
		Any   map[string]string `json:"any"`
	}
	for source, want := range map[string]bool{
		"items: [{name: a}]\nany: {Name: b}": true,
		"items: [{Name: a}]":                 false,
		"Items: []":                          false,
		"other: 1":                           false,
	} {
		if err := decode([]byte(source), &list{}); (err == nil) != want {
			t.Errorf("%q: got %v, want it accepted: %v", source, err, want)
		}
	}
}
