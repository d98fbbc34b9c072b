package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"vitrine.io/pkg/test/imageserver"
)

// These rules check the history of rows and events, not only the final state.

func ruleVersions(snap *Snapshot, violation func(string, ...any)) {
	for _, c := range snap.Changes {
		if c.OldProduct == nil || c.NewProduct == nil {
			continue
		}
		before, after := c.OldProduct, c.NewProduct
		if after.Version < before.Version || after.Version > before.Version+1 {
			violation("product %d went from version %d to %d", after.ID, before.Version, after.Version)
		}
		if after.Revision < before.Revision {
			violation("product %d went from revision %d to %d", after.ID, before.Revision, after.Revision)
		}
		if after.Version == before.Version && !sameToClients(before, after) {
			violation("product %d changed without a new version, it has %d", after.ID, after.Version)
		}
	}
	for _, c := range snap.Changes {
		if c.OldImage != nil && c.NewImage != nil && c.NewImage.FencingToken < c.OldImage.FencingToken {
			violation("image %d went from fencing token %d to %d", c.NewImage.ID, c.OldImage.FencingToken, c.NewImage.FencingToken)
		}
	}
}

// sameToClients reports whether two rows of a product have the same fields in the API.
func sameToClients(a, b *ProductRow) bool {
	return a.Name == b.Name && a.Price == b.Price && slices.Equal(a.URLs, b.URLs) &&
		slices.Equal(a.Compressed, b.Compressed) && a.Deleted() == b.Deleted()
}

// outageCodes are the error codes of an attempt to download a good source while the resolver or egress is away.
var outageCodes = []string{"connect_failed", "timeout", "tls_failed", "incomplete", "dns_failed"}

// ruleOutages checks that no request for a good image ends with the code of an outage, neither during one nor with a code
// that only an outage has.
func ruleOutages(snap *Snapshot, violation func(string, ...any)) {
	for _, c := range snap.Changes {
		if c.OldImage == nil || c.NewImage == nil || !imageserver.IsGood(c.NewImage.SourceURL) {
			continue
		}
		code := c.NewImage.ErrorCode
		if code == c.OldImage.ErrorCode {
			code = c.NewImage.ReprocessError
		}
		if code == "" || code == c.OldImage.ErrorCode || code == c.OldImage.ReprocessError {
			continue
		}
		if code == "resolver_unavailable" || code == "egress_unavailable" || code == "dns_failed" {
			violation("image %d ended with %s", c.NewImage.ID, code)
		}
		for _, o := range snap.Outages {
			if slices.Contains(outageCodes, code) && c.At.After(o.From) && c.At.Before(o.To) {
				violation("image %d ended with %s at %s, during %s", c.NewImage.ID, code, c.At.Format(time.TimeOnly), o.Kind)
			}
		}
	}
}

func ruleChangeEvents(snap *Snapshot, violation func(string, ...any)) {
	eventIDs := map[int64]map[int64]map[string]bool{} // by product and version
	for _, e := range snap.Events {
		if e.Type != "product.changed" {
			continue
		}
		if eventIDs[e.ProductID] == nil {
			eventIDs[e.ProductID] = map[int64]map[string]bool{}
		}
		if eventIDs[e.ProductID][e.Version] == nil {
			eventIDs[e.ProductID][e.Version] = map[string]bool{}
		}
		eventIDs[e.ProductID][e.Version][e.ID] = true
	}
	for _, p := range snap.Products {
		for version := int64(1); version <= p.Version; version++ {
			if n := len(eventIDs[p.ID][version]); n != 1 {
				violation("%d events for product %d, version %d", n, p.ID, version)
			}
		}
		for version := range eventIDs[p.ID] {
			if version > p.Version {
				violation("an event has version %[2]d of product %[1]d, which has version %[3]d", p.ID, version, p.Version)
			}
		}
		delete(eventIDs, p.ID)
	}
	for id := range eventIDs {
		violation("events for product %d, which has no row", id)
	}
}

// failure identifies a failed attempt of an image.
type failure struct{ image, fencingToken int64 }

// failures returns the failures that dead events report, with the code of each event id, and those in the rows' history,
// with their error code.
func (snap *Snapshot) failures() (reported map[failure]map[string]string, inRows map[failure]string) {
	reported, inRows = map[failure]map[string]string{}, map[failure]string{}
	for _, e := range snap.Events {
		if e.Type == "image.dead" {
			d := failure{e.ImageID, e.FencingToken}
			if reported[d] == nil {
				reported[d] = map[string]string{}
			}
			reported[d][e.ID] = e.Code
		}
	}
	for _, c := range snap.Changes {
		if before, after := c.OldImage, c.NewImage; before != nil && after != nil && failed(before, after) {
			inRows[failure{after.ID, after.FencingToken}] = after.ErrorCode + after.ReprocessError
		}
	}
	return reported, inRows
}

func ruleDeadEvents(snap *Snapshot, violation func(string, ...any)) {
	for _, e := range snap.Events {
		if e.Type == "record.undecodable" {
			violation("a consumer could not decode a record: %s", e.Reason)
		}
	}
	reported, inRows := snap.failures()
	for f, ids := range reported {
		if len(ids) != 1 {
			violation("%d dead events for image %d, fencing token %d", len(ids), f.image, f.fencingToken)
		}
	}
	for f, code := range inRows {
		if len(reported[f]) == 0 {
			violation("image %d failed with %s at fencing token %d without a dead event", f.image, code, f.fencingToken)
		}
		for _, reportedCode := range reported[f] {
			if !strings.Contains(code, reportedCode) {
				violation("image %d failed with %s at fencing token %d, its dead event has %s", f.image, code, f.fencingToken,
					reportedCode)
			}
		}
	}
	for f := range reported {
		if _, ok := inRows[f]; !ok {
			violation("a dead event for image %d, fencing token %d, which did not fail", f.image, f.fencingToken)
		}
	}
}

// failed reports whether a change of an image row ends its job with a failure. Those of backfills are not reported.
func failed(before, after *ImageRow) bool {
	if before.BackfillID != 0 {
		return false
	}
	ended := before.JobState != "idle" && after.JobState == "idle"
	return ended && (after.Status == "failed" || after.ReprocessError != "") && after.objectPrefix() == before.objectPrefix()
}

// ruleJobIDs follows each job ID through the rows: it appears in one row only, and not again after it was replaced or
// cleared.
func ruleJobIDs(snap *Snapshot, violation func(string, ...any)) {
	used := map[string]string{}  // the effect, by job ID
	holder := map[string]int64{} // the image, by job ID
	for _, c := range snap.Changes {
		if c.Kind != "images" {
			continue
		}
		before, after := "", ""
		var id int64
		if c.OldImage != nil {
			before, id = c.OldImage.jobID(), c.OldImage.ID
		}
		if c.NewImage != nil {
			after, id = c.NewImage.jobID(), c.NewImage.ID
		}
		if c.NewImage != nil && c.NewImage.JobState == "processing" && (before == "" || before != after) {
			violation("image %d is processing without a job ID: %s", id, effect(c))
		}
		if before == after {
			continue
		}
		if before != "" {
			if by, ok := used[before]; ok {
				violation("job ID %s of image %d has two effects: %s, and %s", before, id, by, effect(c))
			}
			used[before] = effect(c)
		}
		if after != "" {
			if by, ok := used[after]; ok {
				violation("job ID %s of image %d appears again after its effect: %s", after, id, by)
			}
			if other, ok := holder[after]; ok && other != id {
				violation("images %[2]d and %[3]d have the same job ID %[1]s", after, other, id)
			}
			holder[after] = id
		}
	}
}

// ruleReleases checks that each job is released at most once, and stays released. A lost job may get a later time.
func ruleReleases(snap *Snapshot, violation func(string, ...any)) {
	released := map[string]bool{}
	for _, c := range snap.Jobs {
		if c.New == nil {
			continue
		}
		id, was := c.New.JobID, c.Old != nil && c.Old.JobID == c.New.JobID && c.Old.ReleasedAt != nil
		switch is := c.New.ReleasedAt != nil; {
		case was && !is:
			violation("job ID %s of image %d was released, and waits again", id, c.New.ImageID)
		case is && !was && released[id]:
			violation("job ID %s of image %d was released twice", id, c.New.ImageID)
		case is:
			released[id] = true
		}
	}
}

// effect describes the image row after a change.
func effect(c Change) string {
	if c.NewImage == nil {
		return "removed"
	}
	return fmt.Sprintf("%s %s at fencing token %d", c.NewImage.Status, c.NewImage.JobState, c.NewImage.FencingToken)
}

// rulePublished checks each change of an image's renditions: the attempt that holds the image's fencing token makes it, and
// the new renditions are that attempt's objects.
func rulePublished(snap *Snapshot, violation func(string, ...any)) {
	for _, c := range snap.Changes {
		before, after := c.OldImage, c.NewImage
		if before == nil || after == nil || before.objectPrefix() == after.objectPrefix() || after.objectPrefix() == "" {
			continue
		}
		if before.JobState != "processing" || before.FencingToken != after.FencingToken || before.Prefix != after.objectPrefix() {
			violation("image %d, %s at fencing token %d with prefix %s, was published at fencing token %d with prefix %s",
				after.ID, before.JobState, before.FencingToken, before.Prefix, after.FencingToken, after.objectPrefix())
		}
		for _, r := range after.Renditions {
			if !strings.HasPrefix(r.Key, after.objectPrefix()) {
				violation("image %d has renditions of two attempts: %s, %s", after.ID, after.objectPrefix(), r.Key)
			}
		}
	}
}
