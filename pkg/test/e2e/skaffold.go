package main

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"
)

// plan is what skaffold.yaml says about building and deploying, as far as it matters here.
type plan struct {
	images      []string // artifacts
	release     string
	chart       string
	valuesFiles []string
	values      map[string]string // --set values, by path; templates are what they all may be
}

// skaffoldConfig is the form of skaffold.yaml.
type skaffoldConfig struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Build      struct {
		Artifacts []struct {
			Image string `json:"image"`
		} `json:"artifacts"`
	} `json:"build"`
	Deploy struct {
		Helm struct {
			Releases []struct {
				Name              string            `json:"name"`
				ChartPath         string            `json:"chartPath"`
				ValuesFiles       []string          `json:"valuesFiles"`
				SetValues         map[string]string `json:"setValues"`
				SetValueTemplates map[string]string `json:"setValueTemplates"`
			} `json:"releases"`
		} `json:"helm"`
	} `json:"deploy"`
}

// readPlan reads skaffold.yaml: exactly one release, and at least one artifact.
func readPlan(source []byte) (plan, error) {
	var config skaffoldConfig
	if err := yaml.Unmarshal(source, &config); err != nil {
		return plan{}, err
	}
	if !strings.HasPrefix(config.APIVersion, "skaffold/") || config.Kind != "Config" {
		return plan{}, fmt.Errorf("it is %s %s, not a skaffold Config", config.APIVersion, config.Kind)
	}
	releases := config.Deploy.Helm.Releases
	if len(releases) != 1 || len(config.Build.Artifacts) == 0 {
		return plan{}, fmt.Errorf("it has %d releases and %d artifacts, not one and some",
			len(releases), len(config.Build.Artifacts))
	}
	r := releases[0]
	if r.Name == "" || r.ChartPath == "" || len(r.SetValueTemplates) == 0 {
		return plan{}, errors.New("its release lacks a name, a chartPath or setValueTemplates")
	}
	p := plan{release: r.Name, chart: r.ChartPath, valuesFiles: r.ValuesFiles, values: map[string]string{}}
	maps.Copy(p.values, r.SetValues)
	maps.Copy(p.values, r.SetValueTemplates)
	for _, a := range config.Build.Artifacts {
		p.images = append(p.images, a.Image)
	}
	return p, nil
}

// unnamed is all that skaffold turns into _ in the names of template variables.
var unnamed = regexp.MustCompile(`[^A-Za-z0-9]`)

// settings renders the release's values as skaffold does after a build that tagged every image with tag and knows no digest,
// as builds into a local cluster do: one "path=value" for each, sorted.
func (p plan) settings(tag string) ([]string, error) {
	data := map[string]string{}
	for _, image := range p.images {
		name := unnamed.ReplaceAllString(image, "_")
		data["IMAGE_REPO_"+name] = image
		data["IMAGE_TAG_"+name] = tag
		data["IMAGE_DIGEST_"+name] = ""
		data["IMAGE_FULLY_QUALIFIED_"+name] = image + ":" + tag
	}
	var settings []string
	for _, path := range slices.Sorted(maps.Keys(p.values)) {
		tmpl, err := template.New(path).Option("missingkey=error").Parse(p.values[path])
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", path, err)
		}
		var value strings.Builder
		if err := tmpl.Execute(&value, data); err != nil {
			return nil, fmt.Errorf("render %s: %w", path, err)
		}
		settings = append(settings, path+"="+strings.TrimSuffix(value.String(), "@"))
	}
	return settings, nil
}

// lacking returns which of the wanted images are in none of the nodes' lists. A node tells at most fifty images, so a full
// list proves nothing, and then none is said to be lacking.
func lacking(nodes []node, wanted []string) []string {
	const told = 50
	var lacking []string
	for _, image := range wanted {
		found := false
		for _, n := range nodes {
			found = found || len(n.Status.Images) >= told
			for _, i := range n.Status.Images {
				found = found || slices.ContainsFunc(i.Names, func(name string) bool {
					return name == image || strings.HasSuffix(name, "/"+image)
				})
			}
		}
		if !found {
			lacking = append(lacking, image)
		}
	}
	return lacking
}
