package controller_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"vitrine.io/pkg/adapter/controller"
	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/servers"
)

const (
	timeout     = 60 * time.Second // of what the API server and a controller do within a second
	poll        = 20 * time.Millisecond
	crdFile     = "../../../charts/vitrine-crds/templates/vitrine.io_imagepipelines.yaml"
	backfillCRD = "../../../charts/vitrine-crds/templates/vitrine.io_imagebackfills.yaml"
	rendered    = "../../../charts/vitrine/tests/golden/resource.yaml"
	sample      = "../../../k8s/imagepipeline.yaml"
	// The names in the golden render.
	configMap = "shop-vitrine-published-pipeline"
	account   = "shop-vitrine-controller"
)

func TestMain(m *testing.M) {
	controller.BridgeLogger(zap.NewNop())
	servers.Main(m,
		goleak.IgnoreTopFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"), // it lasts as long as the process
	)
}

// cluster is a namespace of the API server with the objects of the chart that a controller needs.
type cluster struct {
	t         *testing.T
	admin     client.Client
	api       servers.Kubernetes
	namespace string
	poll      time.Duration     // of the controllers
	backfills *backfill.Manager // of the controllers; nil: they have no backfills
}

var installCRD sync.Mutex // the definition belongs to all tests

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, api: servers.KubernetesAPI(t), poll: 100 * time.Millisecond}
	var err error
	if c.admin, err = client.New(c.restConfig(c.api.Token), client.Options{}); err != nil {
		t.Fatal(err)
	}
	c.install()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}
	c.must(c.admin.Create(t.Context(), namespace))
	c.namespace = namespace.Name
	text, err := os.ReadFile(rendered)
	c.must(err)
	for _, document := range strings.Split(string(text), "\n---\n") {
		obj := c.decode([]byte(strings.ReplaceAll(document, "namespace: catalogue", "namespace: "+c.namespace)))
		switch obj.GetKind() {
		case "ServiceAccount", "Role", "RoleBinding":
			c.must(c.admin.Create(t.Context(), obj))
		}
	}
	return c
}

// install applies the definition of the chart and waits until the API server serves it.
func (c *cluster) install() {
	c.t.Helper()
	installCRD.Lock()
	defer installCRD.Unlock()
	for kind, file := range map[string]string{pipeline.Kind: crdFile, controller.BackfillKind: backfillCRD} {
		text, err := os.ReadFile(file)
		c.must(err)
		c.apply(c.decode(text))
		c.eventually("the definition is established", func() error { return list(c.t, c.admin, kind, "default") })
	}
}

// list lists the objects of a kind in a namespace.
func list(t *testing.T, api client.Client, kind, namespace string) error {
	t.Helper()
	objects := &unstructured.UnstructuredList{}
	objects.SetGroupVersionKind(schema.FromAPIVersionAndKind(pipeline.APIVersion, kind+"List"))
	return api.List(t.Context(), objects, client.InNamespace(namespace))
}

func (c *cluster) restConfig(token string) *rest.Config {
	return &rest.Config{
		Host: c.api.URL, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: c.api.CA}, QPS: 500, Burst: 1000,
	}
}

// accountConfig returns the configuration of a client that is the controller's ServiceAccount.
func (c *cluster) accountConfig() *rest.Config {
	c.t.Helper()
	request := &authenticationv1.TokenRequest{}
	owner := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: account}}
	c.must(c.admin.SubResource("token").Create(c.t.Context(), owner, request))
	return c.restConfig(request.Status.Token)
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// decode decodes one YAML document.
func (c *cluster) decode(text []byte) *unstructured.Unstructured {
	c.t.Helper()
	obj := &unstructured.Unstructured{}
	c.must(yaml.Unmarshal(text, &obj.Object))
	return obj
}

// apply applies an object as kubectl does.
func (c *cluster) apply(obj *unstructured.Unstructured) {
	c.t.Helper()
	c.must(c.admin.Apply(c.t.Context(), client.ApplyConfigurationFromUnstructured(obj), client.FieldOwner("test"),
		client.ForceOwnership))
}

// eventually waits until check returns nil.
func (c *cluster) eventually(what string, check func() error) {
	c.t.Helper()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for deadline := time.Now().Add(timeout); ; <-tick.C {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: %v", what, err)
		}
	}
}

// document returns a pipeline with the name of a document and further fields of its spec.
func document(name, more string) string {
	return fmt.Sprintf("apiVersion: vitrine.io/v1alpha1\nkind: ImagePipeline\nmetadata: {name: %s}\nspec:\n"+
		"  renditions: [{name: thumb, width: 320, formats: [{format: jpeg}]}]\n  %s\n", name, more)
}

// set applies a pipeline.
func (c *cluster) set(text string) {
	c.t.Helper()
	obj := c.decode([]byte(text))
	obj.SetNamespace(c.namespace)
	c.apply(obj)
}

// get returns a pipeline as the API server does, and its status, which kstatus has to read as it is meant.
func (c *cluster) get(name string) (*unstructured.Unstructured, controller.Status) {
	c.t.Helper()
	obj := &unstructured.Unstructured{}
	obj.SetGroupVersionKind(schema.FromAPIVersionAndKind(pipeline.APIVersion, pipeline.Kind))
	c.must(c.admin.Get(c.t.Context(), client.ObjectKey{Namespace: c.namespace, Name: name}, obj))
	status, err := controller.StatusOf(obj)
	c.must(err)
	checkVerdict(c.t, obj, status)
	checkHealth(c.t, obj)
	return obj, status
}

// published returns the file of the pods, "" if there is no ConfigMap.
func (c *cluster) published() string {
	c.t.Helper()
	var m corev1.ConfigMap
	err := c.admin.Get(c.t.Context(), client.ObjectKey{Namespace: c.namespace, Name: configMap}, &m)
	c.must(client.IgnoreNotFound(err))
	return m.Data["imagepipeline.yaml"]
}

// await waits until a pipeline is observed at its generation and has a condition with this status and reason.
func (c *cluster) await(name, condition string, status metav1.ConditionStatus, reason string) controller.Status {
	c.t.Helper()
	var got controller.Status
	c.eventually(fmt.Sprintf("%s is %s by %s", condition, status, reason), func() error {
		obj, s := c.get(name)
		got = s
		is := meta.FindStatusCondition(s.Conditions, condition)
		if s.ObservedGeneration != obj.GetGeneration() || is == nil || is.Status != status || is.Reason != reason {
			return fmt.Errorf("at generation %d: %+v", obj.GetGeneration(), s)
		}
		return nil
	})
	return got
}

// fakeHeartbeats are the reports of instances that read the ConfigMap when the test says so.
type fakeHeartbeats struct {
	mu      sync.Mutex
	err     error
	reports []pipeline.Report
}

func (f *fakeHeartbeats) Heartbeats(context.Context, time.Duration) ([]pipeline.Report, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reports, f.err
}

func (f *fakeHeartbeats) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// report replaces the reports by those of instances with these revisions; a revision that begins with ! is a refusal.
func (f *fakeHeartbeats) report(revisions ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reports = nil
	for i, revision := range revisions {
		r := pipeline.Report{Role: "worker", Instance: fmt.Sprint("w-", i), Revision: revision}
		if id, refused := strings.CutPrefix(revision, "!"); refused {
			r.Revision, r.Error = id, "spec.renditions: too modern"
		}
		f.reports = append(f.reports, r)
	}
}

var errAway = errors.New("the database is away")

// replica is a running controller.
type replica struct {
	registry *prometheus.Registry
	check    func(context.Context) error
	stop     func()
	ended    chan error
}

// start starts a replica under the chart's ServiceAccount. It ends with the test.
func (c *cluster) start(beats controller.Heartbeats, bounds pipeline.Bounds) *replica {
	c.t.Helper()
	r := &replica{registry: prometheus.NewRegistry(), ended: make(chan error, 1)}
	one, err := controller.New(controller.Config{
		Namespace: c.namespace, Pipeline: "default", ConfigMap: configMap, Lease: account,
		Poll: c.poll, LeaseTime: 4 * time.Second, Backfills: c.backfills != nil,
	}, c.accountConfig(), controller.Deps{
		Backfills: c.backfills,
		Bounds:    bounds, Heartbeats: beats, MaxAge: time.Minute, Now: time.Now, Registry: r.registry, Log: zap.NewNop(),
	})
	c.must(err)
	r.check = one.Check
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	go func() { r.ended <- one.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-r.ended; err != nil {
			c.t.Errorf("the controller ended: %v", err)
		}
	})
	c.t.Cleanup(r.stop)
	return r
}

// read returns the content of a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
