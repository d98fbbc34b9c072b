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

// plan is the part of skaffold.yaml that the stages use.
type plan struct {
	images      []string // artifacts
	release     string
	chart       string
	valuesFiles []string
	values      map[string]string // templates of --set values, by path
}

// skaffoldConfig is the schema of skaffold.yaml.
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

// readPlan parses skaffold.yaml. It must have exactly one release and at least one artifact.
func readPlan(source []byte) (plan, error) {
	var config skaffoldConfig
	if err := yaml.Unmarshal(source, &config); err != nil {
		return plan{}, err
	}
	if !strings.HasPrefix(config.APIVersion, "skaffold/") || config.Kind != "Config" {
		return plan{}, fmt.Errorf("got %s %s, want a skaffold Config", config.APIVersion, config.Kind)
	}
	releases := config.Deploy.Helm.Releases
	if len(releases) != 1 || len(config.Build.Artifacts) == 0 {
		return plan{}, fmt.Errorf("got %d releases and %d artifacts, want one release and at least one artifact",
			len(releases), len(config.Build.Artifacts))
	}
	r := releases[0]
	if r.Name == "" || r.ChartPath == "" || len(r.SetValueTemplates) == 0 {
		return plan{}, errors.New("the release lacks a name, a chartPath or setValueTemplates")
	}
	p := plan{release: r.Name, chart: r.ChartPath, valuesFiles: r.ValuesFiles, values: map[string]string{}}
	maps.Copy(p.values, r.SetValues)
	maps.Copy(p.values, r.SetValueTemplates)
	for _, a := range config.Build.Artifacts {
		p.images = append(p.images, a.Image)
	}
	return p, nil
}

// unnamed matches the characters that skaffold replaces by _ in names of template variables.
var unnamed = regexp.MustCompile(`[^A-Za-z0-9]`)

// settings renders the release's values as skaffold does after a build with this tag and without digests, as for a local
// cluster. It returns sorted "path=value" strings.
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

// missingImages returns the wanted images that no node lists. A node lists at most fifty images; if a list is full, no
// image is reported as missing.
func missingImages(nodes []node, wanted []string) []string {
	const maxListed = 50
	var missing []string
	for _, image := range wanted {
		found := false
		for _, n := range nodes {
			found = found || len(n.Status.Images) >= maxListed
			for _, i := range n.Status.Images {
				found = found || slices.ContainsFunc(i.Names, func(name string) bool {
					return name == image || strings.HasSuffix(name, "/"+image)
				})
			}
		}
		if !found {
			missing = append(missing, image)
		}
	}
	return missing
}
