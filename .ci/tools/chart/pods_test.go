package chart_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

func TestPods(t *testing.T) {
	t.Parallel()
	t.Run("pod_security_restricted", testPodsPodSecurityRestricted)
	t.Run("resources_and_privileges", testPodsResourcesAndPrivileges)
	t.Run("every_variable_is_documented", testPodsEveryVariableIsDocumented)
}

// The evaluator is the code of the API server.
func testPodsPodSecurityRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	everyRender(t, func(t *testing.T, _ string, r rendered) {
		if len(r.pods) < 3 {
			t.Fatalf("only %d pods", len(r.pods))
		}
		for _, p := range r.pods {
			level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
			for _, result := range evaluator.EvaluatePod(level, &metav1.ObjectMeta{Labels: p.labels}, &p.spec) {
				if !result.Allowed {
					t.Errorf("%s: %s: %s", p.owner, result.ForbiddenReason, result.ForbiddenDetail)
				}
			}
		}
	})
}

func testPodsResourcesAndPrivileges(t *testing.T) {
	everyRender(t, func(t *testing.T, _ string, r rendered) {
		for _, p := range r.pods {
			token := p.spec.AutomountServiceAccountToken
			if token == nil || *token != (p.component() == "controller") {
				t.Errorf("%s: only the controller has a token for the API server", p.owner)
			}
			if p.spec.EnableServiceLinks == nil || *p.spec.EnableServiceLinks {
				t.Errorf("%s: has environment variables for every Service of the namespace", p.owner)
			}
			if p.spec.HostNetwork || p.spec.HostPID || p.spec.HostIPC {
				t.Errorf("%s: uses a namespace of its host", p.owner)
			}
			for _, c := range p.containers() {
				checkContainer(t, p, c)
			}
		}
	})
}

func checkContainer(t *testing.T, p pod, c corev1.Container) {
	t.Helper()
	where := p.owner + "/" + c.Name
	if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
		t.Errorf("%s: may write to its root file system", where)
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() {
		t.Errorf("%s: requests no CPU or no memory", where)
	}
	if c.Resources.Limits.Memory().IsZero() {
		t.Errorf("%s: has no memory limit", where)
	}
	_, tag, tagged := strings.Cut(c.Image[strings.LastIndex(c.Image, "/")+1:], ":")
	if !tagged || tag == "latest" {
		t.Errorf("%s: the image %s has no fixed tag", where, c.Image)
	}
	names := map[string]bool{}
	for _, e := range c.Env {
		if names[e.Name] {
			t.Errorf("%s: %s is set twice, which breaks upgrades", where, e.Name)
		}
		names[e.Name] = true
	}
	volumes := map[string]bool{}
	for _, v := range p.spec.Volumes {
		volumes[v.Name] = true
	}
	for _, m := range c.VolumeMounts {
		if m.SubPath != "" {
			t.Errorf("%s: %s is mounted by subPath, which is never updated", where, m.Name)
		}
		// The claims of a StatefulSet are not in the pod's volumes.
		if !volumes[m.Name] && !(m.Name == "data" && strings.HasPrefix(p.owner, "StatefulSet")) {
			t.Errorf("%s: mounts %s, which is not a volume", where, m.Name)
		}
	}
}

// Programs ignore unknown variables, so a misspelt one would have no effect.
func testPodsEveryVariableIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, match := range regexp.MustCompile("`(VITRINE_[A-Z0-9_]+)`").FindAllStringSubmatch(string(text), -1) {
		known[match[1]] = true
	}
	everyRender(t, func(t *testing.T, _ string, r rendered) {
		for _, p := range r.pods {
			for _, c := range p.containers() {
				for _, e := range c.Env {
					if strings.HasPrefix(e.Name, "VITRINE_") && !known[e.Name] {
						t.Errorf("%s/%s: %s is not in docs/configuration.md", p.owner, c.Name, e.Name)
					}
				}
			}
		}
	})
}

func TestObjects(t *testing.T) {
	t.Parallel()
	t.Run("references_exist", testObjectsReferencesExist)
	t.Run("selectors_match_pods", testObjectsSelectorsMatchPods)
	t.Run("names_are_short_and_unique", testObjectsNamesAreShortAndUnique)
}

// A referenced object has to exist, with the referenced key.
func testObjectsReferencesExist(t *testing.T) {
	everyRender(t, func(t *testing.T, _ string, r rendered) {
		keys := map[string][]string{}
		for _, o := range r.objects {
			switch o.Kind {
			case "Secret":
				for key := range as[corev1.Secret](t, o).Data {
					keys["Secret "+o.Name] = append(keys["Secret "+o.Name], key)
				}
			case "ConfigMap":
				for key := range as[corev1.ConfigMap](t, o).Data {
					keys["ConfigMap "+o.Name] = append(keys["ConfigMap "+o.Name], key)
				}
			case "ServiceAccount":
				keys["ServiceAccount "+o.Name] = nil
			}
		}
		for _, p := range r.pods {
			if account := p.spec.ServiceAccountName; account != "" {
				if _, ok := keys["ServiceAccount "+account]; !ok {
					t.Errorf("%s: there is no ServiceAccount %s", p.owner, account)
				}
			}
			for _, c := range p.containers() {
				for _, e := range c.Env {
					if e.ValueFrom == nil || e.ValueFrom.SecretKeyRef == nil {
						continue
					}
					ref := e.ValueFrom.SecretKeyRef
					if ref.Name == "" || ref.Key == "" {
						t.Errorf("%s: %s comes from the key %q of the secret %q", p.owner, e.Name, ref.Key, ref.Name)
					}
					// Other secrets are created by the user or by an operator.
					if have, ours := keys["Secret "+ref.Name]; ours && !slices.Contains(have, ref.Key) {
						t.Errorf("%s: %s: the secret %s has no %s", p.owner, e.Name, ref.Name, ref.Key)
					}
				}
			}
			for _, v := range p.spec.Volumes {
				if v.ConfigMap == nil || strings.HasSuffix(v.ConfigMap.Name, "-published-pipeline") && p.component() != "controller" {
					continue // the controller writes that one
				}
				if keys["ConfigMap "+v.ConfigMap.Name] == nil {
					t.Errorf("%s: there is no ConfigMap %s", p.owner, v.ConfigMap.Name)
				}
			}
		}
	})
}

func testObjectsSelectorsMatchPods(t *testing.T) {
	everyRender(t, func(t *testing.T, _ string, r rendered) {
		for name, service := range r.services {
			if service.Spec.Type == corev1.ServiceTypeExternalName {
				continue
			}
			found := 0
			for _, p := range r.pods {
				if !contains(p.labels, service.Spec.Selector) {
					continue
				}
				found++
				for _, port := range service.Spec.Ports {
					if _, ok := p.port(port.TargetPort.StrVal); port.TargetPort.StrVal != "" && !ok {
						t.Errorf("Service %s: %s has no port %s", name, p.owner, port.TargetPort.StrVal)
					}
				}
			}
			if found != 1 {
				t.Errorf("Service %s: selects %d workloads", name, found)
			}
		}
	})
}

func testObjectsNamesAreShortAndUnique(t *testing.T) {
	everyRender(t, func(t *testing.T, _ string, r rendered) {
		seen := map[string]bool{}
		for _, o := range r.objects {
			id := o.Kind + "/" + o.Name
			if seen[id] {
				t.Errorf("%s exists twice", id)
			}
			seen[id] = true
			for _, problem := range validation.IsDNS1123Label(o.Name) {
				t.Errorf("%s: %s", id, problem)
			}
			for key, value := range o.Labels {
				for _, problem := range validation.IsValidLabelValue(value) {
					t.Errorf("%s: label %s: %s", id, key, problem)
				}
			}
			if o.Namespace != "" && o.Namespace != namespace {
				t.Errorf("%s: is in the namespace %s", id, o.Namespace)
			}
		}
	})
}

// contains reports whether labels has all labels of a selector.
func contains(labels, selector map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}
