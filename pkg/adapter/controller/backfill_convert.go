package controller

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// BackfillKind is the kind of ImageBackfills. Their version is pipeline.APIVersion.
const BackfillKind = "ImageBackfill"

// newBackfillObject returns an empty ImageBackfill.
func newBackfillObject() *unstructured.Unstructured {
	obj := &unstructured.Unstructured{}
	obj.SetGroupVersionKind(schema.FromAPIVersionAndKind(pipeline.APIVersion, BackfillKind))
	return obj
}

// resource is an ImageBackfill as the API server returned it.
type resource struct {
	object *unstructured.Unstructured
	spec   BackfillSpec
	status BackfillStatus

	refused  error  // why no row could be made for it; nil before an attempt
	waitsFor string // the name of the backfill after which a row is made for it; "" if it waits for none
}

// decodeBackfill decodes an ImageBackfill. A status that cannot be decoded, of another version of the definition, is that of
// an object that no controller has seen.
func decodeBackfill(obj *unstructured.Unstructured) (resource, error) {
	r := resource{object: obj, status: BackfillStatus{ObservedGeneration: -1}}
	if err := decodeJSON(obj.Object["spec"], &r.spec); err != nil {
		return resource{}, fmt.Errorf("decode spec of %s: %w", obj.GetName(), err)
	}
	status := r.status
	if decodeJSON(obj.Object["status"], &status) == nil {
		r.status = status
	}
	return r, nil
}

// decodeJSON decodes a tree into a type; nil leaves it as it is.
func decodeJSON(tree, into any) error {
	if tree == nil {
		return nil
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// byController reports whether the controller has made the resource: the definition refuses such names with a selector.
func (r resource) byController() bool { return r.spec.Selector == nil }

// is reports whether the resource is that of a row. The row of one that the controller has made has the pipeline's uid,
// because it is older than the resource.
func (r resource) is(b backfill.Backfill) bool {
	return string(r.object.GetUID()) == b.ResourceUID ||
		r.byController() && r.object.GetName() == b.Name() && r.spec.Target == b.TargetHash
}

// toSelection converts the selector of a resource.
func (s BackfillSelector) toSelection() backfill.Selection {
	selector := backfill.Selector{
		Status: catalog.Status(s.Status), Code: media.Code(s.Code), UserID: catalog.UserID(s.User), OutputHash: s.OutputHash,
	}
	if s.RequestedBefore != nil {
		selector.RequestedBefore = s.RequestedBefore.UTC()
	}
	return backfill.Selection{Kind: backfill.ByHand, Selector: selector}
}

// toOnMissing converts what becomes of images without an original, with its default.
func toOnMissing(m pipeline.OnMissing) backfill.OnMissing {
	if m == pipeline.SkipMissing {
		return backfill.SkipMissing
	}
	return backfill.FetchMissing
}

// toPace converts a pace, with its defaults. The error is a fault.Invalid whose fields have paths below spec.
func (p BackfillPace) toPace() (backfill.Pace, error) {
	pace := backfill.DefaultPace()
	if p.MaxInFlight != nil {
		pace.MaxInFlight = int(*p.MaxInFlight)
	}
	if p.Rate != nil {
		pace.Rate = *p.Rate
	}
	if p.FailureThreshold != nil {
		pace.FailureThreshold = *p.FailureThreshold
	}
	if p.TimeZone != "" {
		pace.TimeZone = p.TimeZone
	}
	var check fault.Checker
	for i, text := range p.Windows {
		w, err := backfill.ParseWindow(text)
		if err != nil {
			check.Add(fmt.Sprintf("spec.pace.windows[%d]", i), "bad_form", "%s", err)
			continue
		}
		pace.Windows = append(pace.Windows, w)
	}
	wrong := append(check.Fields(), pace.Check()...)
	return pace, fault.InvalidFields(renamed(wrong))
}

// fieldPaths are the paths of the engine's fields in a resource.
var fieldPaths = map[string]string{
	"max_in_flight": "spec.pace.maxInFlight", "rate": "spec.pace.rate", "failure_threshold": "spec.pace.failureThreshold",
	"time_zone": "spec.pace.timeZone", "windows": "spec.pace.windows", "selector": "spec.selector",
	"status": "spec.selector.status", "code": "spec.selector.code", "user_id": "spec.selector.user",
}

// renamed returns the fields of the engine by their paths in a resource.
func renamed(fields []fault.Field) []fault.Field {
	for i, f := range fields {
		if path, known := fieldPaths[f.Path]; known {
			fields[i].Path = path
		}
	}
	return fields
}

// fromRow fills a status with what Postgres has.
func (s *BackfillStatus) fromRow(b backfill.Backfill, now metav1.Time) {
	s.Backfill, s.State, s.Suspended, s.TargetHash = b.Name(), string(b.State), string(b.Suspended), b.TargetHash
	s.Total, s.Done, s.Skipped, s.Failed = b.Total(), b.Done, b.Skipped, b.Failed
	s.FailuresByCode, s.Plan, s.Canary = topCodes(b.Failures), fromPlan(b), fromCanary(b.Canary)
	s.StartedAt, s.EndedAt, s.ETA = fromTime(b.StartedAt), fromTime(b.EndedAt), nil
	if left, ok := b.ETA(now.Time); ok {
		s.ETA = fromTime(now.Add(left))
	}
}

// fromTime converts a time, of which the API server keeps seconds. The zero time is nil.
func fromTime(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	converted := metav1.NewTime(t).Rfc3339Copy()
	return &converted
}

// topCodes returns the five most frequent codes.
func topCodes[N int | int64](failures map[media.Code]N) []CodeCount {
	var counts []CodeCount
	for _, code := range backfill.TopFailures(failures) {
		counts = append(counts, CodeCount{Code: string(code), Count: int64(failures[code])})
	}
	return counts
}

func fromPlan(b backfill.Backfill) *BackfillPlan {
	p := b.Plan
	whole := func(e backfill.Estimate) BackfillEstimate {
		return BackfillEstimate{Value: int64(math.Round(e.Value)), StandardError: int64(math.Ceil(e.Error))}
	}
	plan := &BackfillPlan{
		Sampled: int64(p.Sampled), Images: whole(p.Images), WithoutOriginal: whole(p.NoOriginal),
		SourceBytes: whole(p.SourceBytes), StoredBytes: whole(p.StoredBytes),
		Seconds: int64(math.Ceil(p.Seconds)), PlannedAt: metav1.NewTime(p.PlannedAt).Rfc3339Copy(),
	}
	if cpu, ok := b.CPUSeconds(); ok {
		plan.CPUSeconds = new(whole(cpu))
	}
	return plan
}

func fromCanary(c backfill.Canary) *BackfillCanary {
	if c.State == backfill.NoCanary {
		return nil
	}
	report := &BackfillCanary{
		State: string(c.State), Samples: int64(c.Samples), Done: int64(c.Done), Failed: int64(c.Failed), Changed: int64(c.Changed),
		BytesBefore: c.BytesBefore, BytesAfter: c.BytesAfter, ScoreBefore: c.ScoreBefore, ScoreAfter: c.ScoreAfter,
		CPUSeconds: c.CPUSeconds, FailuresByCode: topCodes(c.Failures),
	}
	for _, e := range c.Examples[:min(len(c.Examples), maxExamples)] {
		report.Examples = append(report.Examples, CanaryExample{
			Image: int64(e.ImageID), Before: e.Before, After: e.After, BytesBefore: e.BytesBefore, BytesAfter: e.BytesAfter,
			ScoreBefore: e.ScoreBefore, ScoreAfter: e.ScoreAfter,
		})
	}
	return report
}

// maxExamples is as in the schema.
const maxExamples = 5
