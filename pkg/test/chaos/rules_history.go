package main

import (
	"fmt"
	"slices"
	"strings"
)

// The rules about how things came where they are.

func ruleVersions(w *Snapshot, wrong func(string, ...any)) {
	for _, c := range w.Changes {
		if c.OldProduct == nil || c.NewProduct == nil {
			continue
		}
		before, after := c.OldProduct, c.NewProduct
		if after.Version < before.Version || after.Version > before.Version+1 {
			wrong("product %d went from version %d to %d", after.ID, before.Version, after.Version)
		}
		if after.Revision < before.Revision {
			wrong("product %d went from revision %d to %d", after.ID, before.Revision, after.Revision)
		}
		if after.Version == before.Version && !sameToClients(before, after) {
			wrong("product %d has changed and is still at version %d", after.ID, after.Version)
		}
	}
	for _, c := range w.Changes {
		if c.OldImage != nil && c.NewImage != nil && c.NewImage.FencingToken < c.OldImage.FencingToken {
			wrong("picture %d went from fence %d to %d", c.NewImage.ID, c.OldImage.FencingToken, c.NewImage.FencingToken)
		}
	}
}

// sameToClients says whether two rows of a product show the same.
func sameToClients(a, b *ProductRow) bool {
	return a.Name == b.Name && a.Price == b.Price && slices.Equal(a.URLs, b.URLs) &&
		slices.Equal(a.Compressed, b.Compressed) && a.Deleted() == b.Deleted()
}

func ruleChangeEvents(w *Snapshot, wrong func(string, ...any)) {
	told := map[int64]map[int64]map[string]bool{} // product, version: ids of events
	for _, e := range w.Events {
		if e.Type != "product.changed" {
			continue
		}
		if told[e.ProductID] == nil {
			told[e.ProductID] = map[int64]map[string]bool{}
		}
		if told[e.ProductID][e.Version] == nil {
			told[e.ProductID][e.Version] = map[string]bool{}
		}
		told[e.ProductID][e.Version][e.ID] = true
	}
	for _, p := range w.Products {
		for version := int64(1); version <= p.Version; version++ {
			if n := len(told[p.ID][version]); n != 1 {
				wrong("%d events say that product %d is at version %d", n, p.ID, version)
			}
		}
		for version := range told[p.ID] {
			if version > p.Version {
				wrong("an event says that product %d is at version %d, and it is at %d", p.ID, version, p.Version)
			}
		}
		delete(told, p.ID)
	}
	for id := range told {
		wrong("events are about product %d, which has no row", id)
	}
}

// failure is of a picture, at a fence.
type failure struct{ image, fencingToken int64 }

// failures are those that events tell of, with the events' ids and codes; and those that rows died, with the reason.
func (w *Snapshot) failures() (told map[failure]map[string]string, died map[failure]string) {
	told, died = map[failure]map[string]string{}, map[failure]string{}
	for _, e := range w.Events {
		if e.Type == "image.dead" {
			d := failure{e.ImageID, e.FencingToken}
			if told[d] == nil {
				told[d] = map[string]string{}
			}
			told[d][e.ID] = e.Code
		}
	}
	for _, c := range w.Changes {
		if before, after := c.OldImage, c.NewImage; before != nil && after != nil && failed(before, after) {
			died[failure{after.ID, after.FencingToken}] = after.ErrorCode + after.ReprocessError
		}
	}
	return told, died
}

func ruleDeadEvents(w *Snapshot, wrong func(string, ...any)) {
	for _, e := range w.Events {
		if e.Type == "record.undecodable" {
			wrong("a record could not be read: %s", e.Reason)
		}
	}
	told, died := w.failures()
	for d, ids := range told {
		if len(ids) != 1 {
			wrong("%d events tell of the death of picture %d at fence %d", len(ids), d.image, d.fencingToken)
		}
	}
	for d, code := range died {
		if len(told[d]) == 0 {
			wrong("picture %d has failed with %s at fence %d, and no event tells of it", d.image, code, d.fencingToken)
		}
		for _, said := range told[d] {
			if !strings.Contains(code, said) {
				wrong("picture %d has failed with %s at fence %d, and its event says %s", d.image, code, d.fencingToken, said)
			}
		}
	}
	for d := range told {
		if _, ok := died[d]; !ok {
			wrong("an event tells of the death of picture %d at fence %d, which has not failed then", d.image, d.fencingToken)
		}
	}
}

// failed says whether a change of a picture's row gave it up.
func failed(before, after *ImageRow) bool {
	ended := before.JobState != "idle" && after.JobState == "idle"
	return ended && (after.Status == "failed" || after.ReprocessError != "") && after.objectPrefix() == before.objectPrefix()
}

// ruleJobIDs follows each ticket through the rows: it comes into one row, and once it is used up it is never there again.
func ruleJobIDs(w *Snapshot, wrong func(string, ...any)) {
	spent := map[string]string{} // by what
	held := map[string]int64{}   // by which picture
	for _, c := range w.Changes {
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
			wrong("picture %d is worked on without a ticket: %s", id, effect(c))
		}
		if before == after {
			continue
		}
		if before != "" {
			if by, ok := spent[before]; ok {
				wrong("ticket %s of picture %d has two effects: %s, and %s", before, id, by, effect(c))
			}
			spent[before] = effect(c)
		}
		if after != "" {
			if by, ok := spent[after]; ok {
				wrong("ticket %s of picture %d is there again after it was used up: %s", after, id, by)
			}
			if other, ok := held[after]; ok && other != id {
				wrong("ticket %s is of the pictures %d and %d", after, other, id)
			}
			held[after] = id
		}
	}
}

// effect says what a change made of a picture.
func effect(c Change) string {
	if c.NewImage == nil {
		return "removed"
	}
	return fmt.Sprintf("%s %s at fence %d", c.NewImage.Status, c.NewImage.JobState, c.NewImage.FencingToken)
}

// rulePublished looks at each change of what a picture shows: it is made by the attempt that holds the picture, and shows
// what that attempt has stored.
func rulePublished(w *Snapshot, wrong func(string, ...any)) {
	for _, c := range w.Changes {
		before, after := c.OldImage, c.NewImage
		if before == nil || after == nil || before.objectPrefix() == after.objectPrefix() || after.objectPrefix() == "" {
			continue
		}
		if before.JobState != "processing" || before.FencingToken != after.FencingToken || before.Prefix != after.objectPrefix() {
			wrong("picture %d, %s at fence %d below %s, was published at fence %d below %s",
				after.ID, before.JobState, before.FencingToken, before.Prefix, after.FencingToken, after.objectPrefix())
		}
		for _, r := range after.Renditions {
			if !strings.HasPrefix(r.Key, after.objectPrefix()) {
				wrong("picture %d shows objects of two attempts: %s, %s", after.ID, after.objectPrefix(), r.Key)
			}
		}
	}
}
