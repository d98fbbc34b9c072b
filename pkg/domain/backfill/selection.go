package backfill

import (
	"slices"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// Kind is how a backfill selects images.
type Kind string

// The kinds.
const (
	Renditions Kind = "renditions" // ready images whose output hash is not the target's, and those of Failures
	Failures   Kind = "failures"   // failed images whose code is one of Codes
	ByHand     Kind = "selector"   // images that meet every condition of the selector
)

// Selection says which images a backfill is for.
type Selection struct {
	Kind  Kind
	Codes []media.Code // of Renditions and Failures
	Selector
}

// Selector has the conditions of a selection by hand. A zero field is no condition.
type Selector struct {
	Status          catalog.Status
	Code            media.Code // the failure code of the image, or its reprocess error
	UserID          catalog.UserID
	OutputHash      string    // pipeline.Spec.OutputHash of the renditions
	RequestedBefore time.Time // the last request
}

// Check returns every wrong field of a selector.
func (s Selector) Check() []fault.Field {
	var check fault.Checker
	check.Check(s != Selector{}, "selector", "required", "at least one condition is needed")
	switch s.Status {
	case "", catalog.Ready, catalog.Failed:
	default:
		check.Add("status", "unknown_value", "ready or failed, not %q", s.Status)
	}
	if _, known := media.Codes()[s.Code]; s.Code != "" && !known {
		check.Add("code", "unknown_value", "%q is not a code of failures", s.Code)
	}
	check.Range(s.UserID >= 0, "user_id", "must not be below zero")
	return check.Fields()
}

// selects reports whether an image is selected. outputs has the output hash of each pipeline.
func (s Selection) selects(user catalog.UserID, img catalog.Image, target string, outputs map[string]string) bool {
	if s.Kind != ByHand {
		return s.Kind == Renditions && img.Status == catalog.Ready && outputOf(img, outputs) != target ||
			img.Status == catalog.Failed && slices.Contains(s.Codes, img.ErrorCode)
	}
	return s.matches(user, img) &&
		(s.OutputHash == "" || img.Status == catalog.Ready && outputOf(img, outputs) == s.OutputHash)
}

// matches reports whether an image meets every condition except for the output hash.
func (s Selector) matches(user catalog.UserID, img catalog.Image) bool {
	return (s.Status == "" || img.Status == s.Status) &&
		(s.Code == "" || img.ErrorCode == s.Code || img.ReprocessError == s.Code) &&
		(s.UserID == 0 || user == s.UserID) &&
		(s.RequestedBefore.IsZero() || img.RequestedAt.Before(s.RequestedBefore))
}

// outputOf returns the output hash of an image's renditions, or "" if it is not known. Rows of earlier releases have none:
// it is that of the pipeline of the last request, unless that request failed.
func outputOf(img catalog.Image, outputs map[string]string) string {
	if img.OutputHash != "" || img.ReprocessError != "" {
		return img.OutputHash
	}
	return outputs[img.PipelineHash]
}

// Difference is what of existing images a change of a pipeline affects.
type Difference struct {
	Renditions bool         // ready images would have other renditions
	Codes      []media.Code // images that failed with these codes may succeed
}

// Compare returns the difference between two specifications. A changed list of accepted formats or a changed limit affects
// only images that failed for it.
func Compare(from, to pipeline.Spec) Difference {
	d := Difference{Renditions: from.OutputHash() != to.OutputHash()}
	for code, changed := range map[media.Code]bool{
		media.UnsupportedFormat: slices.ContainsFunc(to.Accept, func(f pipeline.Format) bool {
			return !slices.Contains(from.Accept, f)
		}),
		media.TooLarge:      to.Limits.MaxBytes > from.Limits.MaxBytes,
		media.TooManyPixels: to.Limits.MaxPixels > from.Limits.MaxPixels,
		media.CodecTimeout:  to.Limits.Deadline > from.Limits.Deadline,
	} {
		if changed {
			d.Codes = append(d.Codes, code)
		}
	}
	slices.Sort(d.Codes)
	return d
}

// Selection returns the selection that carries out the difference. ok is false if no image is affected.
func (d Difference) Selection() (s Selection, ok bool) {
	switch {
	case d.Renditions:
		return Selection{Kind: Renditions, Codes: d.Codes}, true
	case len(d.Codes) > 0:
		return Selection{Kind: Failures, Codes: d.Codes}, true
	default:
		return Selection{}, false
	}
}
