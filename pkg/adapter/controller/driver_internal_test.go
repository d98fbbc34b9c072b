package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/catalogtest"
)

// failing are writes of which the one with a number fails, before or after it is carried out.
type failing struct {
	writes, fails int
	after         bool
}

var errKilled = errors.New("killed")

// write carries out a write, unless it is the one that fails.
func (f *failing) write(do func() error) error {
	f.writes++
	if f.writes != f.fails {
		return do()
	}
	if f.after {
		if err := do(); err != nil {
			return err
		}
	}
	return errKilled
}

// newDriver returns a driver over a fake API server with a pipeline that is in force and was another one before, and with a
// real database in which a hundred images have renditions of the earlier one.
func newDriver(t *testing.T, f *failing) (*driver, client.Client) {
	t.Helper()
	c := catalogtest.New(t, 1)
	obj := newObject()
	next := pipeline.Default()
	next.Spec.Renditions[0].Width++
	c.Must(obj.UnmarshalJSON(next.Document()))
	obj.SetNamespace("a")
	obj.SetUID("u")
	obj.SetGeneration(2)
	before, now := pipeline.NewRevision(pipeline.Default()), pipeline.NewRevision(next)
	c.Must(c.Store.SavePipeline(t.Context(), before.Hash(), before.Document()))
	status := Status{ObservedGeneration: 2, Hash: now.Hash(), History: []PublishedRevision{
		{Revision: now.ID(), Hash: now.Hash(), Generation: 2}, {Revision: before.ID(), Hash: before.Hash(), Generation: 1},
	}}
	for _, kind := range []string{Published, InForce} {
		status.Conditions = append(status.Conditions,
			metav1.Condition{Type: kind, Status: metav1.ConditionTrue, ObservedGeneration: 2, Reason: "x"})
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&status)
	c.Must(err)
	obj.Object["status"] = fields
	api := newFake(c.T).WithObjects(obj).WithStatusSubresource(obj, newBackfillObject()).
		WithInterceptorFuncs(interceptor.Funcs{
			Create: func(ctx context.Context, w client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
				return f.write(func() error { return w.Create(ctx, obj, opts...) })
			},
			SubResourcePatch: func(ctx context.Context, w client.Client, name string, obj client.Object, patch client.Patch,
				opts ...client.SubResourcePatchOption,
			) error {
				return f.write(func() error { return w.SubResource(name).Patch(ctx, obj, patch, opts...) })
			},
		}).Build()
	return &driver{
		cfg: Config{Namespace: "a", Pipeline: "default", Poll: time.Minute}, bounds: pipeline.DefaultBounds(), client: api,
		live: api, events: &events.FakeRecorder{}, metrics: newMetrics(prometheus.NewRegistry()), log: zap.NewNop(),
		now: func() metav1.Time { return metav1.NewTime(time.Now()).Rfc3339Copy() }, written: map[types.UID]time.Time{},
		tried: map[int64]time.Time{},
		manager: &backfill.Manager{By: backfill.Resource, ManagerDeps: backfill.ManagerDeps{
			Backfills: c.Store, Images: c.Store, Sampler: someImages{}, Pipelines: c.Store, Canaries: &oneCanary{backfills: c.Store},
		}},
	}, api
}

// someImages is a sample of a hundred images of which each is selected.
type someImages struct{}

func (someImages) Extent(context.Context) (catalog.ProductID, catalog.ImageID, error) {
	return 1, 100, nil
}

func (someImages) Sample(context.Context, backfill.Backfill, map[string]string, []int64) (backfill.Sample, error) {
	return backfill.Sample{Matched: 100}, nil
}

func TestDriver(t *testing.T) {
	t.Parallel()
	t.Run("every_write_may_fail", testDriverEveryWriteMayFail)
	t.Run("counts_are_written_every_15_s", testDriverCountsAreWrittenEvery15s)
	t.Run("gates_start_a_canary_once", testDriverGatesStartACanaryOnce)
}

// A controller that is killed before or after a write is the same as a write that fails before or after it is carried out:
// the next reconcile begins with nothing but Postgres and the API server.
func testDriverEveryWriteMayFail(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		for n := range 4 {
			t.Run(fmt.Sprintf("write_%d_after_%v", n, after), func(t *testing.T) {
				t.Parallel()
				f := &failing{fails: n, after: after}
				d, api := newDriver(t, f)
				failures := 0
				for range 4 {
					if _, err := d.Reconcile(t.Context(), reconcile.Request{}); err != nil {
						failures++
					}
					d.written = map[types.UID]time.Time{}
				}
				if failures != min(n, 1) || f.writes < 3 {
					t.Errorf("%d of %d reconciles failed with %d writes", failures, 4, f.writes)
				}
				rows, err := d.manager.Backfills.ListBackfills(t.Context())
				if err != nil || len(rows) != 1 || rows[0].State != backfill.Proposed || rows[0].Generation != 2 {
					t.Errorf("got %+v, %v", rows, err)
				}
				obj, status := newObject(), BackfillStatus{}
				if err := api.Get(t.Context(), client.ObjectKey{Namespace: "a", Name: "default"}, obj); err != nil {
					t.Fatal(err)
				}
				if s, err := statusOf(obj); err != nil || s.Backfill == nil || *s.Backfill != (ProposedBackfill{2, "default-1"}) {
					t.Errorf("got %+v, %v", s.Backfill, err)
				}
				obj = getBackfill(t, api, &status)
				if status.State != "proposed" || specOf(t, obj)["target"] != rows[0].TargetHash {
					t.Errorf("got %v", obj.Object)
				}
			})
		}
	}
}

// specOf returns the spec of an object, which may be changed.
func specOf(t *testing.T, obj *unstructured.Unstructured) map[string]any {
	t.Helper()
	spec, ok := obj.Object["spec"].(map[string]any)
	if !ok {
		t.Fatalf("it has no spec: %v", obj.Object)
	}
	return spec
}

// getBackfill returns default-1 and decodes its status.
func getBackfill(t *testing.T, api client.Client, status *BackfillStatus) *unstructured.Unstructured {
	t.Helper()
	return getBackfillNamed(t, api, "default-1", status)
}

func getBackfillNamed(t *testing.T, api client.Client, name string, status *BackfillStatus) *unstructured.Unstructured {
	t.Helper()
	obj := newBackfillObject()
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: "a", Name: name}, obj); err != nil {
		t.Fatal(err)
	}
	if err := decodeJSON(obj.Object["status"], status); err != nil {
		t.Fatal(err)
	}
	return obj
}

func testDriverCountsAreWrittenEvery15s(t *testing.T) {
	t.Parallel()
	d, api := newDriver(t, &failing{})
	now := time.Now()
	d.now = func() metav1.Time { return metav1.NewTime(now).Rfc3339Copy() }
	done := func(n int64, state backfill.State, later time.Duration) int64 {
		t.Helper()
		now = now.Add(later)
		_, err := d.manager.Backfills.EditBackfill(t.Context(), "default-1", func(b *backfill.Backfill, at time.Time) error {
			b.State, b.Open, b.Done, b.StartedAt = state, true, n, at
			return nil
		})
		if err == nil {
			_, err = d.Reconcile(t.Context(), reconcile.Request{})
		}
		if err != nil {
			t.Fatal(err)
		}
		var status BackfillStatus
		getBackfill(t, api, &status)
		return status.Done
	}
	if _, err := d.Reconcile(t.Context(), reconcile.Request{}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		done  int64
		state backfill.State
		later time.Duration
		want  int64
	}{
		{1, backfill.Running, time.Second, 1}, {2, backfill.Running, 14 * time.Second, 1}, {3, backfill.Running, time.Second, 3},
		{4, backfill.Complete, time.Second, 4},
	} {
		if got := done(step.done, step.state, step.later); got != step.want {
			t.Errorf("%d are done after %s: the status has %d, want %d", step.done, step.later, got, step.want)
		}
	}
}

// oneCanary starts canaries of three samples, or finds none.
type oneCanary struct {
	backfill.Canaries

	backfills backfill.Backfills
	searches  int
	none      bool
	err       error // of every search
}

func (o *oneCanary) PickSamples(context.Context, backfill.Backfill, map[string]string, []int64, int,
) ([]backfill.ImageRef, error) {
	o.searches++
	if o.none || o.err != nil {
		return nil, o.err
	}
	return []backfill.ImageRef{{ImageID: 1}, {ImageID: 2}, {ImageID: 3}}, nil
}

func (o *oneCanary) StartCanary(ctx context.Context, name string, _ []backfill.ImageRef,
	fn func(*backfill.Backfill, time.Time) error,
) (backfill.Backfill, error) {
	return o.backfills.EditBackfill(ctx, name, fn)
}

func testDriverGatesStartACanaryOnce(t *testing.T) {
	t.Parallel()
	d, api := newDriver(t, &failing{})
	canaries := d.manager.Canaries.(*oneCanary)
	canaries.none = true
	now := time.Now()
	d.now = func() metav1.Time { return metav1.NewTime(now).Rfc3339Copy() }
	editPipeline(t, api, autoWithGate)
	reconciles := func(later time.Duration, searches int, want string) {
		t.Helper()
		now = now.Add(later)
		for range 2 {
			if _, err := d.Reconcile(t.Context(), reconcile.Request{}); err != nil {
				t.Fatal(err)
			}
		}
		var status BackfillStatus
		getBackfill(t, api, &status)
		if c := meta.FindStatusCondition(status.Conditions, Canaried); canaries.searches != searches || c.Reason != want {
			t.Errorf("after %s: %d searches, %+v, want %d and %s", later, canaries.searches, c, searches, want)
		}
	}
	reconciles(0, 1, ReasonNoCanary)
	canaries.none = false
	reconciles(time.Minute, 1, ReasonNoCanary)
	reconciles(canaryInterval, 2, ReasonCanaryRunning)
	reconciles(canaryInterval, 2, ReasonCanaryRunning)
	editRow(t, d, "default-1", func(b *backfill.Backfill) { b.Canary.State, b.Canary.Done = backfill.CanaryComplete, 3 })
	reconciles(0, 2, ReasonCanaryComplete)
	if rows, err := d.manager.Backfills.ListBackfills(t.Context()); err != nil || rows[0].State != backfill.Approved {
		t.Errorf("got %+v, %v", rows, err)
	}
}
