package controller

import (
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vitrine.io/pkg/domain/backfill"
)

// The types of conditions of an ImageBackfill, beside Ready, Reconciling and Stalled. Complete, Failed and Superseded are
// always there.
const (
	Planned     = "Planned"     // Postgres has the backfill
	Canaried    = "Canaried"    // the report of a canary is complete
	Approved    = "Approved"    // it was approved
	Progressing = "Progressing" // it makes images now
	Complete    = "Complete"
	Failed      = "Failed"
	Superseded  = "Superseded"
)

// The reasons of conditions of an ImageBackfill.
const (
	ReasonPlanned             = "Planned"
	ReasonInvalidSpec         = "InvalidSpec"         // a field is wrong
	ReasonUnknownTarget       = "UnknownTarget"       // no pipeline with that hash was ever in force
	ReasonPipelineNotInForce  = "PipelineNotInForce"  // nothing can be planned yet
	ReasonWaitingForBackfill  = "WaitingForBackfill"  // nothing is planned while another is proposed or waits for its start
	ReasonNoBackfill          = "NoBackfill"          // Postgres has none for the resource
	ReasonNoCanary            = "NoCanary"            // not Canaried
	ReasonCanaryRunning       = "CanaryRunning"       // not Canaried
	ReasonCanaryComplete      = "CanaryComplete"      // Canaried
	ReasonCanaryStopped       = "CanaryStopped"       // not Canaried: by the approval or the end
	ReasonApproved            = "Approved"            //
	ReasonAwaitingApproval    = "AwaitingApproval"    // not Approved
	ReasonHashMismatch        = "HashMismatch"        // not Approved: approvedHash is that of another pipeline
	ReasonGatesNotMet         = "GatesNotMet"         // not Approved, with the policy Auto
	ReasonRunning             = "Running"             // Progressing
	ReasonWaiting             = "Waiting"             // not Progressing: for its start, a window or the pipeline
	ReasonSuspended           = "Suspended"           // not Progressing: by the operator
	ReasonSuspendedByFailures = "SuspendedByFailures" // not Progressing, and Stalled
	ReasonNotEnded            = "NotEnded"            // neither Complete nor Failed nor Superseded
	ReasonEnded               = "Ended"               // not Progressing
	ReasonComplete            = "Complete"
	ReasonFailed              = "Failed"
	ReasonSuperseded          = "Superseded"
	ReasonCancelled           = "Cancelled"
)

// finding is a reason with its explanation. stalled is true if only a change of the resource helps.
type finding struct {
	reason, message string
	stalled         bool
}

// backfillObservation is all that a new status of an ImageBackfill depends on, besides the previous one.
type backfillObservation struct {
	generation int64
	suspend    bool               // spec.suspend, which was applied
	row        *backfill.Backfill // nil if Postgres has none
	unplanned  finding            // why there is no row
	approval   finding            // why a proposal is not approved
	pace       finding            // why the pace was not applied; no reason if it was
	now        metav1.Time
}

// next returns the status that follows previous.
func (o backfillObservation) next(previous BackfillStatus) BackfillStatus {
	s := previous
	s.Conditions = slices.Clone(previous.Conditions)
	s.ObservedGeneration = o.generation
	s.SuspendApplied = o.suspend
	if o.row == nil {
		return o.nextUnplanned(s)
	}
	b := *o.row
	s.fromRow(b, o.now)
	o.set(&s, Planned, true, ReasonPlanned, fmt.Sprintf("about %d images", s.Plan.Images.Value))
	o.setCanaried(&s, b)
	o.setApproved(&s, b)
	progress := o.progress(b)
	o.set(&s, Progressing, progress.reason == ReasonRunning, progress.reason, progress.message)
	for _, end := range []struct {
		kind  string
		state backfill.State
	}{{Complete, backfill.Complete}, {Failed, backfill.Failed}, {Superseded, backfill.Superseded}} {
		ended := o.ended(b)
		o.set(&s, end.kind, b.State == end.state, ended.reason, ended.message)
	}
	s.Reason = shorten(o.setBackfillReady(&s, b, progress).message, maxMessage)
	return s
}

// nextUnplanned returns the status of a resource without a row.
func (o backfillObservation) nextUnplanned(s BackfillStatus) BackfillStatus {
	s.Reason = shorten(o.unplanned.message, maxMessage)
	if o.unplanned.reason == ReasonNotSelected {
		s.Conditions = nil
		o.set(&s, Planned, false, ReasonNotSelected, o.unplanned.message)
		return s
	}
	o.set(&s, Planned, false, o.unplanned.reason, o.unplanned.message)
	for _, kind := range []string{Complete, Failed, Superseded} {
		o.set(&s, kind, false, ReasonNotEnded, o.unplanned.message)
	}
	o.setSummary(&s, o.unplanned)
	return s
}

// set replaces a condition. Its transition time changes only with its status.
func (o backfillObservation) set(s *BackfillStatus, kind string, holds bool, reason, message string) {
	status := metav1.ConditionFalse
	if holds {
		status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: shorten(message, maxMessage),
		ObservedGeneration: o.generation, LastTransitionTime: o.now,
	})
}

func (o backfillObservation) setCanaried(s *BackfillStatus, b backfill.Backfill) {
	switch b.Canary.State {
	case backfill.CanaryComplete:
		o.set(s, Canaried, true, ReasonCanaryComplete,
			fmt.Sprintf("%d of %d samples were compared", b.Canary.Done, b.Canary.Samples))
	case backfill.CanaryRunning:
		o.set(s, Canaried, false, ReasonCanaryRunning, "the samples are in work")
	case backfill.CanaryStopped:
		o.set(s, Canaried, false, ReasonCanaryStopped, "the backfill was approved or has ended before every sample had an outcome")
	default:
		o.set(s, Canaried, false, ReasonNoCanary, "there is no report of a canary")
	}
}

func (o backfillObservation) setApproved(s *BackfillStatus, b backfill.Backfill) {
	switch {
	case b.ApprovedHash != "":
		o.set(s, Approved, true, ReasonApproved, "the target "+b.TargetHash+" is approved")
	case b.State.Ended():
		o.set(s, Approved, false, ReasonEnded, "it ended before an approval")
	default:
		o.set(s, Approved, false, o.approval.reason, o.approval.message)
	}
}

// progress says whether the backfill makes images now.
func (o backfillObservation) progress(b backfill.Backfill) finding {
	switch {
	case b.State.Ended():
		return finding{reason: ReasonEnded, message: "it is " + string(b.State)}
	case b.Suspended == backfill.ByFailures:
		return finding{reason: ReasonSuspendedByFailures, stalled: true, message: fmt.Sprintf(
			"more than %g %% of the images failed: set spec.suspend to true and then to false to continue", b.FailureThreshold)}
	case b.Suspended == backfill.ByOperator && o.suspend:
		return finding{reason: ReasonSuspended, message: "spec.suspend is true"}
	case b.Suspended == backfill.ByOperator:
		return finding{reason: ReasonSuspended,
			message: "suspended by the command line: set spec.suspend to true and then to false to continue"}
	case b.State == backfill.Proposed:
		return o.approval
	case b.State == backfill.Approved:
		return finding{reason: ReasonWaiting,
			message: "it starts when no other backfill runs and every api has the target in force"}
	case !b.Open:
		return finding{reason: ReasonWaiting, message: "it waits for a window, or for every api to have the target in force"}
	default:
		return finding{reason: ReasonRunning, message: "images are made"}
	}
}

// ended returns how the backfill ended.
func (o backfillObservation) ended(b backfill.Backfill) finding {
	if !b.State.Ended() {
		return finding{reason: ReasonNotEnded, message: "it is " + string(b.State)}
	}
	f := finding{message: b.Reason}
	if f.message == "" {
		f.message = "it is " + string(b.State)
	}
	switch b.State {
	case backfill.Complete:
		f.reason = ReasonComplete
	case backfill.Failed:
		f.reason, f.stalled = ReasonFailed, true
	case backfill.Superseded:
		f.reason = ReasonSuperseded
	default:
		f.reason = ReasonCancelled
	}
	return f
}

// setBackfillReady sets the conditions that kstatus reads, and returns what they say.
func (o backfillObservation) setBackfillReady(s *BackfillStatus, b backfill.Backfill, progress finding) finding {
	if ended := o.ended(b); b.State.Ended() && !ended.stalled {
		for _, kind := range []string{Ready, Reconciling, Stalled} {
			meta.RemoveStatusCondition(&s.Conditions, kind)
		}
		if b.State == backfill.Complete { // without Ready, kstatus reads one that was given up as Current, too
			o.set(s, Ready, true, ended.reason, ended.message)
		}
		return ended
	} else if b.State.Ended() {
		return o.setSummary(s, ended)
	}
	if o.pace.reason != "" {
		return o.setSummary(s, o.pace)
	}
	if b.State == backfill.Proposed && o.approval.stalled {
		return o.setSummary(s, o.approval)
	}
	return o.setSummary(s, progress)
}

// setSummary sets Ready to false, and either Stalled or Reconciling, which are there only while they are true.
func (o backfillObservation) setSummary(s *BackfillStatus, f finding) finding {
	o.set(s, Ready, false, f.reason, f.message)
	is, absent := Reconciling, Stalled
	if f.stalled {
		is, absent = Stalled, Reconciling
	}
	o.set(s, is, true, f.reason, f.message)
	meta.RemoveStatusCondition(&s.Conditions, absent)
	return f
}

// at returns the status of a backfill that has ended, for a later generation of the resource: no edit changes it.
func (s BackfillStatus) at(generation int64) BackfillStatus {
	s.ObservedGeneration, s.Conditions = generation, slices.Clone(s.Conditions)
	for i := range s.Conditions {
		s.Conditions[i].ObservedGeneration = generation
	}
	return s
}

// sameStatus reports whether two statuses are equal in JSON.
func sameStatus(x, y BackfillStatus) bool {
	a, errA := json.Marshal(x)
	b, errB := json.Marshal(y)
	return errA == nil && errB == nil && string(a) == string(b)
}

// steady returns the status without what changes all the time while images are made.
func (s BackfillStatus) steady() BackfillStatus {
	s.Total, s.Done, s.Skipped, s.Failed, s.FailuresByCode, s.ETA = 0, 0, 0, 0, nil, nil
	return s
}
