package controller

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"vitrine.io/pkg/foundation/pipeline"
)

// newFake returns a builder of a client with a scheme of its own: the default one is shared, and clients write to it.
func newFake(t *testing.T) *fake.ClientBuilder {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme)
}

func TestReconcile(t *testing.T) {
	t.Parallel()
	t.Run("status_that_cannot_be_decoded_is_replaced", testReconcileStatusThatCannotBeDecodedIsReplaced)
}

// The API server of the other tests refuses such a status, but another version of the definition may allow it.
func testReconcileStatusThatCannotBeDecodedIsReplaced(t *testing.T) {
	t.Parallel()
	obj, key := newObject(), client.ObjectKey{Namespace: "a", Name: "default"}
	if err := obj.UnmarshalJSON(pipeline.Default().Document()); err != nil {
		t.Fatal(err)
	}
	obj.SetNamespace(key.Namespace)
	obj.SetName(key.Name)
	obj.Object["status"] = map[string]any{"history": "long"}
	api := newFake(t).WithObjects(obj).WithStatusSubresource(obj).Build()
	r := &reconciler{
		cfg: Config{Namespace: key.Namespace, Pipeline: key.Name, ConfigMap: "file"}, bounds: pipeline.DefaultBounds(),
		client: api, events: &events.FakeRecorder{}, heartbeats: func() snapshot { return snapshot{} },
		metrics: newMetrics(prometheus.NewRegistry()), log: zap.NewNop(),
		now: func() metav1.Time { return metav1.NewTime(time.Unix(0, 0)) },
	}
	if _, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: key}); err != nil {
		t.Fatal(err)
	}
	var m corev1.ConfigMap
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: "a", Name: "file"}, &m); err != nil || m.Data[fileKey] == "" {
		t.Errorf("published %q, %v", m.Data, err)
	}
	if err := api.Get(t.Context(), key, obj); err != nil {
		t.Fatal(err)
	}
	if status, err := statusOf(obj); err != nil || status.Revision == "" || len(status.History) != 1 {
		t.Errorf("got %+v, %v", status, err)
	}
}
