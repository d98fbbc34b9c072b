package controller

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestBackfillStatus(t *testing.T) {
	t.Parallel()
	t.Run("every_state_is_read_as_meant", testBackfillStatusStates)
	t.Run("counts_codes_and_times", testBackfillStatusCounts)
	t.Run("only_counts_changed", testBackfillStatusSteady)
	t.Run("each_transition_once", testBackfillStatusTransitions)
}

// stateRow is a row with the reason and the verdict of kstatus that it has to have.
type stateRow struct {
	change func(*backfill.Backfill, *backfillObservation)
	reason string // of Ready, or of what ended it
	want   status.Status
}

func stateRows() map[string]stateRow {
	state := func(s backfill.State) func(*backfill.Backfill, *backfillObservation) {
		return func(b *backfill.Backfill, _ *backfillObservation) { b.State = s }
	}
	return map[string]stateRow{
		"proposed":  {state(backfill.Proposed), ReasonAwaitingApproval, status.InProgressStatus},
		"approved":  {state(backfill.Approved), ReasonWaiting, status.InProgressStatus},
		"resting":   {state(backfill.Running), ReasonWaiting, status.InProgressStatus},
		"complete":  {state(backfill.Complete), ReasonComplete, status.CurrentStatus},
		"failed":    {state(backfill.Failed), ReasonFailed, status.FailedStatus},
		"replaced":  {state(backfill.Superseded), ReasonSuperseded, status.CurrentStatus},
		"cancelled": {state(backfill.Cancelled), ReasonCancelled, status.CurrentStatus},
		"running": {func(b *backfill.Backfill, _ *backfillObservation) {
			b.State, b.Open = backfill.Running, true
		}, ReasonRunning, status.InProgressStatus},
		"suspended": {func(b *backfill.Backfill, o *backfillObservation) {
			b.State, b.Suspended, o.suspend = backfill.Running, backfill.ByOperator, true
		}, ReasonSuspended, status.InProgressStatus},
		"suspended_by_the_command_line": {func(b *backfill.Backfill, _ *backfillObservation) {
			b.State, b.Suspended = backfill.Running, backfill.ByOperator
		}, ReasonSuspended, status.InProgressStatus},
		"suspended_by_failures": {func(b *backfill.Backfill, _ *backfillObservation) {
			b.State, b.Suspended = backfill.Running, backfill.ByFailures
		}, ReasonSuspendedByFailures, status.FailedStatus},
		"wrong_hash": {func(_ *backfill.Backfill, o *backfillObservation) {
			o.approval = finding{reason: ReasonHashMismatch, message: "x", stalled: true}
		}, ReasonHashMismatch, status.FailedStatus},
		"wrong_pace": {func(b *backfill.Backfill, o *backfillObservation) {
			b.State, b.Open, o.pace = backfill.Running, true, finding{reason: ReasonInvalidSpec, message: "x", stalled: true}
		}, ReasonInvalidSpec, status.FailedStatus},
	}
}

func testBackfillStatusStates(t *testing.T) {
	t.Parallel()
	for name, row := range stateRows() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := backfill.Backfill{Pipeline: "p", Number: 1, State: backfill.Proposed, TargetHash: "h"}
			o := backfillObservation{
				generation: 2, row: &b, now: metav1.NewTime(time.Unix(9, 0)), approval: finding{reason: ReasonAwaitingApproval},
			}
			row.change(&b, &o)
			got := o.next(BackfillStatus{Conditions: []metav1.Condition{{Type: Stalled, Status: metav1.ConditionTrue}}})
			if !hasReason(got, row.reason) {
				t.Errorf("no condition has the reason %s: %+v", row.reason, got.Conditions)
			}
			if verdict := compute(t, got); verdict != row.want {
				t.Errorf("kstatus reads %s, want %s, from %+v", verdict, row.want, got.Conditions)
			}
			if ready := meta.IsStatusConditionTrue(got.Conditions, Ready); ready != (b.State == backfill.Complete) {
				t.Errorf("Ready is %v", ready)
			}
			for kind, state := range map[string]backfill.State{
				Complete: backfill.Complete, Failed: backfill.Failed, Superseded: backfill.Superseded,
			} {
				if holds := meta.IsStatusConditionTrue(got.Conditions, kind); holds != (b.State == state) {
					t.Errorf("%s is %v", kind, holds)
				}
			}
		})
	}
	for name, f := range map[string]struct {
		finding
		want status.Status
	}{
		"waits":         {finding{reason: ReasonPipelineNotInForce}, status.InProgressStatus},
		"waits_for_one": {finding{reason: ReasonWaitingForBackfill}, status.InProgressStatus},
		"refused":       {finding{reason: ReasonInvalidSpec, stalled: true}, status.FailedStatus},
		"not_selected":  {finding{reason: ReasonNotSelected}, status.CurrentStatus},
	} {
		got := backfillObservation{generation: 2, unplanned: f.finding}.next(BackfillStatus{})
		if verdict := compute(t, got); verdict != f.want {
			t.Errorf("%s: kstatus reads %s, want %s", name, verdict, f.want)
		}
	}
}

func hasReason(s BackfillStatus, reason string) bool {
	for _, c := range s.Conditions {
		if c.Reason == reason {
			return true
		}
	}
	return false
}

// compute returns the verdict of kstatus.
func compute(t *testing.T, s BackfillStatus) status.Status {
	t.Helper()
	obj := newBackfillObject()
	obj.SetGeneration(s.ObservedGeneration)
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&s)
	if err != nil {
		t.Fatal(err)
	}
	obj.Object["status"] = fields
	result, err := status.Compute(obj)
	if err != nil {
		t.Fatal(err)
	}
	return result.Status
}

func testBackfillStatusCounts(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	failures := map[media.Code]int64{media.TooLarge: 3, "a": 1, "b": 1, "c": 1, "d": 1, "e": 1}
	b := backfill.Backfill{
		Pipeline: "p", Number: 7, State: backfill.Running, Done: 20, Failed: 8, Skipped: 2, Failures: failures,
		StartedAt: now.Add(-time.Minute),
		Plan:      backfill.Plan{Sampled: 10, Images: backfill.Estimate{Value: 59.6, Error: 1.2}, Seconds: 0.5},
		Canary: backfill.Canary{State: backfill.CanaryComplete, Samples: 9, Done: 2, CPUSeconds: 3, ScoreAfter: 80.25,
			Failures: map[media.Code]int{media.Timeout: 2}, Examples: make([]backfill.CanaryExample, 6)},
	}
	got := backfillObservation{row: &b, now: metav1.NewTime(now)}.next(BackfillStatus{})
	if got.Backfill != "p-7" || got.Total != 60 || got.Plan.Images != (BackfillEstimate{60, 2}) || got.Plan.Seconds != 1 ||
		*got.Plan.CPUSeconds != (BackfillEstimate{89, 2}) {
		t.Errorf("got %+v, plan %+v", got, got.Plan)
	}
	if len(got.FailuresByCode) != 5 || got.FailuresByCode[0] != (CodeCount{string(media.TooLarge), 3}) {
		t.Errorf("got %+v", got.FailuresByCode)
	}
	if got.ETA == nil || !got.ETA.Equal(new(metav1.NewTime(now.Add(time.Minute)))) || got.EndedAt != nil {
		t.Errorf("got eta %v, ended %v", got.ETA, got.EndedAt)
	}
	if c := got.Canary; c == nil || c.ScoreAfter != 80.25 || len(c.Examples) != 5 || c.FailuresByCode[0].Count != 2 ||
		!meta.IsStatusConditionTrue(got.Conditions, Canaried) {
		t.Errorf("got %+v", c)
	}
}

func testBackfillStatusSteady(t *testing.T) {
	t.Parallel()
	b := backfill.Backfill{State: backfill.Running, Open: true}
	o := backfillObservation{row: &b}
	before := o.next(BackfillStatus{})
	b.Done, b.Failed, b.Failures = 5, 1, map[media.Code]int64{media.Timeout: 1}
	after := o.next(before)
	if sameStatus(before, after) || !sameStatus(before.steady(), after.steady()) {
		t.Errorf("got %+v after %+v", after, before)
	}
	b.Suspended = backfill.ByFailures
	if sameStatus(before.steady(), o.next(after).steady()) {
		t.Error("a suspension is no transition")
	}
}

func testBackfillStatusTransitions(t *testing.T) {
	t.Parallel()
	b := backfill.Backfill{State: backfill.Proposed}
	o := backfillObservation{row: &b, approval: finding{reason: ReasonAwaitingApproval}}
	var got []string
	s := BackfillStatus{}
	step := func() {
		next := o.next(s)
		for _, c := range transitions(s.Conditions, next.Conditions) {
			got = append(got, c.Reason)
		}
		s = next
	}
	step()
	step()
	b.State, b.ApprovedHash = backfill.Approved, "h"
	step()
	b.State, b.Open = backfill.Running, true
	step()
	b.State = backfill.Complete
	step()
	if text := strings.Join(got, " "); text != "Planned AwaitingApproval Approved Waiting Running Complete" {
		t.Errorf("got %s", text)
	}
}

func TestApproval(t *testing.T) {
	t.Parallel()
	h := pipeline.Default().Hash()
	good, gate := backfill.Canary{State: backfill.CanaryComplete, Samples: 10}, pipeline.Gates{MaxFailedPercent: new(5.0)}
	for name, row := range map[string]struct {
		own      string
		target   string // "": that of the pipeline
		selector bool
		policy   pipeline.Backfill
		canary   backfill.Canary
		want     string // the reason, "" if it is approved
		stalled  bool
	}{
		"nothing":                    {want: ReasonAwaitingApproval},
		"own_hash":                   {own: h},
		"own_hash_of_another":        {own: "x", policy: pipeline.Backfill{ApprovedHash: h}, want: ReasonHashMismatch, stalled: true},
		"hash_of_the_pipeline":       {policy: pipeline.Backfill{ApprovedHash: h}},
		"older_hash_of_the_pipeline": {policy: pipeline.Backfill{ApprovedHash: "x"}, want: ReasonHashMismatch},
		"pipeline_does_not_speak_for_a_selector": {selector: true,
			policy: pipeline.Backfill{Policy: pipeline.Auto, ApprovedHash: h}, want: ReasonAwaitingApproval},
		"auto_without_gates":     {policy: pipeline.Backfill{Policy: pipeline.Auto}},
		"auto_of_another_target": {target: "y", policy: pipeline.Backfill{Policy: pipeline.Auto}, want: ReasonAwaitingApproval},
		"good_report_of_another_target": {target: "y", policy: pipeline.Backfill{Policy: pipeline.Auto, Gates: gate}, canary: good,
			want: ReasonAwaitingApproval},
		"auto_without_a_report":     {policy: pipeline.Backfill{Policy: pipeline.Auto, Gates: gate}, want: ReasonGatesNotMet},
		"auto_with_a_good_report":   {policy: pipeline.Backfill{Policy: pipeline.Auto, Gates: gate}, canary: good},
		"gates_are_not_for_propose": {policy: pipeline.Backfill{Policy: pipeline.Propose, Gates: gate}, canary: good, want: ReasonAwaitingApproval},
		"hash_needs_no_gates":       {policy: pipeline.Backfill{Policy: pipeline.Auto, Gates: gate, ApprovedHash: h}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := resource{object: &unstructured.Unstructured{}, spec: BackfillSpec{ApprovedHash: row.own}}
			b := backfill.Backfill{
				Pipeline: "p", Number: 1, TargetHash: cmp.Or(row.target, h), State: backfill.Proposed, Canary: row.canary,
			}
			if row.selector {
				r.spec.Selector = &BackfillSelector{Status: "ready"}
			}
			s := &scene{parsed: pipeline.Default()}
			s.parsed.Spec.Backfill = row.policy
			approved, why := r.approval(s, b)
			if approved != (row.want == "") || why.reason != row.want || why.stalled != row.stalled {
				t.Errorf("got %v, %+v", approved, why)
			}
			if !approved && !strings.Contains(why.message, b.TargetHash) {
				t.Errorf("the message does not name the target: %q", why.message)
			}
		})
	}
}

func TestLastChange(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		history string // hash and generation of each, the newest first
		want    string
	}{
		"nothing_was_published":              {"", "[] 0"},
		"first_pipeline":                     {"a2 a1", "[] 0"},
		"changed_with_the_last_generation":   {"b3 a2 a1", "[a] 3"},
		"later_edits_kept_the_hash":          {"b5 b4 b3 a2", "[a] 3"},
		"pipelines_before_in_order_and_once": {"a6 b5 c4 b3 a2 d1", "[b c d] 6"},
	} {
		var history []PublishedRevision
		for _, text := range strings.Fields(row.history) {
			history = append(history, PublishedRevision{Hash: text[:1], Generation: int64(text[1] - '0')})
		}
		before, generation := lastChange(history)
		if got := fmt.Sprint(before, generation); got != row.want {
			t.Errorf("%s: got %s, want %s", name, got, row.want)
		}
	}
}

func TestBackfillPace(t *testing.T) {
	t.Parallel()
	pace, err := BackfillPace{}.toPace()
	if err != nil || pace.Rate != backfill.DefaultRate || pace.FailureThreshold != backfill.DefaultFailureThreshold {
		t.Errorf("the defaults are %+v, %v", pace, err)
	}
	zero := BackfillPace{
		FailureThreshold: new(0.0), MaxInFlight: new(int32(7)), Windows: []string{"22:00-06:00"}, TimeZone: "Europe/Berlin",
	}
	if pace, err = zero.toPace(); err != nil || pace.FailureThreshold != 0 || pace.MaxInFlight != 7 || len(pace.Windows) != 1 {
		t.Errorf("got %+v, %v", pace, err)
	}
	_, err = BackfillPace{Windows: []string{"22:00-06:00", "at night"}, TimeZone: "Atlantis", Rate: new(0.0)}.toPace()
	var paths []string
	for _, f := range fault.From(err).Fields {
		paths = append(paths, f.Path)
	}
	if got := strings.Join(paths, " "); got != "spec.pace.windows[1] spec.pace.rate spec.pace.timeZone" {
		t.Errorf("got %s", got)
	}
}
