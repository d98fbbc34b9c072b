package controller

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestDriverByHand(t *testing.T) {
	t.Parallel()
	t.Run("two_that_are_approved_at_once_follow_each_other", testDriverTwoByHand)
	t.Run("proposal_of_the_controller_is_awaited", testDriverByHandAfterProposal)
	t.Run("proposal_of_the_command_line_is_awaited", testDriverByHandAfterCLI)
}

// byHand makes an ImageBackfill for all ready images.
func byHand(t *testing.T, api client.Client, name, approvedHash string) {
	t.Helper()
	obj := newBackfillObject()
	obj.SetNamespace("a")
	obj.SetName(name)
	obj.SetUID(types.UID("uid-of-" + name))
	obj.Object["spec"] = map[string]any{
		"pipeline": map[string]any{"name": "default"}, "selector": map[string]any{"status": "ready"},
		"approvedHash": approvedHash,
	}
	if err := api.Create(t.Context(), obj); err != nil {
		t.Fatal(err)
	}
}

// wantWaiting requires that a resource by hand says which backfill it waits for.
func wantWaiting(t *testing.T, api client.Client, name, waitsFor string) {
	t.Helper()
	var status BackfillStatus
	getBackfillNamed(t, api, name, &status)
	c := meta.FindStatusCondition(status.Conditions, Planned)
	if c == nil || c.Reason != ReasonWaitingForBackfill || !strings.Contains(c.Message, waitsFor) ||
		!meta.IsStatusConditionTrue(status.Conditions, Reconciling) || status.Backfill != "" {
		t.Errorf("%s: got %+v", name, status)
	}
}

// wantState requires the state of the row that is named in the status of a resource.
func wantState(t *testing.T, d *driver, api client.Client, name, row string, want backfill.State) {
	t.Helper()
	var status BackfillStatus
	getBackfillNamed(t, api, name, &status)
	if got := stateOf(t, d, row); status.Backfill != row || status.State != string(want) || got != want {
		t.Errorf("%s is %s and %s, %s is %s, want %s", name, status.Backfill, status.State, row, got, want)
	}
}

func testDriverTwoByHand(t *testing.T) {
	t.Parallel()
	d, api := newDriver(t, &failing{})
	editPipeline(t, api, func(spec map[string]any) { spec["backfill"] = map[string]any{"policy": "Never"} })
	next := pipeline.Default()
	next.Spec.Renditions[0].Width++
	for _, name := range []string{"first", "second"} {
		byHand(t, api, name, next.Hash())
	}
	for range 2 {
		reconcileOnce(t, d)
		wantState(t, d, api, "first", "default-1", backfill.Approved)
		wantWaiting(t, api, "second", "default-1")
	}
	editRow(t, d, "default-1", func(b *backfill.Backfill) { b.State = backfill.Running })
	reconcileOnce(t, d)
	wantState(t, d, api, "first", "default-1", backfill.Running)
	wantState(t, d, api, "second", "default-2", backfill.Approved)
}

func testDriverByHandAfterProposal(t *testing.T) {
	t.Parallel()
	d, api := newDriver(t, &failing{})
	byHand(t, api, "by-hand", "")
	for range 2 { // the controller proposes its own first
		reconcileOnce(t, d)
		wantWaiting(t, api, "by-hand", "default-1")
	}
	wantState(t, d, api, "default-1", "default-1", backfill.Proposed)
	editRow(t, d, "default-1", func(b *backfill.Backfill) { b.State = backfill.Complete })
	reconcileOnce(t, d)
	wantState(t, d, api, "by-hand", "default-2", backfill.Proposed)
	changeAgain(t, api)
	reconcileOnce(t, d)
	reconcileOnce(t, d)
	wantState(t, d, api, "by-hand", "default-2", backfill.Superseded)
	wantState(t, d, api, "default-3", "default-3", backfill.Proposed)
}

// changeAgain brings a third pipeline into force.
func changeAgain(t *testing.T, api client.Client) {
	t.Helper()
	next := pipeline.Default()
	next.Spec.Renditions[0].Width += 2
	changed, obj := newObject(), newObject()
	if err := changed.UnmarshalJSON(next.Document()); err != nil {
		t.Fatal(err)
	}
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: "a", Name: "default"}, obj); err != nil {
		t.Fatal(err)
	}
	status, err := statusOf(obj)
	if err != nil {
		t.Fatal(err)
	}
	status.Hash = next.Hash()
	status.History = slices.Insert(status.History, 0, PublishedRevision{Hash: next.Hash(), Generation: 3})
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&status)
	if err != nil {
		t.Fatal(err)
	}
	obj.Object["spec"] = changed.Object["spec"]
	if err := api.Update(t.Context(), obj); err != nil {
		t.Fatal(err)
	}
	obj.Object["status"] = fields
	if err := api.Status().Update(t.Context(), obj); err != nil {
		t.Fatal(err)
	}
}

func testDriverByHandAfterCLI(t *testing.T) {
	t.Parallel()
	d, api := newDriver(t, &failing{})
	editPipeline(t, api, func(spec map[string]any) { spec["backfill"] = map[string]any{"policy": "Never"} })
	proposeByCLI(t, d)
	byHand(t, api, "by-hand", "")
	reconcileOnce(t, d)
	wantWaiting(t, api, "by-hand", "default-1")
	editRow(t, d, "default-1", func(b *backfill.Backfill) { b.State = backfill.Cancelled })
	reconcileOnce(t, d)
	wantState(t, d, api, "by-hand", "default-2", backfill.Proposed)
}
