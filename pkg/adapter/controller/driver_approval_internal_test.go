package controller

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestDriverApproval(t *testing.T) {
	t.Parallel()
	t.Run("auto_is_not_for_an_earlier_target", testDriverAutoOfAnotherTarget)
	t.Run("lost_canary_is_repeated_after_some_time", testDriverLostCanary)
	t.Run("interrupted_approval_is_completed", testDriverInterruptedApproval)
	t.Run("failed_change_leaves_a_reason", testDriverFailedChange)
	t.Run("unreadable_resource_cancels_nothing", testDriverUnreadable)
	t.Run("unreadable_resource_beside_the_cache_cancels_nothing", testDriverUnreadableLive)
	t.Run("unreadable_resource_is_not_replaced", testDriverUnreadableName)
	t.Run("edit_of_an_ended_one_without_a_row_is_observed", testDriverEndedWithoutRow)
}

// reconcileOnce requires that a reconcile succeeds.
func reconcileOnce(t *testing.T, d *driver) {
	t.Helper()
	if _, err := d.Reconcile(t.Context(), reconcile.Request{}); err != nil {
		t.Fatal(err)
	}
}

// editRow changes a row, as a walk does.
func editRow(t *testing.T, d *driver, name string, fn func(b *backfill.Backfill)) {
	t.Helper()
	_, err := d.manager.Backfills.EditBackfill(t.Context(), name, func(b *backfill.Backfill, _ time.Time) error {
		fn(b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// stateOf returns the state of a row.
func stateOf(t *testing.T, d *driver, name string) backfill.State {
	t.Helper()
	rows, err := d.manager.Backfills.ListBackfills(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(rows, func(b backfill.Backfill) bool { return b.Name() == name })
	if at < 0 {
		return ""
	}
	return rows[at].State
}

// editPipeline changes the spec of the pipeline.
func editPipeline(t *testing.T, api client.Client, fn func(spec map[string]any)) {
	t.Helper()
	obj := newObject()
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: "a", Name: "default"}, obj); err != nil {
		t.Fatal(err)
	}
	fn(specOf(t, obj))
	if err := api.Update(t.Context(), obj); err != nil {
		t.Fatal(err)
	}
}

func autoWithGate(spec map[string]any) {
	spec["backfill"] = map[string]any{"policy": "Auto", "gates": map[string]any{"maxFailedPercent": int64(1)}}
}

func autoWithoutGates(spec map[string]any) { spec["backfill"] = map[string]any{"policy": "Auto"} }

// The pipeline is changed again, with the policy Auto, before its first change is approved.
func testDriverAutoOfAnotherTarget(t *testing.T) {
	t.Parallel()
	d, api := newDriver(t, &failing{})
	reconcileOnce(t, d)
	for _, auto := range []func(map[string]any){autoWithoutGates, autoWithGate} {
		editPipeline(t, api, func(spec map[string]any) {
			spec["accept"] = []any{"png"}
			auto(spec)
		})
		reconcileOnce(t, d)
		if got := stateOf(t, d, "default-1"); got != backfill.Proposed {
			t.Errorf("default-1 is %s", got)
		}
	}
	if n := d.manager.Canaries.(*oneCanary).searches; n != 0 {
		t.Errorf("%d canaries were started", n)
	}
}

func testDriverLostCanary(t *testing.T) {
	t.Parallel()
	d, api := newDriver(t, &failing{})
	canaries := d.manager.Canaries.(*oneCanary)
	editPipeline(t, api, autoWithGate)
	now := time.Now()
	d.now = func() metav1.Time { return metav1.NewTime(now).Rfc3339Copy() }
	end := func(failures map[media.Code]int) {
		editRow(t, d, "default-1", func(b *backfill.Backfill) {
			b.Canary.State, b.Canary.Failed, b.Canary.Failures, b.Canary.EndedAt = backfill.CanaryComplete, 3, failures, now
		})
	}
	want := func(what string, searches int) {
		t.Helper()
		reconcileOnce(t, d)
		if canaries.searches != searches {
			t.Fatalf("%s: %d canaries, want %d", what, canaries.searches, searches)
		}
	}
	reconcileOnce(t, d) // makes the resource
	want("the gate needs one", 1)
	end(map[media.Code]int{backfill.SampleLost: 3})
	now = now.Add(canaryInterval - time.Minute)
	want("it has just ended", 1)
	now = now.Add(2 * time.Minute)
	want("every sample was lost", 2)
	end(map[media.Code]int{backfill.SampleLost: 2, media.Timeout: 1})
	now = now.Add(2 * canaryInterval)
	want("one sample has another outcome", 2)
	if got := stateOf(t, d, "default-1"); got != backfill.Proposed {
		t.Errorf("default-1 is %s", got)
	}
}

// The controller was killed after the row was approved, and before the earlier one was superseded.
func testDriverInterruptedApproval(t *testing.T) {
	t.Parallel()
	for _, state := range []backfill.State{backfill.Approved, backfill.Running} {
		d, _ := newDriver(t, &failing{})
		proposeByCLI(t, d)
		editRow(t, d, "default-1", func(b *backfill.Backfill) { b.State, b.ApprovedHash = backfill.Approved, b.TargetHash })
		reconcileOnce(t, d)
		reconcileOnce(t, d)
		if got := stateOf(t, d, "default-1"); got != backfill.Approved {
			t.Errorf("a proposal has made default-1 %s", got)
		}
		editRow(t, d, "default-2", func(b *backfill.Backfill) { b.State, b.ApprovedHash = state, b.TargetHash })
		reconcileOnce(t, d)
		if was, is := stateOf(t, d, "default-1"), stateOf(t, d, "default-2"); was != backfill.Superseded || is != state {
			t.Errorf("default-1 is %s, default-2 is %s", was, is)
		}
	}
}

// proposeByCLI makes a row of the earlier pipeline, as the command line does.
func proposeByCLI(t *testing.T, d *driver) {
	t.Helper()
	target, err := d.manager.Saved(t.Context(), pipeline.Default().Hash())
	if err != nil {
		t.Fatal(err)
	}
	_, err = backfill.Manager{By: backfill.CLI, ManagerDeps: d.manager.ManagerDeps}.Propose(t.Context(), backfill.Proposal{
		Target: target, Selection: backfill.Selection{Kind: backfill.Renditions}, Pace: backfill.DefaultPace(),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// failingEdits has no edit that succeeds.
type failingEdits struct {
	backfill.Backfills

	err error
}

func (f failingEdits) EditBackfill(context.Context, string, func(*backfill.Backfill, time.Time) error,
) (backfill.Backfill, error) {
	return backfill.Backfill{}, f.err
}

// After a failure the status stays as it was. After a conflict it is written, and the API server refuses a condition without
// a reason.
func testDriverFailedChange(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		policy func(map[string]any)
		fail   func(*driver)
		reason string // of Approved; "" if no status is written
	}{
		"canary": {autoWithGate, func(d *driver) { d.manager.Canaries.(*oneCanary).err = errKilled }, ""},
		"approval": {autoWithoutGates, func(d *driver) {
			d.manager.Backfills = failingEdits{d.manager.Backfills, errKilled}
		}, ""},
		"approval_in_conflict": {autoWithoutGates, func(d *driver) {
			d.manager.Backfills = failingEdits{d.manager.Backfills, fault.New(fault.Conflict, "wrong_state", "it has ended")}
		}, ReasonAwaitingApproval},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, api := newDriver(t, &failing{})
			editPipeline(t, api, row.policy)
			row.fail(d)
			reconcileOnce(t, d) // makes the resource
			_, err := d.Reconcile(t.Context(), reconcile.Request{})
			var status BackfillStatus
			getBackfill(t, api, &status)
			if failed := row.reason == ""; failed != errors.Is(err, errKilled) || failed != (status.Conditions == nil) ||
				!failed && !hasReason(status, row.reason) || hasReason(status, "") {
				t.Errorf("the reconcile returned %v, got %+v", err, status.Conditions)
			}
		})
	}
}

// Each resource might be the one that is not readable, as after a downgrade of the definition.
func testDriverUnreadable(t *testing.T) {
	t.Parallel()
	d, api := newDriver(t, &failing{})
	reconcileOnce(t, d)
	reconcileOnce(t, d)
	for _, suspend := range []any{"later", true} { // a type that is none of the field's, and then the right one
		obj := getBackfill(t, api, &BackfillStatus{})
		specOf(t, obj)["suspend"] = suspend
		if err := api.Update(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
		reconcileOnce(t, d)
		if got := stateOf(t, d, "default-1"); got != backfill.Proposed {
			t.Errorf("with suspend %v default-1 is %s", suspend, got)
		}
	}
	obj := getBackfill(t, api, &BackfillStatus{})
	if err := api.Delete(t.Context(), obj); err != nil {
		t.Fatal(err)
	}
	reconcileOnce(t, d)
	if got := stateOf(t, d, "default-1"); got != backfill.Cancelled {
		t.Errorf("without its resource default-1 is %s", got)
	}
}

// The cache does not have the resource yet.
func testDriverUnreadableLive(t *testing.T) {
	t.Parallel()
	d, api := newDriver(t, &failing{})
	reconcileOnce(t, d)
	reconcileOnce(t, d)
	obj := getBackfill(t, api, &BackfillStatus{})
	if err := api.Delete(t.Context(), obj); err != nil {
		t.Fatal(err)
	}
	specOf(t, obj)["suspend"] = "later"
	d.live = newFake(t).WithObjects(obj).Build()
	if _, err := d.Reconcile(t.Context(), reconcile.Request{}); err == nil {
		t.Error("the unreadable resource is no error")
	}
	if got := stateOf(t, d, "default-1"); got != backfill.Proposed {
		t.Errorf("default-1 is %s", got)
	}
}

// An object with the name of the row's resource is left from an earlier database, or is the right one.
func testDriverUnreadableName(t *testing.T) {
	t.Parallel()
	d, api := newDriver(t, &failing{})
	obj := newBackfillObject()
	obj.SetNamespace("a")
	obj.SetName("default-1")
	obj.Object["spec"] = map[string]any{"suspend": "later"}
	if err := api.Create(t.Context(), obj); err != nil {
		t.Fatal(err)
	}
	_, err := d.Reconcile(t.Context(), reconcile.Request{})
	if err == nil || !strings.Contains(err.Error(), "decode spec of default-1") {
		t.Errorf("got %v", err)
	}
	if got := stateOf(t, d, "default-1"); got != backfill.Proposed {
		t.Errorf("default-1 is %q", got)
	}
	getBackfill(t, api, &BackfillStatus{})
	obj = newObject()
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: "a", Name: "default"}, obj); err != nil {
		t.Fatal(err)
	}
	if s, err := statusOf(obj); err != nil || s.Backfill != nil {
		t.Errorf("the proposal is noted without its resource: %+v, %v", s.Backfill, err)
	}
}

func testDriverEndedWithoutRow(t *testing.T) {
	t.Parallel()
	d, api := newDriver(t, &failing{})
	obj := newBackfillObject()
	obj.SetNamespace("a")
	obj.SetName("default-9")
	obj.SetGeneration(3)
	obj.Object["spec"] = map[string]any{"pipeline": map[string]any{"name": "default"}, "target": "h"}
	if err := api.Create(t.Context(), obj); err != nil {
		t.Fatal(err)
	}
	obj.Object["status"] = map[string]any{
		"observedGeneration": int64(2), "state": "complete", "done": int64(5), "total": int64(5),
		"conditions": []any{map[string]any{"type": Complete, "status": "True", "reason": ReasonComplete, "message": "",
			"observedGeneration": int64(2), "lastTransitionTime": "2026-11-30T12:00:00Z"}},
	}
	if err := api.Status().Update(t.Context(), obj); err != nil {
		t.Fatal(err)
	}
	reconcileOnce(t, d)
	var status BackfillStatus
	obj = getBackfillNamed(t, api, "default-9", &status)
	if g := obj.GetGeneration(); g != 3 || status.ObservedGeneration != g || status.Done != 5 ||
		status.Conditions[0].ObservedGeneration != g || !hasReason(status, ReasonComplete) {
		t.Errorf("at generation %d: %+v", g, status)
	}
}
