package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"

	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
)

// Rule is a property that every final state must have. Check calls violation for each violation, with a format and its
// arguments.
type Rule struct {
	Name  string
	Check func(s *Snapshot, violation func(format string, args ...any))
}

// Rules returns all rules.
func Rules() []Rule {
	return []Rule{
		{"the outbox is empty", ruleOutboxEmpty},
		{"accepted products exist", ruleAcceptedExist},
		{"an idempotency key creates one product", ruleIdempotency},
		{"acknowledged changes persist", ruleChangesPersist},
		{"images reach a final state", ruleImagesFinal},
		{"image status matches its source", ruleStatusMatchesSource},
		{"an outage of the network fails no image", ruleOutages},
		{"a flood fails no image of its own", ruleFlood},
		{"product row matches its image rows", ruleProductMatchesImages},
		{"renditions are stored and decode", ruleRenditions},
		{"originals are stored unchanged", ruleOriginals},
		{"objects have a row or a scheduled deletion", ruleNoOrphans},
		{"only referenced objects remain after deletions", ruleDeletionsComplete},
		{"versions increase by one", ruleVersions},
		{"each version has one event", ruleChangeEvents},
		{"each failure has one dead event", ruleDeadEvents},
		{"a job ID has one effect", ruleJobIDs},
		{"a job is released once", ruleReleases},
		{"only the current attempt publishes", rulePublished},
		{"a backfill makes each image once and forgets none", ruleBackfills},
		{"API responses match Postgres", ruleResponses},
		{"lists are complete", ruleLists},
	}
}

// Check applies all rules to a snapshot and returns the violations.
func Check(snap *Snapshot) []Finding {
	var findings []Finding
	for _, rule := range Rules() {
		rule.Check(snap, func(format string, args ...any) {
			findings = append(findings, Finding{rule.Name, fmt.Sprintf(format, args...)})
		})
	}
	return findings
}

func ruleOutboxEmpty(snap *Snapshot, violation func(string, ...any)) {
	if snap.Outbox > 0 {
		violation("%d rows in the outbox, %d of them parked", snap.Outbox, snap.Parked)
	}
}

// productsByToken groups the products by token, which is the product's description.
func (snap *Snapshot) productsByToken() map[string][]ProductRow {
	found := map[string][]ProductRow{}
	for _, p := range snap.Products {
		found[p.Description] = append(found[p.Description], p)
	}
	return found
}

// imagesOf returns a product's images, ordered by position.
func (snap *Snapshot) imagesOf(id int64) []ImageRow {
	var images []ImageRow
	for _, img := range snap.Images {
		if img.ProductID == id {
			images = append(images, img)
		}
	}
	sort.Slice(images, func(i, j int) bool { return images[i].Position < images[j].Position })
	return images
}

// alive returns the products that are not deleted, by id.
func (snap *Snapshot) alive() map[int64]ProductRow {
	alive := map[int64]ProductRow{}
	for _, p := range snap.Products {
		if !p.Deleted() {
			alive[p.ID] = p
		}
	}
	return alive
}

func ruleAcceptedExist(snap *Snapshot, violation func(string, ...any)) {
	rows := map[int64]ProductRow{}
	for _, p := range snap.Products {
		rows[p.ID] = p
	}
	for _, s := range snap.Expectations {
		if !s.Accepted {
			continue
		}
		p, exists := rows[s.ID]
		mayBeDeleted := s.Deleted || s.MaybeDeleted
		switch {
		case !exists:
			violation("product %d (%s) was accepted and has no row", s.ID, s.Token)
		case p.Deleted() && !mayBeDeleted:
			violation("product %d (%s) is deleted without a DELETE request", s.ID, s.Token)
		case !p.Deleted() && s.Deleted:
			violation("product %d (%s) exists after an acknowledged DELETE", s.ID, s.Token)
		case p.Description != s.Token || p.UserID != s.UserID:
			violation("product %d is not %s of user %d but %q of user %d", s.ID, s.Token, s.UserID, p.Description, p.UserID)
		}
	}
}

func ruleIdempotency(snap *Snapshot, violation func(string, ...any)) {
	rows := snap.productsByToken()
	for _, s := range snap.Expectations {
		count := len(rows[s.Token])
		if count > 1 || s.Key != "" && s.Accepted && count != 1 {
			violation("%s (key %q) has %d products", s.Token, s.Key, count)
		}
		if ids := slices.Compact(slices.Sorted(slices.Values(s.IDs))); len(ids) > 1 {
			violation("responses for %s (key %q) contain the ids %v", s.Token, s.Key, ids)
		}
	}
}

func ruleChangesPersist(snap *Snapshot, violation func(string, ...any)) {
	alive := snap.alive()
	for _, s := range snap.Expectations {
		p, ok := alive[s.ID]
		if !ok || !s.Accepted {
			continue
		}
		if p.Name != s.Name && !slices.Contains(s.MaybeNames, p.Name) {
			violation("product %d has the name %q, acknowledged was %q", p.ID, p.Name, s.Name)
		}
		if !samePrice(p.Price.String(), s.Price) &&
			!slices.ContainsFunc(s.MaybePrices, func(maybe string) bool { return samePrice(p.Price.String(), maybe) }) {
			violation("product %d costs %s, acknowledged was %s", p.ID, p.Price, s.Price)
		}
		if !slices.Equal(p.URLs, s.Images) &&
			!slices.ContainsFunc(s.MaybeImages, func(maybe []string) bool { return slices.Equal(p.URLs, maybe) }) {
			violation("product %d has the images %q, acknowledged were %q", p.ID, p.URLs, s.Images)
		}
		if p.Version < s.Version {
			violation("product %d has version %d, but a response had version %d", p.ID, p.Version, s.Version)
		}
	}
}

// samePrice reports whether two decimal numbers are equal. It ignores trailing zeros.
func samePrice(a, b string) bool {
	normalize := func(s string) string {
		if whole, part, ok := strings.Cut(s, "."); ok {
			return strings.TrimSuffix(whole+"."+strings.TrimRight(part, "0"), ".")
		}
		return s
	}
	return normalize(a) == normalize(b)
}

func ruleImagesFinal(snap *Snapshot, violation func(string, ...any)) {
	alive := snap.alive()
	for _, img := range snap.Images {
		if _, ok := alive[img.ProductID]; !ok {
			continue
		}
		switch {
		case img.JobState != "idle":
			violation("image %d of product %d is %s and still %s", img.ID, img.ProductID, img.Status, img.JobState)
		case img.Status == "failed" && img.ErrorCode == "":
			violation("image %d of product %d is failed without an error code", img.ID, img.ProductID)
		case img.Status == "ready" && len(img.Renditions) == 0:
			violation("image %d of product %d is ready and has no renditions", img.ID, img.ProductID)
		case img.Status != "ready" && img.Status != "failed":
			violation("image %d of product %d is %s and has no job", img.ID, img.ProductID, img.Status)
		case img.jobID() != "":
			violation("image %d of product %d is idle and has a job ID", img.ID, img.ProductID)
		}
	}
}

// faultCodes are the error codes with which an image of a valid source may fail because of injected faults.
var faultCodes = []string{
	"codec_crashed", "codec_timeout", "worker_crashed", "timeout", "incomplete", "source_unavailable",
}

func ruleStatusMatchesSource(snap *Snapshot, violation func(string, ...any)) {
	alive := snap.alive()
	for _, img := range snap.Images {
		if _, ok := alive[img.ProductID]; !ok || img.JobState != "idle" {
			continue
		}
		good := imageserver.IsGood(img.SourceURL)
		switch {
		case img.Status == "ready" && !good:
			violation("image %d is ready, but its source is %s", img.ID, img.SourceURL)
		case img.Status == "failed" && good && !slices.Contains(faultCodes, img.ErrorCode):
			violation("image %d failed with %s, but its source is %s", img.ID, img.ErrorCode, img.SourceURL)
		}
	}
}

// ruleFlood checks that no image of a flood fails because many others are processed: its sources always answer at once. Only
// a worker or a codec that a fault kills may fail one.
func ruleFlood(snap *Snapshot, violation func(string, ...any)) {
	for _, s := range snap.Expectations {
		if !s.Flood || !s.Accepted {
			continue
		}
		for _, img := range snap.imagesOf(s.ID) {
			switch img.ErrorCode {
			case "", "codec_crashed", "codec_timeout", "worker_crashed":
			default:
				violation("image %d of %s failed with %s", img.ID, s.Token, img.ErrorCode)
			}
		}
	}
}

func ruleProductMatchesImages(snap *Snapshot, violation func(string, ...any)) {
	for id, p := range snap.alive() {
		urls, keys := []string{}, []string{}
		for position, img := range snap.imagesOf(id) {
			if img.Position != position {
				violation("product %d: image %d has position %d, want %d", id, img.ID, img.Position, position)
			}
			urls = append(urls, img.SourceURL)
			for _, r := range img.Renditions {
				if r.Default {
					keys = append(keys, r.Key)
				}
			}
		}
		if !slices.Equal(p.URLs, urls) {
			violation("product %d has the images %q, the image rows have %q", id, p.URLs, urls)
		}
		if !slices.Equal(p.Compressed, keys) {
			violation("product %d has the compressed images %q, the image rows have %q", id, p.Compressed, keys)
		}
	}
}

func ruleRenditions(snap *Snapshot, violation func(string, ...any)) {
	for id := range snap.alive() {
		for _, img := range snap.imagesOf(id) {
			for _, r := range img.Renditions {
				o, ok := snap.Objects[r.Key]
				switch {
				case !ok:
					violation("%s of product %d is not in the bucket", r.Key, id)
				case o.Err != "":
					violation("%s of product %d does not decode: %s", r.Key, id, o.Err)
				case o.Format != r.Format || o.Width != r.Width || o.Height != r.Height || o.Bytes != r.Bytes:
					violation("%s is %s %dx%d of %d bytes, the row has %s %dx%d of %d bytes",
						r.Key, o.Format, o.Width, o.Height, o.Bytes, r.Format, r.Width, r.Height, r.Bytes)
				}
			}
		}
	}
}

// referencedKeys returns the object keys in the image rows of products that are not deleted.
func (snap *Snapshot) referencedKeys() map[string]bool {
	keys := map[string]bool{}
	alive := snap.alive()
	for _, img := range snap.Images {
		if _, ok := alive[img.ProductID]; ok {
			for _, r := range img.Renditions {
				keys[r.Key] = true
			}
			if img.OriginalKey != "" {
				keys[img.OriginalKey] = true
			}
		}
	}
	return keys
}

// internal reports whether an object is the programs' own: the installation id, or what setup has requested without
// credentials.
func internal(key string) bool {
	return strings.HasPrefix(key, ".vitrine/") || key == "originals/.vitrine"
}

// ruleOriginals checks that every ready image has the original that its renditions were made from.
func ruleOriginals(snap *Snapshot, violation func(string, ...any)) {
	for id := range snap.alive() {
		for _, img := range snap.imagesOf(id) {
			if o := snap.Objects[img.OriginalKey]; img.Status == "ready" && (o.SHA256 == "" || o.SHA256 != img.SourceSHA256) {
				violation("image %d of product %d was made from %s, and its original %q has %q", img.ID, id, img.SourceSHA256,
					img.OriginalKey, o.SHA256)
			}
		}
	}
}

func ruleNoOrphans(snap *Snapshot, violation func(string, ...any)) {
	referenced, scheduled := snap.referencedKeys(), map[string]bool{}
	for _, deletion := range snap.Deletions {
		scheduled[deletion.Prefix] = true
	}
	for key := range snap.Objects {
		prefix := key[:strings.LastIndexByte(key, '/')+1]
		if !referenced[key] && !scheduled[prefix] && !internal(key) {
			violation("%s has neither a row nor a scheduled deletion", key)
		}
	}
}

func ruleDeletionsComplete(snap *Snapshot, violation func(string, ...any)) {
	referenced := snap.referencedKeys()
	for key := range snap.AfterDeletions {
		if !referenced[key] && !internal(key) {
			violation("%s is not referenced and was not deleted", key)
		}
	}
	for key := range referenced {
		if _, ok := snap.AfterDeletions[key]; !ok {
			violation("%s is referenced and was deleted", key)
		}
	}
}

func ruleResponses(snap *Snapshot, violation func(string, ...any)) {
	alive := snap.alive()
	for _, r := range snap.Responses {
		p, ok := alive[r.ID]
		if !ok {
			if r.Status != 404 {
				violation("%s responds with %d for product %d, which is deleted", r.API, r.Status, r.ID)
			}
			continue
		}
		var keys []string
		for _, key := range p.Compressed {
			keys = append(keys, snap.PublicURL+"/"+key)
		}
		got := r.Product
		switch {
		case r.Status != 200:
			violation("%s responds with %d for product %d: %.200s", r.API, r.Status, r.ID, r.Body)
		case got.Version != p.Version:
			violation("%s responds with version %d of product %d, Postgres has %d", r.API, got.Version, r.ID, p.Version)
		case got.ID != p.ID || got.UserID != p.UserID || got.Name != p.Name || got.Description != p.Description ||
			!samePrice(got.Price, p.Price.String()) || !slices.Equal(got.Sources, p.URLs) || !slices.Equal(got.Compressed, keys):
			violation("%s responds with %s, the row of product %d is %+v", r.API, r.Body, r.ID, p)
		case !sameImages(got.Images, snap.imagesOf(p.ID)):
			violation("%s responds with %s, the image rows are %+v", r.API, r.Body, snap.imagesOf(p.ID))
		}
	}
}

func sameImages(images []client.Image, rows []ImageRow) bool {
	return slices.EqualFunc(images, rows, func(a client.Image, r ImageRow) bool {
		return a.ID == r.ID && a.Status == r.Status && a.SourceURL == r.SourceURL && len(a.Renditions) == len(r.Renditions) &&
			(r.Status != "failed" || a.ErrorCode() == r.ErrorCode)
	})
}

func ruleLists(snap *Snapshot, violation func(string, ...any)) {
	bodies := map[string][]byte{}
	for _, r := range snap.Responses {
		bodies[fmt.Sprint(r.API, " ", r.ID)] = r.Body
	}
	for _, list := range snap.Lists {
		if list.Err != "" {
			violation("%s fails to list the products of user %d: %s", list.API, list.UserID, list.Err)
			continue
		}
		var got, want []int64
		for _, item := range list.Items {
			var p client.Product
			if err := json.Unmarshal(item, &p); err != nil {
				violation("%s lists %s: %v", list.API, item, err)
			}
			got = append(got, p.ID)
			if single := bodies[fmt.Sprint(list.API, " ", p.ID)]; single != nil && string(single) != string(item) {
				violation("%s lists product %d as %s, but GET returns %s", list.API, p.ID, item, single)
			}
		}
		for _, p := range snap.Products {
			if p.UserID == list.UserID && !p.Deleted() {
				want = append(want, p.ID)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			violation("%s lists %v as products of user %d, Postgres has %v", list.API, got, list.UserID, want)
		}
	}
}
