package controller

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
)

// statusInterval is the least time between two writes of a status in which only counts have changed.
const statusInterval = 15 * time.Second

// drive carries out what a resource asks for, and writes its status.
func (d *driver) drive(ctx context.Context, s *scene, r resource) error {
	o := backfillObservation{
		generation: r.object.GetGeneration(), suspend: r.status.SuspendApplied, row: s.row(r), now: d.now(),
	}
	if o.row == nil {
		if o.unplanned = d.unplanned(r); o.unplanned.reason == "" {
			return d.write(ctx, r, r.status.at(o.generation))
		}
		return d.write(ctx, r, o.next(r.status))
	}
	err := d.change(ctx, s, r, &o)
	if err != nil && !fault.Is(err, fault.Conflict) {
		return err // the status says nothing about a generation that is not applied, nor about a row that may have changed
	}
	// After a conflict the walk has ended it meanwhile, which the next reconcile reads.
	return d.write(ctx, r, o.next(r.status))
}

// unplanned says why a resource has no row. Without a reason its status stays, but for the observed generation, because the
// row of a backfill that has ended is not kept forever.
func (d *driver) unplanned(r resource) finding {
	switch invalid := fault.From(r.refused); {
	case r.spec.Pipeline.Name != d.cfg.Pipeline:
		return finding{reason: ReasonNotSelected, message: "this installation uses the ImagePipeline " + d.cfg.Pipeline}
	case backfill.State(r.status.State).Ended():
		return finding{}
	case r.byController() || r.status.Backfill != "":
		return finding{reason: ReasonNoBackfill, stalled: true,
			message: "Postgres has no such backfill: make an ImageBackfill with a selector and another name"}
	case invalid != nil && invalid.Kind == fault.NotFound:
		return finding{reason: ReasonUnknownTarget, stalled: true,
			message: "spec.target: no pipeline with this hash was ever in force"}
	case invalid != nil:
		return finding{reason: ReasonInvalidSpec, message: describe(r.refused), stalled: true}
	case r.waitsFor != "":
		return finding{reason: ReasonWaitingForBackfill,
			message: "it is planned when " + r.waitsFor + " has started or ended: a pipeline has one proposal at a time"}
	default:
		return finding{reason: ReasonPipelineNotInForce, message: "it is planned when all instances have the pipeline in force"}
	}
}

// change makes the row as the resource and the pipeline ask for, and completes the observation.
func (d *driver) change(ctx context.Context, s *scene, r resource, o *backfillObservation) error {
	switch o.row.State {
	case backfill.Proposed:
		if err := d.try(ctx, s, r, o); err != nil {
			return err
		}
		if o.judge(s, r) {
			if err := o.changed(d.manager.Approve(ctx, o.row.Name(), o.row.TargetHash)); err != nil {
				return err
			}
		}
	case backfill.Approved, backfill.Running:
		if s.approvedBefore(*o.row) { // Approve was interrupted before it had superseded that one
			if err := o.changed(d.manager.Approve(ctx, o.row.Name(), o.row.TargetHash)); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	return d.adjust(ctx, r, o)
}

// judge reports whether a proposal is approved. It sets why the row is not approved yet, which has a reason in any case: the
// API server refuses conditions without one, and the approval may be in conflict with the state of the row.
func (o *backfillObservation) judge(s *scene, r resource) (approve bool) {
	if approve, o.approval = r.approval(s, *o.row); approve {
		o.approval = finding{reason: ReasonAwaitingApproval, message: "Postgres does not have the approval yet"}
	}
	return approve
}

// changed takes the row that a change has returned, unless the change failed. The scene has it, too.
func (o *backfillObservation) changed(b backfill.Backfill, err error) error {
	if err == nil {
		*o.row = b
	}
	return err
}

// adjust gives the row the pace and the suspension of the resource.
func (d *driver) adjust(ctx context.Context, r resource, o *backfillObservation) error {
	name := o.row.Name()
	pace, err := r.spec.Pace.toPace()
	switch {
	case err != nil:
		o.pace = finding{reason: ReasonInvalidSpec, message: describe(err), stalled: true}
	case !reflect.DeepEqual(pace, o.row.Pace):
		if err := o.changed(d.manager.SetPace(ctx, name, pace)); err != nil {
			return err
		}
	}
	switch wanted := r.spec.Suspend; {
	case wanted && o.row.Suspended == backfill.NotSuspended:
		err = o.changed(d.manager.Suspend(ctx, name, false))
	case !wanted && r.status.SuspendApplied && o.row.Suspended != backfill.NotSuspended:
		err = o.changed(d.manager.Resume(ctx, name))
	default:
		err = nil
	}
	if err == nil {
		o.suspend = r.spec.Suspend
	}
	return err
}

// autoSamples is the number of samples of a canary that gates need.
const autoSamples = 100

// try starts the canary that a resource asks for, or that the gates of the pipeline need. If no sample was found, or every
// sample was lost, it tries again after some time.
func (d *driver) try(ctx context.Context, s *scene, r resource, o *backfillObservation) error {
	samples := 0
	switch policy := s.parsed.Spec.Backfill; {
	case !mayTry(o.row.Canary, d.now().Time) || d.now().Sub(d.tried[o.row.ID]) < canaryInterval:
	case r.spec.Canary != nil:
		samples = int(r.spec.Canary.Samples)
	case r.byController() && s.isAutoFor(*o.row) && policy.Gates != (pipeline.Gates{}):
		samples = autoSamples
	}
	if samples == 0 {
		return nil
	}
	b, err := d.manager.StartCanary(ctx, o.row.Name(), samples)
	if fault.Is(err, fault.Conflict) {
		d.tried[o.row.ID] = d.now().Time
		return nil
	}
	return o.changed(b, err)
}

// canaryInterval is the time between two searches for samples, and from the end of a canary whose samples were all lost to
// the next one.
const canaryInterval = 10 * time.Minute

// mayTry reports whether another canary may be started: there is none yet, or the last one says nothing, because every
// sample was lost.
func mayTry(c backfill.Canary, now time.Time) bool {
	lost := c.State == backfill.CanaryComplete && c.Samples > 0 && c.Failures[backfill.SampleLost] == c.Samples
	return c.State == backfill.NoCanary || lost && now.Sub(c.EndedAt) >= canaryInterval
}

// isAutoFor reports whether the policy of the pipeline is Auto and is for the row. It is for the change of its own spec, so
// it approves no row of an earlier target.
func (s *scene) isAutoFor(b backfill.Backfill) bool {
	return s.parsed.Spec.Backfill.Policy == pipeline.Auto && s.parsed.Hash() == b.TargetHash
}

// approvedBefore reports whether an earlier row of the pipeline waits for its start.
func (s *scene) approvedBefore(b backfill.Backfill) bool {
	return slices.ContainsFunc(slices.Concat(s.rows, s.byCLI), func(other backfill.Backfill) bool {
		return other.State == backfill.Approved && other.ID < b.ID
	})
}

// approval reports whether a proposal is approved, and if not, why. The resource's own approvedHash approves any; what the
// pipeline says is about those that the controller has made.
func (r resource) approval(s *scene, b backfill.Backfill) (approved bool, why finding) {
	switch r.spec.ApprovedHash {
	case b.TargetHash:
		return true, finding{}
	case "":
	default:
		return false, finding{reason: ReasonHashMismatch, stalled: true,
			message: "spec.approvedHash is " + r.spec.ApprovedHash + ", and the target is " + b.TargetHash}
	}
	waiting := finding{reason: ReasonAwaitingApproval, message: "set spec.approvedHash to " + b.TargetHash}
	if !r.byController() || s.parsed.Metadata.Name == "" {
		return false, waiting
	}
	waiting.message += ", or spec.backfill.approvedHash of the ImagePipeline " + b.Pipeline
	policy := s.parsed.Spec.Backfill
	if policy.ApprovedHash == b.TargetHash {
		return true, finding{}
	}
	if s.isAutoFor(b) {
		unmet := b.Canary.Unmet(policy.Gates)
		if len(unmet) == 0 {
			return true, finding{}
		}
		return false, finding{reason: ReasonGatesNotMet, message: strings.Join(unmet, "; ") + ". " + waiting.message}
	}
	if policy.ApprovedHash != "" {
		return false, finding{reason: ReasonHashMismatch,
			message: "spec.backfill.approvedHash of the ImagePipeline is " + policy.ApprovedHash + ": " + waiting.message}
	}
	return false, waiting
}

// write writes a status that has changed, and an Event for each transition.
func (d *driver) write(ctx context.Context, r resource, next BackfillStatus) error {
	uid, now := r.object.GetUID(), d.now().Time
	if sameStatus(r.status, next) ||
		sameStatus(r.status.steady(), next.steady()) && now.Sub(d.written[uid]) < statusInterval {
		return nil
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&next)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	obj := r.object.DeepCopy()
	obj.Object["status"] = fields
	if written, err := patchStatus(ctx, d.client, obj, r.object); !written {
		return err
	}
	d.written[uid] = now
	obj.SetResourceVersion("") // Events about different versions would not be counted as repetitions of one
	for _, is := range transitions(r.status.Conditions, next.Conditions) {
		severity := corev1.EventTypeNormal
		if is.Type == Failed || is.Type == Stalled {
			severity = corev1.EventTypeWarning
		}
		d.events.Eventf(obj, nil, severity, is.Reason, is.Type, "%s", shorten(is.Message, maxNote))
	}
	return nil
}

// transitions returns the conditions that have changed, one for each reason. What is not so yet is none.
func transitions(before, after []metav1.Condition) []metav1.Condition {
	seen := map[string]bool{ReasonNoCanary: true, ReasonNotEnded: true, ReasonEnded: true}
	var changed []metav1.Condition
	for _, kind := range []string{Stalled, Planned, Canaried, Approved, Failed, Complete, Superseded, Progressing} {
		was, is := meta.FindStatusCondition(before, kind), meta.FindStatusCondition(after, kind)
		if is == nil || seen[is.Reason] || was != nil && was.Status == is.Status && was.Reason == is.Reason {
			continue
		}
		seen[is.Reason] = true
		changed = append(changed, *is)
	}
	return changed
}
