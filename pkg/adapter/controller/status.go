package controller

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
)

// The types of conditions. Reconciling and Stalled are there only while they are true, as kstatus expects.
const (
	Accepted    = "Accepted"    // the spec is valid and within the bounds
	Published   = "Published"   // the ConfigMap has it
	InForce     = "InForce"     // all instances use it
	Ready       = "Ready"       // all of the above
	Reconciling = "Reconciling" // not ready yet
	Stalled     = "Stalled"     // will not become ready unless the spec is changed
)

// The reasons of conditions.
const (
	ReasonValid             = "Valid"             // Accepted
	ReasonInvalid           = "Invalid"           // not Accepted
	ReasonExceedsBounds     = "ExceedsBounds"     // not Accepted
	ReasonNotSelected       = "NotSelected"       // not Accepted: the installation uses another pipeline
	ReasonPublished         = "Published"         // Published
	ReasonPublishFailed     = "PublishFailed"     // not Published
	ReasonNotAccepted       = "NotAccepted"       // neither Published nor InForce
	ReasonNotPublished      = "NotPublished"      // not InForce
	ReasonAllInstances      = "AllInstances"      // InForce and Ready
	ReasonRollingOut        = "RollingOut"        // not InForce
	ReasonRefused           = "RefusedByInstance" // not InForce: an instance has refused the published file
	ReasonNoInstances       = "NoInstances"       // not InForce
	ReasonHeartbeatsUnknown = "HeartbeatsUnknown" // InForce is unknown
)

const (
	maxHistory = 10   // as in the schema
	maxMessage = 2048 // bytes of a condition's message
	maxNote    = 1000 // bytes of an Event's note, which may have 1 KiB
)

// observation is all that a new status depends on, besides the previous one.
type observation struct {
	generation int64
	selected   string             // the name of the pipeline that the installation uses, if it is not this one
	revision   *pipeline.Revision // of the spec; nil if it was refused or is not selected
	refused    error              // why the spec was refused
	publishErr error              // why it could not be published
	heartbeats snapshot
	now        metav1.Time
}

// next returns the status that follows previous.
func (o observation) next(previous Status) Status {
	if o.selected != "" {
		s := Status{ObservedGeneration: o.generation, Reason: ReasonNotSelected, History: previous.History}
		keep := meta.FindStatusCondition(previous.Conditions, Accepted)
		if keep != nil {
			s.Conditions = []metav1.Condition{*keep}
		}
		o.set(&s, Accepted, metav1.ConditionFalse, ReasonNotSelected, "this installation uses the ImagePipeline "+o.selected)
		return s
	}
	s := previous
	s.Conditions, s.History = slices.Clone(previous.Conditions), slices.Clone(previous.History)
	s.ObservedGeneration = o.generation
	o.setAccepted(&s)
	o.setPublished(&s)
	o.setInstances(&s)
	o.setInForce(&s, previous)
	o.setReady(&s)
	return s
}

// set replaces a condition. Its transition time changes only with its status.
func (o observation) set(s *Status, kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: shorten(message, maxMessage),
		ObservedGeneration: o.generation, LastTransitionTime: o.now,
	})
}

func (o observation) setAccepted(s *Status) {
	switch {
	case o.revision != nil:
		o.set(s, Accepted, metav1.ConditionTrue, ReasonValid, "the spec is valid and within the bounds of the installation")
	case fault.CodeOf(o.refused) == pipeline.ExceedsBounds:
		o.set(s, Accepted, metav1.ConditionFalse, ReasonExceedsBounds, describe(o.refused))
	default:
		o.set(s, Accepted, metav1.ConditionFalse, ReasonInvalid, describe(o.refused))
	}
}

// setPublished also records what was published.
func (o observation) setPublished(s *Status) {
	switch {
	case o.revision == nil && s.Revision == "":
		o.set(s, Published, metav1.ConditionFalse, ReasonNotAccepted, "nothing was published yet")
	case o.revision == nil:
		o.set(s, Published, metav1.ConditionFalse, ReasonNotAccepted, "revision "+s.Revision+" stays published")
	case o.publishErr != nil:
		o.set(s, Published, metav1.ConditionFalse, ReasonPublishFailed, o.publishErr.Error())
	default:
		id, hash := o.revision.ID(), o.revision.Hash()
		s.Revision, s.Hash, s.RenditionCount = id, hash, int32(len(o.revision.Spec().Renditions))
		if len(s.History) == 0 || s.History[0].Revision != id {
			s.History = slices.Insert(s.History, 0, PublishedRevision{
				Revision: id, Hash: hash, Generation: o.generation, Time: o.now,
			})
			s.History = s.History[:min(len(s.History), maxHistory)]
		}
		o.set(s, Published, metav1.ConditionTrue, ReasonPublished, "revision "+id+" is published")
	}
}

// setInstances counts the instances by the published revision. Without heartbeats the last count stays.
func (o observation) setInstances(s *Status) {
	if !o.heartbeats.known() {
		return
	}
	s.Instances = &Instances{Total: int32(len(o.heartbeats.reports))}
	for _, r := range o.heartbeats.reports {
		switch {
		case r.Error != "":
			s.Instances.Refused++
		case r.Revision == s.Revision:
			s.Instances.InForce++
		}
	}
	s.Instances.Summary = fmt.Sprintf("%d/%d", s.Instances.InForce, s.Instances.Total)
}

// setInForce sets the condition InForce. Once true it stays true for a revision: an instance that starts reads the published
// file before anything else, and silence says nothing. Nor does a ConfigMap that cannot be repaired, or an edit of fields
// that are not published. Only an instance that refuses the file ends it.
func (o observation) setInForce(s *Status, previous Status) {
	before := meta.FindStatusCondition(previous.Conditions, InForce)
	latched := before != nil && before.Status == metav1.ConditionTrue && o.revision != nil &&
		previous.Revision == o.revision.ID()
	switch i := s.Instances; {
	case o.revision == nil:
		o.set(s, InForce, metav1.ConditionFalse, ReasonNotAccepted, "the spec is not accepted")
	case o.publishErr != nil && !latched:
		o.set(s, InForce, metav1.ConditionFalse, ReasonNotPublished, "the revision is not published")
	case o.heartbeats.known() && i.Refused > 0:
		o.set(s, InForce, metav1.ConditionFalse, ReasonRefused, o.heartbeats.refusal())
	case o.heartbeats.known() && i.Total > 0 && i.InForce == i.Total, latched:
		o.set(s, InForce, metav1.ConditionTrue, ReasonAllInstances, "all instances have revision "+s.Revision+" in force")
	case !o.heartbeats.known():
		o.set(s, InForce, metav1.ConditionUnknown, ReasonHeartbeatsUnknown, "the heartbeats in Postgres cannot be read")
	case i.Total == 0:
		o.set(s, InForce, metav1.ConditionFalse, ReasonNoInstances, "no instance has written a heartbeat in the last minute")
	default:
		o.set(s, InForce, metav1.ConditionFalse, ReasonRollingOut, "some instances have another revision in force")
	}
}

// setReady sets Ready, Reconciling and Stalled, and the reason in the table of kubectl get.
func (o observation) setReady(s *Status) {
	status, failing := metav1.ConditionTrue, *meta.FindStatusCondition(s.Conditions, InForce)
	for _, kind := range []string{Accepted, Published, InForce} {
		if c := meta.FindStatusCondition(s.Conditions, kind); c.Status != metav1.ConditionTrue {
			status, failing = metav1.ConditionFalse, *c
			break
		}
	}
	s.Reason = failing.Reason
	o.set(s, Ready, status, failing.Reason, failing.Message)
	meta.RemoveStatusCondition(&s.Conditions, Reconciling)
	switch {
	case o.revision == nil:
		o.set(s, Stalled, metav1.ConditionTrue, failing.Reason, failing.Message)
		return
	case status != metav1.ConditionTrue:
		o.set(s, Reconciling, metav1.ConditionTrue, failing.Reason, failing.Message)
	}
	meta.RemoveStatusCondition(&s.Conditions, Stalled)
}

// describe returns an error's fields, one per line, or its text.
func describe(err error) string {
	invalid := fault.From(err)
	if invalid == nil || len(invalid.Fields) == 0 {
		return err.Error()
	}
	lines := make([]string, len(invalid.Fields))
	for i, f := range invalid.Fields {
		lines[i] = f.Path + ": " + f.Detail
	}
	return strings.Join(lines, "\n")
}

// shorten cuts a text to a number of bytes.
func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-3], "") + "..."
}
