package system_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"vitrine.io/pkg/test/servers"
)

// kubernetes is a namespace of the API server with the definitions.
type kubernetes struct {
	t         *testing.T
	client    client.Client
	namespace string
}

func newKubernetes(t *testing.T, api servers.Kubernetes) *kubernetes {
	t.Helper()
	k := &kubernetes{t: t, namespace: "default"}
	var err error
	k.client, err = client.New(&rest.Config{
		Host: api.URL, BearerToken: api.Token, TLSClientConfig: rest.TLSClientConfig{CAData: api.CA},
	}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"imagepipelines", "imagebackfills"} {
		text, err := os.ReadFile(repository + "/charts/vitrine-crds/templates/vitrine.io_" + kind + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if err := k.apply(string(text)); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func (k *kubernetes) apply(text string) error {
	obj := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &obj.Object); err != nil {
		return err
	}
	if obj.GetKind() == "ImagePipeline" {
		obj.SetNamespace(k.namespace)
	}
	return k.client.Apply(k.t.Context(), client.ApplyConfigurationFromUnstructured(obj), client.FieldOwner("test"),
		client.ForceOwnership)
}

// reason returns the status' reason and revision of the pipeline.
func (k *kubernetes) reason() (reason, revision string, err error) {
	obj := &unstructured.Unstructured{}
	obj.SetAPIVersion("vitrine.io/v1alpha1")
	obj.SetKind("ImagePipeline")
	if err := k.client.Get(k.t.Context(), client.ObjectKey{Namespace: k.namespace, Name: "default"}, obj); err != nil {
		return "", "", err
	}
	reason, _, first := unstructured.NestedString(obj.Object, "status", "reason")
	revision, _, second := unstructured.NestedString(obj.Object, "status", "revision")
	return reason, revision, errors.Join(first, second)
}

// kubeconfig writes the file with which a program reaches the API server.
func kubeconfig(t *testing.T, api servers.Kubernetes) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: x
contexts: [{name: x, context: {cluster: x, user: x}}]
clusters: [{name: x, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: x, user: {token: %s}}]
`, api.URL, base64.StdEncoding.EncodeToString(api.CA), api.Token)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// The test copies the ConfigMap into the API's volume, as a kubelet does.
func TestController(t *testing.T) {
	t.Parallel()
	api := servers.KubernetesAPI(t)
	k, v := newKubernetes(t, api), newVolume(t)
	s := newSystem(t, map[string]string{
		"VITRINE_PIPELINE_FILE": v.file(), "VITRINE_CONTROLLER_NAMESPACE": k.namespace,
		"VITRINE_CONTROLLER_CONFIG_MAP": "published", "VITRINE_CONTROLLER_LEASE": "controller",
		"VITRINE_CONTROLLER_KUBECONFIG": kubeconfig(t, api), "VITRINE_CONTROLLER_POLL": "200ms",
	})
	server := s.start("api")
	controller := s.launch("controller")
	changed := "apiVersion: vitrine.io/v1alpha1\nkind: ImagePipeline\nmetadata: {name: default}\nspec:\n" +
		"  renditions: [{name: tiny, width: 64, formats: [{format: jpeg}]}]\n"
	revision := s.revision(changed)
	eventually(t, "the pipeline is applied", func() error { return k.apply(changed) })
	await := func(want string) {
		t.Helper()
		eventually(t, "the reason is "+want, func() error {
			reason, got, err := k.reason()
			if err != nil || reason != want || got != revision {
				return fmt.Errorf("got %s at revision %s, %w, want %s at %s", reason, got, err, want, revision)
			}
			return nil
		})
	}
	await("RollingOut")
	controller.await()
	var published corev1.ConfigMap
	if err := k.client.Get(t.Context(), client.ObjectKey{Namespace: k.namespace, Name: "published"}, &published); err != nil {
		t.Fatal(err)
	}
	v.publish(published.Data["imagepipeline.yaml"])
	s.awaitPipeline(revision, "", server)
	await("AllInstances")
	if err := k.apply(strings.Replace(changed, "jpeg}]}]", "jpeg}]}]\n  retry: {maxAge: 1m}", 1)); err != nil {
		t.Fatal(err)
	}
	await("Invalid")
}
