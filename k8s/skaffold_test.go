// Package k8s_test checks skaffold.yaml, the Dockerfiles and the manifests of this directory against each other and the
// chart: none of them is compiled, so only these tests find a stale name of a stage, a value or an image.
package k8s_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"sigs.k8s.io/yaml"
)

const root = ".."

// skaffold is the form of skaffold.yaml: what version v4beta13 of its schema has, as far as we use it. A field that is not
// here is refused, misspelled or not, so that using one more begins with a look at the schema.
type skaffold struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Build     build `json:"build"`
	Manifests struct {
		RawYAML []string `json:"rawYaml"`
	} `json:"manifests"`
	Deploy      deploy         `json:"deploy"`
	PortForward []forward      `json:"portForward"`
	Verify      []verification `json:"verify"`
	Profiles    []profile      `json:"profiles"`
}

type build struct {
	TagPolicy struct {
		InputDigest *struct{} `json:"inputDigest"`
		GitCommit   *struct {
			Variant string `json:"variant"`
		} `json:"gitCommit"`
	} `json:"tagPolicy"`
	Local struct {
		UseBuildkit bool `json:"useBuildkit"`
		Push        bool `json:"push"`
	} `json:"local"`
	Artifacts []artifact `json:"artifacts"`
}

type artifact struct {
	Image  string `json:"image"`
	Docker struct {
		Dockerfile string            `json:"dockerfile"`
		Target     string            `json:"target"`
		BuildArgs  map[string]string `json:"buildArgs"`
	} `json:"docker"`
}

type deploy struct {
	StatusCheckDeadlineSeconds    int  `json:"statusCheckDeadlineSeconds"`
	TolerateFailuresUntilDeadline bool `json:"tolerateFailuresUntilDeadline"`
	Helm                          struct {
		Releases []release `json:"releases"`
	} `json:"helm"`
	Kubectl *struct{} `json:"kubectl"`
}

type release struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace"`
	CreateNamespace   bool              `json:"createNamespace"`
	ChartPath         string            `json:"chartPath"`
	ValuesFiles       []string          `json:"valuesFiles"`
	SetValues         map[string]string `json:"setValues"`
	SetValueTemplates map[string]string `json:"setValueTemplates"`
}

type forward struct {
	ResourceType string `json:"resourceType"`
	ResourceName string `json:"resourceName"`
	Namespace    string `json:"namespace"`
	Port         int    `json:"port"`
	LocalPort    int    `json:"localPort"`
}

type verification struct {
	Name      string `json:"name"`
	Timeout   int    `json:"timeout"`
	Container struct {
		Name    string   `json:"name"`
		Image   string   `json:"image"`
		Command []string `json:"command"`
		Args    []string `json:"args"`
	} `json:"container"`
	ExecutionMode struct {
		KubernetesCluster struct {
			JobManifestPath string `json:"jobManifestPath"`
		} `json:"kubernetesCluster"`
	} `json:"executionMode"`
}

type profile struct {
	Name    string  `json:"name"`
	Build   *build  `json:"build"`
	Patches []patch `json:"patches"`
}

type patch struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// configs returns skaffold.yaml without a profile and with each of its profiles, by the profile's name.
func configs(t *testing.T) map[string]skaffold {
	t.Helper()
	source := read(t, "skaffold.yaml")
	var plain skaffold
	if err := decode(source, &plain); err != nil {
		t.Fatalf("skaffold.yaml: %v", err)
	}
	all := map[string]skaffold{"no profile": plain}
	for _, p := range plain.Profiles {
		if _, twice := all[p.Name]; twice || p.Name == "" {
			t.Errorf("profile %q exists twice or has no name", p.Name)
		}
		changed, err := apply(source, p)
		if err != nil {
			t.Errorf("profile %s: %v", p.Name, err)
			continue
		}
		all[p.Name] = changed
	}
	return all
}

// apply applies a profile to skaffold.yaml, as skaffold does: first its overrides, then its patches.
func apply(source []byte, p profile) (skaffold, error) {
	var changed skaffold
	var tree any
	if err := yaml.Unmarshal(source, &tree); err != nil {
		return changed, err
	}
	if p.Build != nil {
		if tags := p.Build.TagPolicy; tags.GitCommit != nil && !slices.Contains([]string{
			"Tags", "CommitSha", "AbbrevCommitSha", "TreeSha", "AbbrevTreeSha", "Branches",
		}, tags.GitCommit.Variant) {
			return changed, fmt.Errorf("skaffold knows no variant %q", tags.GitCommit.Variant)
		}
		if len(p.Build.Artifacts) > 0 {
			return changed, errors.New("artifacts are changed by patches, so that they stay the same otherwise")
		}
	}
	for _, change := range p.Patches {
		var err error
		if tree, err = change.apply(tree, strings.Split(strings.TrimPrefix(change.Path, "/"), "/")); err != nil {
			return changed, fmt.Errorf("%s %s: %w", change.Op, change.Path, err)
		}
	}
	data, err := json.Marshal(tree)
	if err == nil {
		err = decode(data, &changed)
	}
	return changed, err
}

// apply returns node with the patch applied at the path below it.
func (p patch) apply(node any, path []string) (any, error) {
	key, last := path[0], len(path) == 1
	switch node := node.(type) {
	case map[string]any:
		child, exists := node[key]
		switch {
		case !last && exists:
			var err error
			node[key], err = p.apply(child, path[1:])
			return node, err
		case last && p.Op == "remove" && exists:
			delete(node, key)
			return node, nil
		case last && (p.Op == "add" && !exists || p.Op == "replace" && exists):
			node[key] = p.Value
			return node, nil
		}
	case []any:
		if last && p.Op == "add" && key == "-" {
			return append(node, p.Value), nil
		}
		i, err := strconv.Atoi(key)
		switch {
		case err != nil || i < 0 || i >= len(node):
		case !last:
			node[i], err = p.apply(node[i], path[1:])
			return node, err
		case p.Op == "replace":
			node[i] = p.Value
			return node, nil
		}
	}
	return nil, fmt.Errorf("nothing to %s at %q", p.Op, key)
}

func TestSkaffold(t *testing.T) {
	t.Parallel()
	t.Run("named_files_exist", testSkaffoldNamedFilesExist)
	t.Run("profiles_can_be_combined", testSkaffoldProfilesCanBeCombined)
	t.Run("patch_without_target", testSkaffoldPatchWithoutTarget)
}

func testSkaffoldNamedFilesExist(t *testing.T) {
	t.Parallel()
	for name, config := range configs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if config.APIVersion != "skaffold/v4beta13" || config.Kind != "Config" {
				t.Errorf("got %s %s, want skaffold/v4beta13 Config", config.APIVersion, config.Kind)
			}
			var images []string
			for _, a := range config.Build.Artifacts {
				images = append(images, a.Image)
				file := parse(t, a.Docker.Dockerfile)
				if a.Docker.Target != "" && file.stage(a.Docker.Target) == nil {
					t.Errorf("%s has no stage %s", a.Docker.Dockerfile, a.Docker.Target)
				}
				for arg := range a.Docker.BuildArgs {
					if !file.declares(arg) {
						t.Errorf("%s has no ARG %s", a.Docker.Dockerfile, arg)
					}
				}
			}
			for _, r := range config.Deploy.Helm.Releases {
				checkRelease(t, r, images)
			}
			for _, path := range config.Manifests.RawYAML {
				checkManifest(t, path, images)
			}
			for _, v := range config.Verify {
				checkVerification(t, v, images)
				checkArguments(t, v.Container.Args, config.Deploy.Helm.Releases[0])
			}
		})
	}
}

func testSkaffoldProfilesCanBeCombined(t *testing.T) {
	t.Parallel()
	source := read(t, "skaffold.yaml")
	names := []string{"no-keda", "no-ingress", "debug", "standin"}
	profiles := configs(t)["no profile"].Profiles
	var all profile
	for _, name := range names {
		i := slices.IndexFunc(profiles, func(p profile) bool { return p.Name == name })
		if i < 0 {
			t.Fatalf("there is no profile %s", name)
		}
		all.Patches = append(all.Patches, profiles[i].Patches...)
	}
	got, err := apply(source, all)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"keda.enabled": "false", "ingress.enabled": "false", "s3.publicUrl": "http://localhost:9000/media", "log.level": "debug",
	}
	if got := got.Deploy.Helm.Releases[0].SetValues; !maps.Equal(got, want) {
		t.Errorf("together they set %v, want %v", got, want)
	}
}

func testSkaffoldPatchWithoutTarget(t *testing.T) {
	t.Parallel()
	source := []byte("build: {artifacts: [{image: a}]}\n")
	for _, p := range []patch{
		{Op: "replace", Path: "/build/artifact/0/image", Value: "b"},
		{Op: "replace", Path: "/build/artifacts/1/image", Value: "b"},
		{Op: "remove", Path: "/portForward"},
		{Op: "add", Path: "/build/artifacts", Value: "b"},
		{Op: "add", Path: "/build/artifacts/0/images", Value: "b"},
		{Op: "copy", Path: "/build", Value: "b"},
	} {
		if _, err := apply(source, profile{Patches: []patch{p}}); err == nil {
			t.Errorf("%s %s is accepted", p.Op, p.Path)
		}
	}
}

// tree decodes a YAML file of one document.
func tree(t *testing.T, path string) map[string]any {
	t.Helper()
	var node map[string]any
	if err := yaml.Unmarshal(read(t, path), &node); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return node
}

// lookUp reports whether there is a value at a path such as api.image.tag.
func lookUp(node any, path string) bool {
	for key := range strings.SplitSeq(path, ".") {
		below, ok := node.(map[string]any)
		if !ok {
			return false
		}
		if node, ok = below[key]; !ok {
			return false
		}
	}
	return true
}

// leaves calls f with the path of every value that is not a map.
func leaves(node map[string]any, above string, f func(path string)) {
	for key, value := range node {
		if below, ok := value.(map[string]any); ok && len(below) > 0 {
			leaves(below, above+key+".", f)
			continue
		}
		f(above + key)
	}
}

func checkRelease(t *testing.T, r release, images []string) {
	t.Helper()
	values := tree(t, filepath.Join(r.ChartPath, "values.yaml"))
	chart := tree(t, filepath.Join(r.ChartPath, "Chart.yaml"))
	if r.Name != chart["name"] {
		t.Errorf("release %s of chart %v: the Services would not have the names in skaffold.yaml", r.Name, chart["name"])
	}
	for _, path := range r.ValuesFiles {
		leaves(tree(t, path), "", func(value string) {
			if !lookUp(values, value) {
				t.Errorf("%s sets %s, which is not a value of the chart", path, value)
			}
		})
	}
	for path := range r.SetValues {
		if !lookUp(values, path) {
			t.Errorf("setValues sets %s, which is not a value of the chart", path)
		}
	}
	known := map[string]string{}
	for _, image := range images {
		name := regexp.MustCompile(`[^A-Za-z0-9]`).ReplaceAllString(image, "_") // as skaffold names them
		known["IMAGE_REPO_"+name], known["IMAGE_TAG_"+name], known["IMAGE_DIGEST_"+name] = image, "tag", ""
	}
	for path, source := range r.SetValueTemplates {
		if !lookUp(values, path) {
			t.Errorf("setValueTemplates sets %s, which is not a value of the chart", path)
		}
		value, err := template.New(path).Option("missingkey=error").Parse(source)
		if err == nil {
			err = value.Execute(io.Discard, known)
		}
		if err != nil {
			t.Errorf("setValueTemplates: %v", err)
		}
	}
	for _, image := range images {
		for _, part := range []string{"repository", "tag", "digest"} {
			if path := strings.TrimPrefix(image, "vitrine-") + ".image." + part; r.SetValueTemplates[path] == "" {
				t.Errorf("the release does not set %s: it would run another image than the one just built", path)
			}
		}
	}
}

// object holds the fields of a manifest that the tests check.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Spec struct {
		Selector any `json:"selector"`
		Template struct {
			Metadata struct {
				Labels map[string]string `json:"labels"`
			} `json:"metadata"`
			Spec struct {
				RestartPolicy string `json:"restartPolicy"`
				Containers    []struct {
					Name  string `json:"name"`
					Image string `json:"image"`
				} `json:"containers"`
			} `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
}

func checkManifest(t *testing.T, path string, images []string) []object {
	t.Helper()
	var objects []object
	for document := range bytes.SplitSeq(read(t, path), []byte("\n---\n")) {
		var o object
		if err := yaml.Unmarshal(document, &o); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		objects = append(objects, o)
		if o.Metadata.Namespace != "vitrine" {
			t.Errorf("%s: %s %s is not in the release's namespace", path, o.Kind, o.Metadata.Name)
		}
		for _, c := range o.Spec.Template.Spec.Containers {
			if !slices.Contains(images, c.Image) {
				t.Errorf("%s runs %s, which is not built", path, c.Image)
			}
		}
	}
	return objects
}

func checkVerification(t *testing.T, v verification, images []string) {
	t.Helper()
	if !slices.Contains(images, v.Container.Image) {
		t.Errorf("verify %s runs %s, which is not built", v.Name, v.Container.Image)
	}
	path := v.ExecutionMode.KubernetesCluster.JobManifestPath
	job := checkManifest(t, path, images)[0]
	if job.APIVersion != "batch/v1" || job.Kind != "Job" {
		t.Errorf("%s is %s %s; skaffold runs Jobs only", path, job.APIVersion, job.Kind)
	}
	if len(job.Spec.Template.Metadata.Labels) == 0 {
		t.Errorf("%s: its pod has no labels, and skaffold adds labels only to existing ones", path)
	}
	if c := job.Spec.Template.Spec.Containers; len(c) != 1 || c[0].Name != v.Container.Name {
		t.Errorf("%s: it must have the container %s and no other, because skaffold replaces all", path, v.Container.Name)
	}
}

// checkArguments checks that the verification requests images that are served, at the URLs of the deployment.
func checkArguments(t *testing.T, args []string, r release) {
	t.Helper()
	served := string(read(t, "cmd/vitrine/sample.go"))
	public := r.SetValues["s3.publicUrl"]
	if public == "" {
		var values struct {
			Ingress struct {
				Host  string `json:"host"`
				Media struct {
					Path string `json:"path"`
				} `json:"media"`
			} `json:"ingress"`
		}
		if err := yaml.Unmarshal(read(t, r.ValuesFiles[0]), &values); err != nil {
			t.Fatal(err)
		}
		public = "http://" + values.Ingress.Host + values.Ingress.Media.Path
	}
	sources, rewritten := 0, false
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "--source":
			sources++
			if image := value[strings.LastIndex(value, "/"):]; !strings.Contains(served, image) {
				t.Errorf("vitrine samples does not serve %s", image)
			}
		case "--rewrite":
			from, _, _ := strings.Cut(value, "=")
			rewritten = true
			if from != public {
				t.Errorf("it rewrites %s, but images are below %s", from, public)
			}
		}
	}
	if sources == 0 || !rewritten {
		t.Errorf("the arguments have %d sources, and a rewrite: %v", sources, rewritten)
	}
}
