// Package chart tests the Helm chart with all values files: network policies allow exactly the connections that the pods'
// configuration needs, Pod Security admits all pods, invalid values are refused, and every alert has a runbook.
package chart_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

const (
	chartDir  = "../../../charts/vitrine"
	release   = "shop"
	namespace = "catalogue"
)

// object is one rendered document.
type object struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata"`
	text              []byte
}

// as decodes an object. An unknown field is an error.
func as[T any](t testing.TB, o object) T {
	t.Helper()
	var v T
	if err := yaml.UnmarshalStrict(o.text, &v); err != nil {
		t.Fatalf("%s %s: %v", o.Kind, o.Name, err)
	}
	return v
}

// pod is the pod template of a workload, or a single Pod.
type pod struct {
	owner  string // "Deployment shop-vitrine-api"
	labels map[string]string
	spec   corev1.PodSpec
}

func (p pod) component() string { return p.labels["app.kubernetes.io/component"] }

// containers returns all containers, with the init containers.
func (p pod) containers() []corev1.Container {
	return slices.Concat(p.spec.InitContainers, p.spec.Containers)
}

// port returns the number of a named port of this pod.
func (p pod) port(name string) (int32, bool) {
	for _, c := range p.containers() {
		for _, port := range c.Ports {
			if port.Name == name {
				return port.ContainerPort, true
			}
		}
	}
	return 0, false
}

// rendered is the result of one render.
type rendered struct {
	objects  []object
	notes    string
	pods     []pod
	services map[string]corev1.Service
	policies []networkingv1.NetworkPolicy
}

// files returns the values files for all render tests, by name: the chart's own, and those of ci.
func files(t testing.TB) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	ci, err := filepath.Glob(filepath.Join(chartDir, "ci", "*.yaml"))
	if err != nil || len(ci) == 0 {
		t.Fatalf("no values files in ci: %v", err)
	}
	for _, file := range ci {
		all[strings.TrimSuffix(filepath.Base(file), "-values.yaml")] = []string{file}
	}
	dev := filepath.Join(chartDir, "values-dev.yaml")
	all["dev"] = []string{dev}
	all["production"] = []string{filepath.Join(chartDir, "values-production.yaml")}
	over, err := filepath.Glob("../../../k8s/values-*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range over {
		all["dev_with_"+filepath.Base(file)] = []string{dev, file}
	}
	return all
}

// everyRender runs a subtest for each of the values files.
func everyRender(t *testing.T, test func(t *testing.T, name string, r rendered)) {
	t.Parallel()
	all := files(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := render(nil, all[name]...)
			if err != nil {
				t.Fatal(err)
			}
			test(t, name, r)
		})
	}
}

// render renders the chart with the values files, each of which overrides those before it, and with values over them.
func render(values map[string]any, files ...string) (rendered, error) {
	merged := map[string]any{}
	for _, file := range files {
		over, err := chartutil.ReadValuesFile(file)
		if err != nil {
			return rendered{}, fmt.Errorf("read values: %w", err)
		}
		merged = chartutil.MergeTables(over, merged)
	}
	merged = chartutil.MergeTables(values, merged)
	chart, err := loader.Load(chartDir)
	if err != nil {
		return rendered{}, fmt.Errorf("load chart: %w", err)
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, IsInstall: true, Revision: 1}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = chartutil.KubeVersion{Version: "v1.34.0", Major: "1", Minor: "34"}
	all, err := chartutil.ToRenderValues(chart, merged, options, capabilities)
	if err != nil {
		return rendered{}, err
	}
	texts, err := engine.Render(chart, all)
	if err != nil {
		return rendered{}, err
	}
	return parse(texts)
}

func parse(texts map[string]string) (rendered, error) {
	r := rendered{services: map[string]corev1.Service{}}
	for _, file := range slices.Sorted(maps.Keys(texts)) {
		if strings.HasSuffix(file, "NOTES.txt") {
			r.notes = texts[file]
			continue
		}
		for _, text := range bytes.Split([]byte("\n"+texts[file]), []byte("\n---")) {
			o := object{text: text}
			if err := yaml.Unmarshal(text, &o); err != nil {
				return r, fmt.Errorf("%s: %w", file, err)
			}
			if o.Kind == "" {
				continue
			}
			r.objects = append(r.objects, o)
			if err := r.add(o); err != nil {
				return r, fmt.Errorf("%s: %s %s: %w", file, o.Kind, o.Name, err)
			}
		}
	}
	return r, nil
}

// add decodes an object into the field for its kind.
func (r *rendered) add(o object) error {
	template := func(into runtime.Object, template *corev1.PodTemplateSpec) error {
		if err := yaml.UnmarshalStrict(o.text, into); err != nil {
			return err
		}
		r.pods = append(r.pods, pod{o.Kind + " " + o.Name, template.Labels, template.Spec})
		return nil
	}
	switch o.Kind {
	case "Deployment":
		var v appsv1.Deployment
		return template(&v, &v.Spec.Template)
	case "StatefulSet":
		var v appsv1.StatefulSet
		return template(&v, &v.Spec.Template)
	case "Job":
		var v batchv1.Job
		return template(&v, &v.Spec.Template)
	case "Pod":
		var v corev1.Pod
		err := yaml.UnmarshalStrict(o.text, &v)
		r.pods = append(r.pods, pod{"Pod " + o.Name, v.Labels, v.Spec})
		return err
	case "Service":
		var v corev1.Service
		err := yaml.UnmarshalStrict(o.text, &v)
		r.services[o.Name] = v
		return err
	case "NetworkPolicy":
		var v networkingv1.NetworkPolicy
		err := yaml.UnmarshalStrict(o.text, &v)
		r.policies = append(r.policies, v)
		return err
	}
	return nil
}

// of returns all pods of a component.
func (r rendered) of(component string) []pod {
	return slices.DeleteFunc(slices.Clone(r.pods), func(p pod) bool { return p.component() != component })
}

func TestMain(m *testing.M) {
	if _, err := os.Stat(chartDir); err != nil {
		fmt.Fprintln(os.Stderr, "the chart is not found, run the tests in their directory:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
