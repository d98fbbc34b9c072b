package controller_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vitrine.io/pkg/adapter/controller"
	"vitrine.io/pkg/foundation/pipeline"
)

// revisionOf returns the revision of a document under the default bounds.
func revisionOf(t *testing.T, text string) *pipeline.Revision {
	t.Helper()
	p, err := pipeline.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return pipeline.NewRevision(p)
}

func TestController(t *testing.T) {
	t.Parallel()
	t.Run("publishes_and_becomes_ready", testPublishesAndBecomesReady)
	t.Run("refused_spec_leaves_the_last_good_one", testRefusedSpecLeavesTheLastGoodOne)
	t.Run("in_force_latches", testInForceLatches)
	t.Run("postgres_is_away_from_the_start", testPostgresIsAwayFromTheStart)
	t.Run("other_pipeline_is_not_selected", testOtherPipelineIsNotSelected)
	t.Run("deleted_pipeline_leaves_the_file", testDeletedPipelineLeavesTheFile)
	t.Run("config_map_is_repaired", testConfigMapIsRepaired)
	t.Run("not_ready_without_its_lists", testNotReadyWithoutItsLists)
	t.Run("annotations_may_have_any_character", testAnnotationsMayHaveAnyCharacter)
	t.Run("config_map_names_the_revision_of_other_bounds", testConfigMapNamesTheRevisionOfOtherBounds)
	t.Run("second_replica_takes_over", testSecondReplicaTakesOver)
}

func testPublishesAndBecomesReady(t *testing.T) {
	t.Parallel()
	c, beats := newCluster(t), &fakeHeartbeats{}
	text := read(t, sample)
	revision := revisionOf(t, text)
	c.set(text)
	if _, before := c.get("default"); before.ObservedGeneration != -1 {
		t.Errorf("observedGeneration is %d before a controller runs", before.ObservedGeneration)
	}
	beats.report("older", revision.ID())
	c.start(beats, pipeline.DefaultBounds())
	status := c.await("default", controller.InForce, metav1.ConditionFalse, controller.ReasonRollingOut)
	if status.Instances.Summary != "1/2" || !meta.IsStatusConditionTrue(status.Conditions, controller.Reconciling) {
		t.Errorf("got %+v", status)
	}
	beats.report(revision.ID(), revision.ID())
	status = c.await("default", controller.Ready, metav1.ConditionTrue, controller.ReasonAllInstances)
	if status.Revision != revision.ID() || status.Hash != revision.Hash() || status.RenditionCount != 3 ||
		status.Instances.Summary != "2/2" || len(status.History) != 1 || status.Reason != controller.ReasonAllInstances {
		t.Errorf("got %+v", status)
	}
	for _, absent := range []string{controller.Reconciling, controller.Stalled} {
		if meta.FindStatusCondition(status.Conditions, absent) != nil {
			t.Errorf("there is a condition %s", absent)
		}
	}
	p, err := pipeline.Parse([]byte(c.published()))
	if err != nil || p.Hash() != revision.Hash() || pipeline.NewRevision(p).ID() != revision.ID() {
		t.Errorf("published %s, %v", c.published(), err)
	}
	c.set(document("default", ""))
	status = c.await("default", controller.Published, metav1.ConditionTrue, controller.ReasonPublished)
	if len(status.History) != 2 || status.History[0].Revision == revision.ID() || status.History[1].Revision != revision.ID() {
		t.Errorf("history %+v", status.History)
	}
	c.eventually("there is an Event for each transition", func() error { return c.events("Valid", "Published", "RollingOut") })
}

// events returns an error unless there is an Event for each reason.
func (c *cluster) events(reasons ...string) error {
	var list eventsv1.EventList
	if err := c.admin.List(c.t.Context(), &list, client.InNamespace(c.namespace)); err != nil {
		return err
	}
	for _, reason := range reasons {
		found := false
		for _, e := range list.Items {
			found = found || e.Reason == reason && e.ReportingController == "vitrine-controller"
		}
		if !found {
			return missingEvent(reason)
		}
	}
	return nil
}

type missingEvent string

func (e missingEvent) Error() string { return "no Event has the reason " + string(e) }

func testRefusedSpecLeavesTheLastGoodOne(t *testing.T) {
	t.Parallel()
	c, beats := newCluster(t), &fakeHeartbeats{}
	bounds := pipeline.DefaultBounds()
	bounds.MaxPerHost = 50
	c.start(beats, bounds)
	c.set(document("default", "fetch: {headerTimeout: 2m, timeout: 1m}")) // which the API server accepts
	status := c.await("default", controller.Accepted, metav1.ConditionFalse, controller.ReasonInvalid)
	if !meta.IsStatusConditionTrue(status.Conditions, controller.Stalled) || c.published() != "" || status.Revision != "" ||
		!strings.Contains(status.Conditions[0].Message, "spec.fetch.timeout: must not be below headerTimeout") {
		t.Errorf("got %+v, published %q", status, c.published())
	}
	good := document("default", "fetch: {perHost: 50}")
	p, err := bounds.Parse([]byte(good))
	c.must(err)
	id := bounds.NewRevision(p).ID()
	beats.report(id)
	c.set(good)
	c.await("default", controller.Ready, metav1.ConditionTrue, controller.ReasonAllInstances)
	file := c.published()

	c.set(document("default", "fetch: {perHost: 51}"))
	status = c.await("default", controller.Accepted, metav1.ConditionFalse, controller.ReasonExceedsBounds)
	ready := meta.FindStatusCondition(status.Conditions, controller.Ready)
	if c.published() != file || status.Revision != id || ready.Status != metav1.ConditionFalse ||
		ready.Reason != controller.ReasonExceedsBounds || !strings.Contains(ready.Message, "VITRINE_PIPELINE_MAX_PER_HOST") ||
		!meta.IsStatusConditionTrue(status.Conditions, controller.Stalled) {
		t.Errorf("got %+v, published %q", status, c.published())
	}
	c.set(good)
	status = c.await("default", controller.Ready, metav1.ConditionTrue, controller.ReasonAllInstances)
	if len(status.History) != 1 || meta.FindStatusCondition(status.Conditions, controller.Stalled) != nil {
		t.Errorf("got %+v", status)
	}
}

func testInForceLatches(t *testing.T) {
	t.Parallel()
	c, beats := newCluster(t), &fakeHeartbeats{}
	text := document("default", "")
	id := revisionOf(t, text).ID()
	c.set(text)
	beats.report(id)
	c.start(beats, pipeline.DefaultBounds())
	c.await("default", controller.Ready, metav1.ConditionTrue, controller.ReasonAllInstances)
	stays := func(summary string) {
		t.Helper()
		c.eventually("instances are "+summary, func() error {
			if _, s := c.get("default"); s.Instances == nil || s.Instances.Summary != summary {
				return missingEvent(summary)
			}
			return nil
		})
		c.await("default", controller.Ready, metav1.ConditionTrue, controller.ReasonAllInstances)
	}
	beats.report(id, "starting")
	stays("1/2")
	beats.report()
	stays("0/0")
	beats.fail(errAway)
	beats.report("!x")
	stays("0/0")
	beats.fail(nil)
	status := c.await("default", controller.Ready, metav1.ConditionFalse, controller.ReasonRefused)
	if status.Instances.Refused != 1 {
		t.Errorf("got %+v", status.Instances)
	}
	beats.report(id, "starting")
	c.await("default", controller.InForce, metav1.ConditionFalse, controller.ReasonRollingOut)
	beats.report(id)
	c.await("default", controller.Ready, metav1.ConditionTrue, controller.ReasonAllInstances)
	c.set(document("default", "retry: {maxAttempts: 7}"))
	c.await("default", controller.InForce, metav1.ConditionFalse, controller.ReasonRollingOut)
}

func testPostgresIsAwayFromTheStart(t *testing.T) {
	t.Parallel()
	c, beats := newCluster(t), &fakeHeartbeats{err: errAway}
	c.start(beats, pipeline.DefaultBounds())
	c.set(document("default", ""))
	c.await("default", controller.InForce, metav1.ConditionUnknown, controller.ReasonHeartbeatsUnknown)
	if c.published() == "" {
		t.Error("nothing is published")
	}
	beats.fail(nil)
	c.await("default", controller.InForce, metav1.ConditionFalse, controller.ReasonNoInstances)
}

func testOtherPipelineIsNotSelected(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start(&fakeHeartbeats{}, pipeline.DefaultBounds())
	c.set(document("other", ""))
	status := c.await("other", controller.Accepted, metav1.ConditionFalse, controller.ReasonNotSelected)
	if len(status.Conditions) != 1 || c.published() != "" || status.Reason != controller.ReasonNotSelected {
		t.Errorf("got %+v, published %q", status, c.published())
	}
}

func testDeletedPipelineLeavesTheFile(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	r := c.start(&fakeHeartbeats{}, pipeline.DefaultBounds())
	c.set(document("default", ""))
	c.await("default", controller.Published, metav1.ConditionTrue, controller.ReasonPublished)
	obj, _ := c.get("default")
	c.must(c.admin.Delete(t.Context(), obj))
	c.eventually("the series of its conditions are gone", func() error {
		families, err := r.registry.Gather()
		for _, f := range families {
			if f.GetName() == "vitrine_controller_pipeline_condition" {
				return missingEvent("gone")
			}
		}
		return err
	})
	if _, err := pipeline.Parse([]byte(c.published())); err != nil {
		t.Errorf("a pod that starts now gets %q: %v", c.published(), err)
	}
}

func testConfigMapIsRepaired(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.poll = time.Hour // or each poll would repair it
	c.start(&fakeHeartbeats{}, pipeline.DefaultBounds())
	c.set(document("default", ""))
	c.await("default", controller.Published, metav1.ConditionTrue, controller.ReasonPublished)
	want := c.published()
	repaired := func() error {
		if got := c.published(); got != want {
			return missingEvent(got)
		}
		return nil
	}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: configMap}}
	c.must(c.admin.Patch(t.Context(), m, client.RawPatch("application/merge-patch+json",
		[]byte(`{"data": {"imagepipeline.yaml": "nonsense"}}`))))
	c.eventually("an edit is undone", repaired)
	c.must(c.admin.Delete(t.Context(), m))
	c.eventually("a deletion is undone", repaired)
}

func testNotReadyWithoutItsLists(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	named := metav1.ObjectMeta{Namespace: c.namespace, Name: account}
	c.must(c.admin.Delete(t.Context(), &rbacv1.RoleBinding{ObjectMeta: named}))
	api, err := client.New(c.accountConfig(), client.Options{})
	c.must(err)
	c.eventually("the account has lost its rights", func() error {
		if err := list(t, api, pipeline.Kind, c.namespace); !apierrors.IsForbidden(err) {
			return fmt.Errorf("its list is not forbidden: %w", err)
		}
		return nil
	})
	r := c.start(&fakeHeartbeats{}, pipeline.DefaultBounds())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // enough for a check that does not wait for the lists
	defer cancel()
	if err := r.check(ctx); err == nil {
		t.Error("the controller is ready without its lists")
	}
}

func testAnnotationsMayHaveAnyCharacter(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start(&fakeHeartbeats{}, pipeline.DefaultBounds())
	obj := c.decode([]byte(document("default", "")))
	obj.SetNamespace(c.namespace)
	obj.SetAnnotations(map[string]string{"example.com/note": "\u007f \ufffe"}) // which YAML does not allow
	c.must(c.admin.Create(t.Context(), obj))
	c.await("default", controller.Published, metav1.ConditionTrue, controller.ReasonPublished)
}

func testConfigMapNamesTheRevisionOfOtherBounds(t *testing.T) {
	t.Parallel()
	c, bounds := newCluster(t), pipeline.DefaultBounds()
	first := c.start(&fakeHeartbeats{}, bounds)
	c.set(document("default", ""))
	before := c.await("default", controller.Published, metav1.ConditionTrue, controller.ReasonPublished).Revision
	first.stop()
	bounds.MaxPerHost = 50
	c.start(&fakeHeartbeats{}, bounds)
	c.eventually("status and ConfigMap have the new revision", func() error {
		var m corev1.ConfigMap
		c.must(c.admin.Get(t.Context(), client.ObjectKey{Namespace: c.namespace, Name: configMap}, &m))
		_, status := c.get("default")
		if got := m.Annotations["vitrine.io/revision"]; status.Revision == before || got != status.Revision {
			return missingEvent(got)
		}
		return nil
	})
}

func testSecondReplicaTakesOver(t *testing.T) {
	t.Parallel()
	c, beats := newCluster(t), &fakeHeartbeats{}
	first := c.start(beats, pipeline.DefaultBounds())
	c.set(document("default", ""))
	c.await("default", controller.Published, metav1.ConditionTrue, controller.ReasonPublished)
	second := c.start(beats, pipeline.DefaultBounds())
	c.must(second.check(t.Context())) // it has the lists, although it is not the leader
	if n := conditionSeries(t, second); n != 0 {
		t.Errorf("the second replica has %d series of conditions", n)
	}
	first.stop()
	c.set(document("default", "retry: {maxAttempts: 7}"))
	c.await("default", controller.Published, metav1.ConditionTrue, controller.ReasonPublished)
	if !strings.Contains(c.published(), "maxAttempts: 7") || conditionSeries(t, second) == 0 {
		t.Errorf("the second replica has not taken over: %q", c.published())
	}
}

// conditionSeries returns the number of series of conditions.
func conditionSeries(t *testing.T, r *replica) int {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "vitrine_controller_pipeline_condition" {
			return len(f.GetMetric())
		}
	}
	return 0
}
