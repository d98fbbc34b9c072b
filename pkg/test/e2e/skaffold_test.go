package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestReadPlanErrors(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no YAML":      ":\n\t-",
		"another kind": "apiVersion: v1\nkind: Pod\n",
		"no release":   strings.Replace(skaffoldText, "- name: vitrine", "#", 1),
		"no artifact":  strings.ReplaceAll(skaffoldText, "- {image", "# {image"),
		"no chart":     strings.Replace(skaffoldText, "chartPath", "path", 1),
	} {
		if p, err := readPlan([]byte(text)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, p)
		}
	}
}

func TestPlanSettings(t *testing.T) {
	t.Parallel()
	p := plan{images: []string{"registry.example/a-b"}, values: map[string]string{
		"z": "{{.IMAGE_TAG_registry_example_a_b}}@{{.IMAGE_DIGEST_registry_example_a_b}}",
		"a": "{{.IMAGE_FULLY_QUALIFIED_registry_example_a_b}}",
	}}
	got, err := p.settings("t")
	must(t, err)
	if want := []string{"a=registry.example/a-b:t", "z=t"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, text := range []string{"{{", "{{.IMAGE_TAG_other}}"} {
		p.values = map[string]string{"a": text}
		if got, err := p.settings("t"); err == nil {
			t.Errorf("%s: got %v, want an error", text, got)
		}
	}
}

func TestMissingImages(t *testing.T) {
	t.Parallel()
	nodes := func(names ...string) []node {
		var n node
		for _, name := range names {
			n.Status.Images = append(n.Status.Images, struct {
				Names []string `json:"names"`
			}{[]string{name}})
		}
		return []node{n}
	}
	wanted := []string{"a:1", "r/b:2"}
	for _, c := range []struct {
		nodes []node
		want  []string
	}{
		{nodes("docker.io/library/a:1", "r/b:2"), nil},
		{nodes("xa:1", "docker.io/r/b:2"), []string{"a:1"}},
		{nodes("a:10"), wanted},
		{nodes(make([]string, 50)...), nil},
		{nil, wanted},
	} {
		if got := missingImages(c.nodes, wanted); !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v, want %v", c.nodes, got, c.want)
		}
	}
}

func TestRoutesOf(t *testing.T) {
	t.Parallel()
	const text = `[{"metadata": {"name": "i"}, "spec": {"rules": [{"host": "h", "http": {"paths": [
		{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "api", "port": {"name": "http"}}}},
		{"path": "/media", "pathType": "Prefix", "backend": {"service": {"name": "minio", "port": {"number": 9000}}}},
		{"path": "/x", "pathType": "Exact", "backend": {"service": {"name": "x", "port": {"number": 1}}}}]}}]}}]`
	var ingresses []ingress
	must(t, json.Unmarshal([]byte(text), &ingresses))
	var s service
	must(t, json.Unmarshal([]byte(`{"metadata": {"name": "api"}, "spec": {"ports": [{"name": "http", "port": 80}]}}`), &s))
	got, err := routesOf(ingresses, []service{s})
	must(t, err)
	want := []route{
		{"h", "/x", true, "http://x:1"}, {"h", "/media", false, "http://minio:9000"}, {"h", "/", false, "http://api:80"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, err := routesOf(ingresses, nil); err == nil {
		t.Errorf("without the service: got %v, want an error", got)
	}
}

func TestRouteMatches(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		route      route
		host, path string
		want       bool
	}{
		{route{Path: "/media"}, "any", "/media", true},
		{route{Path: "/media"}, "any", "/media/", true},
		{route{Path: "/media"}, "any", "/media/a", true},
		{route{Path: "/media/"}, "any", "/media", true},
		{route{Path: "/media"}, "any", "/mediator", false},
		{route{Path: "/"}, "any", "/products", true},
		{route{Path: "/media", Exact: true}, "any", "/media", true},
		{route{Path: "/media", Exact: true}, "any", "/media/a", false},
		{route{Host: "H.example", Path: "/"}, "h.example:8080", "/", true},
		{route{Host: "h.example", Path: "/"}, "other", "/", false},
	} {
		if got := c.route.matches(c.host, c.path); got != c.want {
			t.Errorf("%+v, %s%s: got %v, want %v", c.route, c.host, c.path, got, c.want)
		}
	}
}
