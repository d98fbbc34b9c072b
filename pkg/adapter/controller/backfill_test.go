package controller_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vitrine.io/pkg/adapter/controller"
	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// noHash is the hash of no pipeline. It has letters, or YAML would take it for a number.
var noHash = strings.Repeat("0f", 32)

func TestBackfill(t *testing.T) {
	t.Parallel()
	t.Run("change_makes_one_and_git_approves_it", testBackfillChange)
	t.Run("change_without_an_image_makes_none", testBackfillNoImage)
	t.Run("policy_says_what_follows_from_a_change", testBackfillPolicy)
	t.Run("suspend_resume_and_pace", testBackfillSuspend)
	t.Run("deleted_resource_cancels_its_backfill", testBackfillDeleted)
	t.Run("deleted_while_no_controller_ran", testBackfillDeletedMeanwhile)
	t.Run("made_by_hand_with_a_selector", testBackfillByHand)
	t.Run("wrong_specs_are_explained", testBackfillWrong)
	t.Run("target_and_selector_are_immutable", testBackfillImmutable)
	t.Run("postgres_is_away", testBackfillPostgresAway)
	t.Run("killed_between_row_and_resource", testBackfillKilled)
	t.Run("ten_ended_ones_are_kept", testBackfillHistory)
	t.Run("resource_of_a_lost_database_is_replaced", testBackfillReplaced)
}

func testBackfillChange(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 7)
	e.run()
	e.roll(wide(oldPipeline, ""))
	obj, _ := e.get("default")
	e.must(e.admin.Patch(t.Context(), obj, client.RawPatch("application/merge-patch+json",
		[]byte(`{"metadata": {"labels": {"argocd.argoproj.io/instance": "shop"}}}`))))
	target := e.roll(wide(newPipeline, "backfill: {onMissing: Skip}"))
	e.awaitProposal(2, "default-1")
	s := e.awaitBackfill("default-1", controller.Approved, metav1.ConditionFalse, controller.ReasonAwaitingApproval)
	if s.TargetHash != target.Hash() || s.Plan.Images.Value != 7 || s.Plan.WithoutOriginal.Value != 6 ||
		s.Total != 7 || s.State != "proposed" || s.Canary != nil ||
		!meta.IsStatusConditionTrue(s.Conditions, controller.Planned) {
		t.Errorf("got %+v", s)
	}
	e.wantVerdict("default-1", status.InProgressStatus, "Suspended")
	made, _, err := e.backfill("default-1")
	e.must(err)
	skips, _, err := unstructured.NestedString(made.Object, "spec", "onMissing")
	if e.must(err); skips != "Skip" || e.rows()[0].OnMissing != backfill.SkipMissing {
		t.Errorf("got %v, row %+v", made.Object["spec"], e.rows()[0])
	}
	if len(made.GetOwnerReferences()) != 0 || len(made.GetFinalizers()) != 0 ||
		made.GetLabels()["argocd.argoproj.io/instance"] != "" {
		t.Errorf("got %v", made.Object["metadata"])
	}

	e.roll(wide(newPipeline, "fetch: {perHost: 7}")) // the next generation, with the same hash
	file := e.published()
	e.set(wide(newPipeline, "fetch: {perHost: 7}\n  backfill: {approvedHash: "+target.Hash()+"}"))
	e.awaitBackfill("default-1", controller.Approved, metav1.ConditionTrue, controller.ReasonApproved)
	e.awaitBackfill("default-1", controller.Progressing, metav1.ConditionFalse, controller.ReasonWaiting)
	e.await("default", controller.Ready, metav1.ConditionTrue, controller.ReasonAllInstances)
	if e.published() != file {
		t.Errorf("the approval changed the published file to %s", e.published())
	}
	if rows := e.rows(); len(rows) != 1 || rows[0].State != backfill.Approved || rows[0].ManagedBy != backfill.Resource {
		t.Errorf("got %+v", rows)
	}
	e.walkToTheEnd("default-1")
}

// walkToTheEnd changes an approved backfill of seven images as a walk does, and requires what is reported.
func (e *engine) walkToTheEnd(name string) {
	e.t.Helper()
	e.edit(name, func(b *backfill.Backfill, now time.Time) {
		b.State, b.Open, b.StartedAt, b.Requested, b.Done, b.Failed = backfill.Running, true, now.Add(-time.Minute), 5, 3, 1
		b.Failures = map[media.Code]int64{media.TooLarge: 1}
	})
	s := e.awaitBackfill(name, controller.Progressing, metav1.ConditionTrue, controller.ReasonRunning)
	if s.Done != 3 || s.Failed != 1 || s.ETA == nil || s.StartedAt == nil || len(s.FailuresByCode) != 1 {
		e.t.Errorf("got %+v", s)
	}
	e.wantVerdict(name, status.InProgressStatus, "Progressing")
	e.edit(name, func(b *backfill.Backfill, now time.Time) {
		b.State, b.Open, b.EndedAt, b.Done = backfill.Complete, false, now, 6
	})
	s = e.awaitBackfill(name, controller.Complete, metav1.ConditionTrue, controller.ReasonComplete)
	if s.Total != 7 || s.Done != 6 || s.EndedAt == nil || s.ETA != nil {
		e.t.Errorf("got %+v", s)
	}
	e.wantVerdict(name, status.CurrentStatus, "Healthy")
	e.eventually("there is an Event for each transition", func() error {
		return e.events("Planned", "AwaitingApproval", "Approved", "Running", "Complete", "BackfillProposed")
	})
}

func testBackfillNoImage(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 0)
	e.run()
	e.change("")
	e.awaitProposal(2, "")
	e.roll(wide(newPipeline, "accept: [png]")) // another hash, for which no image differs
	e.awaitProposal(3, "")
	if rows := e.rows(); len(rows) != 0 {
		t.Errorf("got %+v", rows)
	}
}

func testBackfillPolicy(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 7)
	e.run()
	e.change("backfill: {policy: Never}")
	e.makeSure("nothing is proposed", func() bool { return len(e.rows()) == 0 })
	e.set(wide(newPipeline, "backfill: {policy: Auto, gates: {maxFailedPercent: 1}}"))
	e.awaitProposal(2, "default-1")
	s := e.awaitBackfill("default-1", controller.Approved, metav1.ConditionFalse, controller.ReasonGatesNotMet)
	if c := meta.FindStatusCondition(s.Conditions, controller.Approved); !strings.Contains(c.Message, "report of a canary") {
		t.Errorf("got %+v", c)
	}
	e.awaitBackfill("default-1", controller.Canaried, metav1.ConditionFalse, controller.ReasonCanaryRunning)
	e.edit("default-1", func(b *backfill.Backfill, _ time.Time) {
		b.Canary.State, b.Canary.Done, b.Canary.Failed = backfill.CanaryComplete, 5, 2
		b.Canary.Failures = map[media.Code]int{media.Timeout: 2}
	})
	s = e.awaitBackfill("default-1", controller.Canaried, metav1.ConditionTrue, controller.ReasonCanaryComplete)
	if c := meta.FindStatusCondition(s.Conditions, controller.Approved); s.Canary == nil ||
		!strings.Contains(c.Message, "2 of 7 samples failed") || s.Canary.Samples != 7 || s.Canary.FailuresByCode[0].Count != 2 {
		t.Errorf("got %+v, canary %+v", c, s.Canary)
	}
	e.set(wide(newPipeline, "backfill: {policy: Propose, approvedHash: "+noHash+"}"))
	s = e.awaitBackfill("default-1", controller.Approved, metav1.ConditionFalse, controller.ReasonHashMismatch)
	if c := meta.FindStatusCondition(s.Conditions, controller.Approved); !strings.Contains(c.Message, s.TargetHash) {
		t.Errorf("got %+v", c)
	}
	e.set(wide(newPipeline, "backfill: {policy: Auto}"))
	e.awaitBackfill("default-1", controller.Approved, metav1.ConditionTrue, controller.ReasonApproved)
	e.roll(wide("width: 322", "backfill: {policy: Auto}"))
	e.awaitProposal(6, "default-2")
	e.awaitBackfill("default-2", controller.Approved, metav1.ConditionTrue, controller.ReasonApproved)
	e.awaitBackfill("default-1", controller.Superseded, metav1.ConditionTrue, controller.ReasonSuperseded)
	e.wantVerdict("default-1", status.CurrentStatus, "Healthy")
}

// makeSure requires that a condition holds for several polls of a controller.
func (e *engine) makeSure(what string, holds func() bool) {
	e.t.Helper()
	tick := time.NewTicker(e.poll)
	defer tick.Stop()
	for range 10 {
		if <-tick.C; !holds() {
			e.t.Fatal("not so: " + what)
		}
	}
}

func testBackfillSuspend(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 7)
	e.run()
	e.change("backfill: {policy: Auto}")
	e.awaitBackfill("default-1", controller.Approved, metav1.ConditionTrue, controller.ReasonApproved)
	e.must(e.patch("default-1",
		`{"suspend": true, "pace": {"rate": 3, "windows": ["mon-fri 22:00-06:00"], "timeZone": "Europe/Berlin"}}`))
	e.awaitBackfill("default-1", controller.Progressing, metav1.ConditionFalse, controller.ReasonSuspended)
	row := e.rows()[0]
	if row.Suspended != backfill.ByOperator || row.Rate != 3 || row.TimeZone != "Europe/Berlin" || len(row.Windows) != 1 {
		t.Errorf("got %+v", row)
	}
	e.must(e.patch("default-1", `{"suspend": false}`))
	e.awaitBackfill("default-1", controller.Progressing, metav1.ConditionFalse, controller.ReasonWaiting)
	if row = e.rows()[0]; row.Suspended != backfill.NotSuspended || row.Rate != 3 {
		t.Errorf("got %+v", row)
	}
	_, err := e.manager.Suspend(t.Context(), "default-1", true) // as the command line with --force
	e.must(err)
	e.awaitBackfill("default-1", controller.Progressing, metav1.ConditionFalse, controller.ReasonSuspended)
	e.makeSure("it stays suspended", func() bool { return e.rows()[0].Suspended == backfill.ByOperator })
	e.edit("default-1", func(b *backfill.Backfill, _ time.Time) { b.Suspended = backfill.ByFailures })
	e.awaitBackfill("default-1", controller.Stalled, metav1.ConditionTrue, controller.ReasonSuspendedByFailures)
	e.wantVerdict("default-1", status.FailedStatus, "Degraded")
	e.must(e.patch("default-1", `{"suspend": true}`))
	e.awaitApplied(true)
	e.must(e.patch("default-1", `{"suspend": false, "pace": {"timeZone": "Atlantis"}}`))
	s := e.awaitBackfill("default-1", controller.Stalled, metav1.ConditionTrue, controller.ReasonInvalidSpec)
	if !strings.Contains(s.Reason, "spec.pace.timeZone") {
		t.Errorf("got %+v", s)
	}
	if row = e.rows()[0]; row.Suspended != backfill.NotSuspended || row.TimeZone != "Europe/Berlin" {
		t.Errorf("got %+v", row)
	}
}

// awaitApplied waits until spec.suspend of default-1 was applied.
func (e *engine) awaitApplied(want bool) {
	e.t.Helper()
	e.eventually("suspend is applied", func() error {
		_, s, err := e.backfill("default-1")
		if err != nil || s.SuspendApplied != want {
			return fmt.Errorf("got %v, %w", s.SuspendApplied, err)
		}
		return nil
	})
}

func (e *engine) awaitState(name string, want backfill.State) {
	e.t.Helper()
	e.eventually(name+" is "+string(want), func() error {
		for _, b := range e.rows() {
			if b.Name() == name && b.State == want {
				return nil
			}
		}
		return fmt.Errorf("got %+v", e.rows())
	})
}

func testBackfillDeleted(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 7)
	r := e.run()
	e.change("backfill: {policy: Auto}")
	e.awaitBackfill("default-1", controller.Approved, metav1.ConditionTrue, controller.ReasonApproved)
	e.must(e.admin.Delete(t.Context(), e.backfillKey("default-1")))
	e.awaitState("default-1", backfill.Cancelled)
	e.makeSure("it is not proposed again", func() bool { return len(e.rows()) == 1 })
	r.stop()
	e.run()
	e.makeSure("nor by the next controller", func() bool { return len(e.rows()) == 1 })
}

func testBackfillDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 7)
	r := e.run()
	e.change("")
	e.awaitBackfill("default-1", controller.Approved, metav1.ConditionFalse, controller.ReasonAwaitingApproval)
	e.must(e.makeBackfill("by-hand", "selector: {status: ready}"))
	s := e.awaitBackfill("by-hand", controller.Planned, metav1.ConditionFalse, controller.ReasonWaitingForBackfill)
	if !strings.Contains(s.Reason, "default-1") || s.Backfill != "" {
		t.Errorf("got %+v", s)
	}
	e.wantVerdict("by-hand", status.InProgressStatus, "Progressing")
	e.edit("default-1", func(b *backfill.Backfill, _ time.Time) { b.State = backfill.Running })
	e.awaitBackfill("by-hand", controller.Approved, metav1.ConditionFalse, controller.ReasonAwaitingApproval)
	other, err := backfill.Manager{By: backfill.CLI, ManagerDeps: e.manager.ManagerDeps}.Propose(t.Context(), backfill.Proposal{
		Target:    revisionOf(t, strings.Replace(wide(newPipeline, ""), "name: default", "name: other", 1)),
		Selection: backfill.Selection{Kind: backfill.Renditions}, Pace: backfill.DefaultPace(),
	})
	e.must(err)
	r.stop()
	for _, name := range []string{"default-1", "by-hand"} {
		e.must(e.admin.Delete(t.Context(), e.backfillKey(name)))
	}
	obj, _ := e.get("default")
	e.must(e.admin.Delete(t.Context(), obj))
	e.run()
	e.awaitState("default-1", backfill.Cancelled)
	e.awaitState("default-2", backfill.Cancelled)
	e.awaitState(other.Name(), backfill.Proposed) // it is none of the controller's
}

func testBackfillByHand(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 7)
	e.run()
	e.must(e.makeBackfill("by-hand", "suspend: true, onMissing: Skip, "+
		"selector: {status: ready, requestedBefore: 2100-01-01T00:00:00Z}"))
	e.awaitBackfill("by-hand", controller.Planned, metav1.ConditionFalse, controller.ReasonPipelineNotInForce)
	target := e.roll(wide(oldPipeline, "backfill: {policy: Auto}"))
	e.awaitBackfill("by-hand", controller.Planned, metav1.ConditionTrue, controller.ReasonPlanned)
	s := e.awaitBackfill("by-hand", controller.Progressing, metav1.ConditionFalse, controller.ReasonSuspended)
	row := e.rows()[0]
	if s.TargetHash != target.Hash() || s.Backfill != "default-1" || row.Selection.Kind != backfill.ByHand ||
		row.Selection.RequestedBefore.Year() != 2100 || row.Suspended != backfill.ByOperator || row.ApprovedHash != "" ||
		row.OnMissing != backfill.SkipMissing {
		t.Errorf("got %+v, row %+v", s, row)
	}
	e.must(e.patch("by-hand", `{"suspend": false, "approvedHash": "`+noHash+`"}`))
	s = e.awaitBackfill("by-hand", controller.Stalled, metav1.ConditionTrue, controller.ReasonHashMismatch)
	if !strings.Contains(s.Reason, target.Hash()) {
		t.Errorf("got %+v", s)
	}
	e.must(e.patch("by-hand", `{"approvedHash": "`+target.Hash()+`"}`))
	e.awaitBackfill("by-hand", controller.Approved, metav1.ConditionTrue, controller.ReasonApproved)
	if len(e.rows()) != 1 {
		t.Errorf("got %+v", e.rows())
	}
	e.must(e.makeBackfill("failed-ones", "target: "+target.Hash()+", approvedHash: "+target.Hash()+
		", selector: {status: failed, code: connect_failed, user: 3}"))
	e.awaitBackfill("failed-ones", controller.Planned, metav1.ConditionFalse, controller.ReasonWaitingForBackfill)
	e.edit("default-1", func(b *backfill.Backfill, now time.Time) { b.State, b.EndedAt = backfill.Complete, now })
	e.awaitBackfill("failed-ones", controller.Approved, metav1.ConditionTrue, controller.ReasonApproved)
}

func testBackfillWrong(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 7)
	e.run()
	e.roll(wide(oldPipeline, ""))
	for name, row := range map[string]struct{ spec, reason, field string }{
		"wrong-code": {"selector: {code: no_such_code}", controller.ReasonInvalidSpec, "spec.selector.code"},
		"wrong-window": {"selector: {status: ready}, pace: {windows: [at night]}", controller.ReasonInvalidSpec,
			"spec.pace.windows[0]"},
		"unknown": {"selector: {status: ready}, target: " + noHash, controller.ReasonUnknownTarget, "spec.target"},
		"copy-77": {"target: " + noHash, controller.ReasonNoBackfill, "selector"},
	} {
		e.must(e.makeBackfill(name, row.spec))
		s := e.awaitBackfill(name, controller.Planned, metav1.ConditionFalse, row.reason)
		if !strings.Contains(s.Reason, row.field) || s.Backfill != "" {
			t.Errorf("%s: got %+v", name, s)
		}
		e.wantVerdict(name, status.FailedStatus, "Degraded")
	}
	other := e.backfillKey("other")
	other.Object["spec"] = object{"pipeline": object{"name": "other"}, "selector": object{"status": "ready"}}
	e.must(e.admin.Create(t.Context(), other))
	e.awaitBackfill("other", controller.Planned, metav1.ConditionFalse, controller.ReasonNotSelected)
	e.wantVerdict("other", status.CurrentStatus, "Healthy")
	if rows := e.rows(); len(rows) != 0 {
		t.Errorf("got %+v", rows)
	}
}

func testBackfillImmutable(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 0)
	hash := noHash
	e.must(e.makeBackfill("by-hand", "selector: {status: ready, user: 3}, target: "+hash))
	e.must(e.makeBackfill("default-9", "target: "+hash))
	for patch, want := range map[string]string{
		`{"target": "` + strings.Repeat("1", 64) + `"}`: "target is immutable",
		`{"target": null}`:              "target is immutable",
		`{"selector": {"user": 4}}`:     "selector is immutable",
		`{"selector": null}`:            "selector is immutable",
		`{"onMissing": "Skip"}`:         "onMissing is immutable",
		`{"pipeline": {"name": "b"}}`:   "pipeline is immutable",
		`{"pace": {"rate": 0}}`:         "must be at least 0.01",
		`{"approvedHash": "yes"}`:       "spec.approvedHash",
		`{"suspend": true}`:             "",
		`{"pace": {"maxInFlight": 10}}`: "",
	} {
		err := e.patch("by-hand", patch)
		if want == "" && err != nil || want != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", patch, err, want)
		}
	}
	for name, spec := range map[string]string{
		"default-10": "selector: {status: ready}", "no-selector": "target: " + hash, "empty": "selector: {}",
		"Upper": "selector: {status: ready}", "status": "selector: {status: pending}", "user": "selector: {user: 0}",
		"hash": "selector: {status: ready}, target: abc", "list": "selector: {status: ready}, pace: {windows: [" +
			strings.Repeat("'22:00-06:00', ", 21) + "]}",
	} {
		if err := e.makeBackfill(name, spec); !apierrors.IsInvalid(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func testBackfillPostgresAway(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 7)
	r := e.run()
	target := e.change("")
	before := e.awaitBackfill("default-1", controller.Approved, metav1.ConditionFalse, controller.ReasonAwaitingApproval)
	e.away.Store(true)
	e.must(e.patch("default-1", `{"approvedHash": "`+target.Hash()+`"}`))
	e.eventually("failures are counted", func() error {
		families, err := r.registry.Gather()
		for _, f := range families {
			if f.GetName() == "vitrine_controller_backfill_failures_total" && f.GetMetric()[0].GetCounter().GetValue() > 0 {
				return nil
			}
		}
		return fmt.Errorf("none is: %w", err)
	})
	_, s, err := e.backfill("default-1")
	if err != nil || s.ObservedGeneration != before.ObservedGeneration || s.State != "proposed" {
		t.Errorf("got %+v, %v", s, err)
	}
	e.away.Store(false)
	e.awaitBackfill("default-1", controller.Approved, metav1.ConditionTrue, controller.ReasonApproved)
}

// The row is there, and neither the resource nor the note in the pipeline's status.
func testBackfillKilled(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 7)
	r := e.run()
	e.roll(wide(oldPipeline, ""))
	r.stop()
	e.set(wide(newPipeline, ""))
	obj, _ := e.get("default")
	target := revisionOf(t, wide(newPipeline, ""))
	_, err := e.manager.Propose(t.Context(), backfill.Proposal{
		Target: target, Selection: backfill.Selection{Kind: backfill.Renditions}, Pace: backfill.DefaultPace(),
		ResourceUID: string(obj.GetUID()), Generation: obj.GetGeneration(),
	})
	e.must(err)
	e.beats.report(target.ID())
	e.run()
	e.awaitProposal(2, "default-1")
	e.awaitBackfill("default-1", controller.Approved, metav1.ConditionFalse, controller.ReasonAwaitingApproval)
	if rows := e.rows(); len(rows) != 1 || rows[0].State != backfill.Proposed {
		t.Errorf("got %+v", rows)
	}
}

// ended makes an ImageBackfill of the controller that has ended.
func (e *engine) ended(name, target string) {
	e.t.Helper()
	e.must(e.makeBackfill(name, "target: "+target))
	e.must(e.admin.Status().Patch(e.t.Context(), e.backfillKey(name),
		client.RawPatch("application/merge-patch+json", []byte(`{"status": {"state": "complete"}}`))))
}

func testBackfillHistory(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 0)
	for n := 1; n <= 13; n++ {
		e.ended(fmt.Sprint("default-", n), noHash)
	}
	e.run()
	e.eventually("the three oldest are gone", func() error {
		for n := 1; n <= 13; n++ {
			_, _, err := e.backfill(fmt.Sprint("default-", n))
			if gone := apierrors.IsNotFound(err); gone != (n <= 3) {
				return fmt.Errorf("default-%d: %w", n, err)
			}
		}
		return nil
	})
}

func testBackfillReplaced(t *testing.T) {
	t.Parallel()
	e := newEngine(t, 7)
	e.ended("default-1", noHash)
	e.run()
	target := e.change("")
	s := e.awaitBackfill("default-1", controller.Approved, metav1.ConditionFalse, controller.ReasonAwaitingApproval)
	obj, _, err := e.backfill("default-1")
	e.must(err)
	if spec := obj.Object["spec"].(object); s.TargetHash != target.Hash() || spec["target"] != target.Hash() {
		t.Errorf("got %+v with %v", s, spec)
	}
	if p, err := pipeline.Parse([]byte(e.published())); err != nil || p.Hash() != target.Hash() {
		t.Errorf("published %v, %v", p, err)
	}
}
