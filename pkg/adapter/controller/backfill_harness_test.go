package controller_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vitrine.io/pkg/adapter/controller"
	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/catalogtest"
)

// oldPipeline and newPipeline differ in their renditions.
const (
	oldPipeline = "width: 320"
	newPipeline = "width: 321"
)

// wide returns a pipeline with that width and further fields of the spec.
func wide(width, more string) string {
	return strings.Replace(document("default", more), oldPipeline, width, 1)
}

// engine is an installation with ready images on a PostgreSQL server, and a namespace whose controllers have its backfills.
// No walk runs: the test changes rows as one would.
type engine struct {
	*cluster
	catalog *catalogtest.Catalog
	manager backfill.Manager // that of a controller
	beats   *fakeHeartbeats
	away    atomic.Bool // Postgres, for the controllers
}

// awayBackfills fail while Postgres is away.
type awayBackfills struct {
	backfill.Backfills
	away *atomic.Bool
}

func (a awayBackfills) ListBackfills(ctx context.Context) ([]backfill.Backfill, error) {
	if a.away.Load() {
		return nil, fault.Wrap(errAway, fault.Unavailable, "database_unavailable", "the database is away")
	}
	return a.Backfills.ListBackfills(ctx)
}

// newEngine returns an engine with so many ready images that were made by the old pipeline. The first has an original.
func newEngine(t *testing.T, images int) *engine {
	t.Helper()
	e := &engine{cluster: newCluster(t), catalog: catalogtest.New(t, 1), beats: &fakeHeartbeats{}}
	store := e.catalog.Store
	e.manager = backfill.Manager{By: backfill.Resource, ManagerDeps: backfill.ManagerDeps{
		Backfills: awayBackfills{store, &e.away}, Images: store, Sampler: store, Pipelines: store, Canaries: store,
	}}
	e.backfills = &e.manager
	conn, err := pgx.Connect(t.Context(), e.catalog.DSN)
	e.must(err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	old := revisionOf(t, wide(oldPipeline, ""))
	_, err = conn.Exec(t.Context(), `
		INSERT INTO images (product_id, position, source_url, status, pipeline_hash, output_hash, original_key)
		SELECT $1, n, 'https://example.com/', 'ready', $2, $3, CASE n WHEN 1 THEN 'originals/1' ELSE '' END
		FROM generate_series(1, $4::int) n`,
		int64(e.catalog.Product.ID), old.Hash(), old.Spec().OutputHash(), images)
	e.must(err)
	return e
}

// roll applies a pipeline and brings it into force, as the api processes do.
func (e *engine) roll(text string) *pipeline.Revision {
	e.t.Helper()
	r := revisionOf(e.t, text)
	e.must(e.catalog.Store.SavePipeline(e.t.Context(), r.Hash(), r.Document()))
	e.beats.report(r.ID())
	e.set(text)
	e.await("default", controller.Ready, metav1.ConditionTrue, controller.ReasonAllInstances)
	return r
}

// change starts a controller, and rolls from the old pipeline to the new one with further fields of the spec.
func (e *engine) change(more string) *pipeline.Revision {
	e.t.Helper()
	e.roll(wide(oldPipeline, more))
	return e.roll(wide(newPipeline, more))
}

func (e *engine) run() *replica {
	e.t.Helper()
	return e.start(e.beats, pipeline.DefaultBounds())
}

// rows returns all backfills, the newest first.
func (e *engine) rows() []backfill.Backfill {
	e.t.Helper()
	list, err := e.catalog.Store.ListBackfills(e.t.Context())
	e.must(err)
	return list
}

// edit changes a row, as a walk does.
func (e *engine) edit(name string, fn func(b *backfill.Backfill, now time.Time)) {
	e.t.Helper()
	_, err := e.catalog.Store.EditBackfill(e.t.Context(), name, func(b *backfill.Backfill, now time.Time) error {
		fn(b, now)
		return nil
	})
	e.must(err)
}

// makeBackfill creates an ImageBackfill with fields of its spec.
func (e *engine) makeBackfill(name, spec string) error {
	e.t.Helper()
	obj := e.backfillKey(name)
	obj.Object["spec"] = e.decode([]byte("spec: {pipeline: {name: default}, " + spec + "}")).Object["spec"]
	return e.admin.Create(e.t.Context(), obj, client.FieldValidation("Strict"))
}

// patch changes the spec of an ImageBackfill.
func (e *engine) patch(name, spec string) error {
	e.t.Helper()
	return e.admin.Patch(e.t.Context(), e.backfillKey(name),
		client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec": %s}`, spec)))
}

// backfillKey returns an ImageBackfill with only its name.
func (e *engine) backfillKey(name string) *unstructured.Unstructured {
	obj := &unstructured.Unstructured{}
	obj.SetGroupVersionKind(schema.FromAPIVersionAndKind(pipeline.APIVersion, controller.BackfillKind))
	obj.SetNamespace(e.namespace)
	obj.SetName(name)
	return obj
}

// backfill returns an ImageBackfill and its status, which kstatus and Argo CD have to read alike.
func (e *engine) backfill(name string) (*unstructured.Unstructured, controller.BackfillStatus, error) {
	e.t.Helper()
	obj := e.backfillKey(name)
	if err := e.admin.Get(e.t.Context(), client.ObjectKeyFromObject(obj), obj); err != nil {
		return nil, controller.BackfillStatus{}, err
	}
	var s controller.BackfillStatus
	text, err := json.Marshal(obj.Object["status"])
	e.must(err)
	e.must(json.Unmarshal(text, &s))
	checkHealth(e.t, obj)
	return obj, s, nil
}

// awaitBackfill waits until an ImageBackfill is observed at its generation and has a condition with this status and reason.
func (e *engine) awaitBackfill(name, condition string, want metav1.ConditionStatus, reason string,
) controller.BackfillStatus {
	e.t.Helper()
	var got controller.BackfillStatus
	e.eventually(fmt.Sprintf("%s: %s is %s by %s", name, condition, want, reason), func() error {
		obj, s, err := e.backfill(name)
		if err != nil {
			return err
		}
		got = s
		is := meta.FindStatusCondition(s.Conditions, condition)
		if s.ObservedGeneration != obj.GetGeneration() || is == nil || is.Status != want || is.Reason != reason {
			return fmt.Errorf("at generation %d: %+v", obj.GetGeneration(), s)
		}
		return nil
	})
	return got
}

// awaitProposal waits until the pipeline's status names the backfill of that generation; "" if there is none to make.
func (e *engine) awaitProposal(generation int64, name string) {
	e.t.Helper()
	e.eventually("the change is answered with "+name, func() error {
		_, s := e.get("default")
		if s.Backfill == nil || s.Backfill.Generation != generation || s.Backfill.Name != name {
			return fmt.Errorf("got %+v", s.Backfill)
		}
		return nil
	})
}

// wantVerdict requires what kstatus and Argo CD make of an ImageBackfill.
func (e *engine) wantVerdict(name string, want status.Status, health string) {
	e.t.Helper()
	obj, _, err := e.backfill(name)
	e.must(err)
	if got := verdict(e.t, obj); got != want {
		e.t.Errorf("kstatus reads %s, want %s, from %v", got, want, obj.Object["status"])
	}
	if got := checkHealth(e.t, obj); got != health {
		e.t.Errorf("Argo CD shows %s, want %s", got, health)
	}
}
