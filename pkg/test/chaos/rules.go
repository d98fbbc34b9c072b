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

// Rule is one thing that has to be true of what is left.
type Rule struct {
	Name  string
	Check func(*Snapshot, func(format string, args ...any))
}

// Rules are all of them.
func Rules() []Rule {
	return []Rule{
		{"nothing waits any more", ruleOutboxEmpty},
		{"every accepted product exists", ruleAcceptedExist},
		{"a request with a key makes one product", ruleIdempotency},
		{"an acknowledged change stays", ruleChangesPersist},
		{"every picture ends", ruleImagesFinal},
		{"a picture is what its source deserves", ruleStatusMatchesSource},
		{"the product repeats what its pictures say", ruleProductMatchesImages},
		{"every rendition is stored and decodes", ruleRenditions},
		{"no object without a row or an intent", ruleNoOrphans},
		{"when all intents have come due, only what rows name is left", ruleDeletionsComplete},
		{"versions only grow, one by one", ruleVersions},
		{"each version is told once", ruleChangeEvents},
		{"each death is told once", ruleDeadEvents},
		{"no ticket has two effects", ruleJobIDs},
		{"only who holds the picture publishes", rulePublished},
		{"both APIs answer what Postgres holds", ruleResponses},
		{"lists hold what there is", ruleLists},
	}
}

// Check holds a world to all rules.
func Check(w *Snapshot) []Finding {
	var findings []Finding
	for _, rule := range Rules() {
		rule.Check(w, func(format string, args ...any) {
			findings = append(findings, Finding{rule.Name, fmt.Sprintf(format, args...)})
		})
	}
	return findings
}

func ruleOutboxEmpty(w *Snapshot, wrong func(string, ...any)) {
	if w.Outbox > 0 {
		wrong("%d rows in the outbox, %d of them parked", w.Outbox, w.Parked)
	}
}

// productsByToken finds the products of a story. A product's description is its story's token.
func (w *Snapshot) productsByToken() map[string][]ProductRow {
	found := map[string][]ProductRow{}
	for _, p := range w.Products {
		found[p.Description] = append(found[p.Description], p)
	}
	return found
}

// imagesOf are a product's pictures in their order.
func (w *Snapshot) imagesOf(id int64) []ImageRow {
	var images []ImageRow
	for _, img := range w.Images {
		if img.ProductID == id {
			images = append(images, img)
		}
	}
	sort.Slice(images, func(i, j int) bool { return images[i].Position < images[j].Position })
	return images
}

// alive are the products that clients see, by id.
func (w *Snapshot) alive() map[int64]ProductRow {
	alive := map[int64]ProductRow{}
	for _, p := range w.Products {
		if !p.Deleted() {
			alive[p.ID] = p
		}
	}
	return alive
}

func ruleAcceptedExist(w *Snapshot, wrong func(string, ...any)) {
	rows := map[int64]ProductRow{}
	for _, p := range w.Products {
		rows[p.ID] = p
	}
	for _, s := range w.Expectations {
		if !s.Accepted {
			continue
		}
		p, exists := rows[s.ID]
		mayBeGone := s.Deleted || s.MaybeDeleted
		switch {
		case !exists:
			wrong("product %d (%s) was accepted and has no row", s.ID, s.Token)
		case p.Deleted() && !mayBeGone:
			wrong("product %d (%s) is deleted, and nobody asked for that", s.ID, s.Token)
		case !p.Deleted() && s.Deleted:
			wrong("product %d (%s) is there, though its deletion was acknowledged", s.ID, s.Token)
		case p.Description != s.Token || p.UserID != s.UserID:
			wrong("product %d is not %s of user %d but %q of user %d", s.ID, s.Token, s.UserID, p.Description, p.UserID)
		}
	}
}

func ruleIdempotency(w *Snapshot, wrong func(string, ...any)) {
	rows := w.productsByToken()
	for _, s := range w.Expectations {
		made := len(rows[s.Token])
		if made > 1 || s.Key != "" && s.Accepted && made != 1 {
			wrong("%s (key %q) is %d products", s.Token, s.Key, made)
		}
		if ids := slices.Compact(slices.Sorted(slices.Values(s.IDs))); len(ids) > 1 {
			wrong("%s (key %q) was answered with the ids %v", s.Token, s.Key, ids)
		}
	}
}

func ruleChangesPersist(w *Snapshot, wrong func(string, ...any)) {
	alive := w.alive()
	for _, s := range w.Expectations {
		p, ok := alive[s.ID]
		if !ok || !s.Accepted {
			continue
		}
		if p.Name != s.Name && !slices.Contains(s.MaybeNames, p.Name) {
			wrong("product %d is called %q, acknowledged was %q", p.ID, p.Name, s.Name)
		}
		if !samePrice(p.Price.String(), s.Price) &&
			!slices.ContainsFunc(s.MaybePrices, func(maybe string) bool { return samePrice(p.Price.String(), maybe) }) {
			wrong("product %d costs %s, acknowledged was %s", p.ID, p.Price, s.Price)
		}
		if !slices.Equal(p.URLs, s.Images) &&
			!slices.ContainsFunc(s.MaybeImages, func(maybe []string) bool { return slices.Equal(p.URLs, maybe) }) {
			wrong("product %d has the pictures %q, acknowledged were %q", p.ID, p.URLs, s.Images)
		}
		if p.Version < s.Version {
			wrong("product %d is at version %d, and a client was told of %d", p.ID, p.Version, s.Version)
		}
	}
}

// samePrice compares decimals with at most two decimals.
func samePrice(a, b string) bool {
	plain := func(s string) string {
		if whole, part, ok := strings.Cut(s, "."); ok {
			return strings.TrimSuffix(whole+"."+strings.TrimRight(part, "0"), ".")
		}
		return s
	}
	return plain(a) == plain(b)
}

func ruleImagesFinal(w *Snapshot, wrong func(string, ...any)) {
	alive := w.alive()
	for _, img := range w.Images {
		if _, ok := alive[img.ProductID]; !ok {
			continue
		}
		switch {
		case img.JobState != "idle":
			wrong("picture %d of product %d is %s and still %s", img.ID, img.ProductID, img.Status, img.JobState)
		case img.Status == "failed" && img.ErrorCode == "":
			wrong("picture %d of product %d has failed without a reason", img.ID, img.ProductID)
		case img.Status == "ready" && len(img.Renditions) == 0:
			wrong("picture %d of product %d is ready and has no renditions", img.ID, img.ProductID)
		case img.Status != "ready" && img.Status != "failed":
			wrong("picture %d of product %d is %s and in nobody's work", img.ID, img.ProductID, img.Status)
		case img.jobID() != "":
			wrong("picture %d of product %d is idle and has a ticket", img.ID, img.ProductID)
		}
	}
}

// faultCodes are the reasons for which a good source's picture may fail: what was killed or starved while it was at it.
var faultCodes = []string{
	"codec_crashed", "codec_timeout", "worker_crashed", "timeout", "connect_failed", "incomplete", "source_unavailable",
}

func ruleStatusMatchesSource(w *Snapshot, wrong func(string, ...any)) {
	alive := w.alive()
	for _, img := range w.Images {
		if _, ok := alive[img.ProductID]; !ok || img.JobState != "idle" {
			continue
		}
		good := imageserver.IsGood(img.SourceURL)
		switch {
		case img.Status == "ready" && !good:
			wrong("picture %d is ready, and its source is %s", img.ID, img.SourceURL)
		case img.Status == "failed" && good && !slices.Contains(faultCodes, img.ErrorCode):
			wrong("picture %d has failed with %s, and its source is %s", img.ID, img.ErrorCode, img.SourceURL)
		}
	}
}

func ruleProductMatchesImages(w *Snapshot, wrong func(string, ...any)) {
	for id, p := range w.alive() {
		urls, keys := []string{}, []string{}
		for at, img := range w.imagesOf(id) {
			if img.Position != at {
				wrong("product %d: picture %d stands at %d, and should at %d", id, img.ID, img.Position, at)
			}
			urls = append(urls, img.SourceURL)
			for _, r := range img.Renditions {
				if r.Default {
					keys = append(keys, r.Key)
				}
			}
		}
		if !slices.Equal(p.URLs, urls) {
			wrong("product %d has the pictures %q, their rows say %q", id, p.URLs, urls)
		}
		if !slices.Equal(p.Compressed, keys) {
			wrong("product %d shows %q, its pictures' rows say %q", id, p.Compressed, keys)
		}
	}
}

func ruleRenditions(w *Snapshot, wrong func(string, ...any)) {
	for id := range w.alive() {
		for _, img := range w.imagesOf(id) {
			for _, r := range img.Renditions {
				o, ok := w.Objects[r.Key]
				switch {
				case !ok:
					wrong("%s of product %d is not in the bucket", r.Key, id)
				case o.Err != "":
					wrong("%s of product %d does not decode: %s", r.Key, id, o.Err)
				case o.Format != r.Format || o.Width != r.Width || o.Height != r.Height || o.Bytes != r.Bytes:
					wrong("%s is %s %dx%d of %d bytes, its row says %s %dx%d of %d bytes",
						r.Key, o.Format, o.Width, o.Height, o.Bytes, r.Format, r.Width, r.Height, r.Bytes)
				}
			}
		}
	}
}

// referencedKeys are the keys that rows of living products name.
func (w *Snapshot) referencedKeys() map[string]bool {
	named := map[string]bool{}
	alive := w.alive()
	for _, img := range w.Images {
		if _, ok := alive[img.ProductID]; ok {
			for _, r := range img.Renditions {
				named[r.Key] = true
			}
		}
	}
	return named
}

// internalPrefix is where programs keep what is about the bucket itself.
const internalPrefix = ".vitrine/"

func ruleNoOrphans(w *Snapshot, wrong func(string, ...any)) {
	named, intended := w.referencedKeys(), map[string]bool{}
	for _, intent := range w.Deletions {
		intended[intent.Prefix] = true
	}
	for key := range w.Objects {
		prefix := key[:strings.LastIndexByte(key, '/')+1]
		if !named[key] && !intended[prefix] && !strings.HasPrefix(key, internalPrefix) {
			wrong("%s is named by no row, and nobody intends to delete it", key)
		}
	}
}

func ruleDeletionsComplete(w *Snapshot, wrong func(string, ...any)) {
	named := w.referencedKeys()
	for key := range w.AfterDeletions {
		if !named[key] && !strings.HasPrefix(key, internalPrefix) {
			wrong("%s is left", key)
		}
	}
	for key := range named {
		if _, ok := w.AfterDeletions[key]; !ok {
			wrong("%s is gone, and a row names it", key)
		}
	}
}

func ruleResponses(w *Snapshot, wrong func(string, ...any)) {
	alive := w.alive()
	for _, r := range w.Responses {
		p, ok := alive[r.ID]
		if !ok {
			if r.Status != 404 {
				wrong("%s answers %d for product %d, which is gone", r.API, r.Status, r.ID)
			}
			continue
		}
		var keys []string
		for _, key := range p.Compressed {
			keys = append(keys, w.PublicURL+"/"+key)
		}
		got := r.Product
		switch {
		case r.Status != 200:
			wrong("%s answers %d for product %d: %.200s", r.API, r.Status, r.ID, r.Body)
		case got.Version != p.Version:
			wrong("%s answers with version %d of product %d, which is at %d", r.API, got.Version, r.ID, p.Version)
		case got.ID != p.ID || got.UserID != p.UserID || got.Name != p.Name || got.Description != p.Description ||
			!samePrice(got.Price, p.Price.String()) || !slices.Equal(got.Sources, p.URLs) || !slices.Equal(got.Compressed, keys):
			wrong("%s answers %s, and the row of product %d is %+v", r.API, r.Body, r.ID, p)
		case !sameImages(got.Images, w.imagesOf(p.ID)):
			wrong("%s answers %s, and the pictures' rows are %+v", r.API, r.Body, w.imagesOf(p.ID))
		}
	}
}

func sameImages(answered []client.Image, rows []ImageRow) bool {
	return slices.EqualFunc(answered, rows, func(a client.Image, r ImageRow) bool {
		return a.ID == r.ID && a.Status == r.Status && a.SourceURL == r.SourceURL && len(a.Renditions) == len(r.Renditions) &&
			(r.Status != "failed" || a.ErrorCode() == r.ErrorCode)
	})
}

func ruleLists(w *Snapshot, wrong func(string, ...any)) {
	bodies := map[string][]byte{}
	for _, r := range w.Responses {
		bodies[fmt.Sprint(r.API, " ", r.ID)] = r.Body
	}
	for _, list := range w.Lists {
		if list.Err != "" {
			wrong("%s does not list the products of user %d: %s", list.API, list.UserID, list.Err)
			continue
		}
		var got, want []int64
		for _, item := range list.Items {
			var p client.Product
			if err := json.Unmarshal(item, &p); err != nil {
				wrong("%s lists %s", list.API, item)
			}
			got = append(got, p.ID)
			if single := bodies[fmt.Sprint(list.API, " ", p.ID)]; single != nil && string(single) != string(item) {
				wrong("%s lists product %d as %s, and answers %s", list.API, p.ID, item, single)
			}
		}
		for _, p := range w.Products {
			if p.UserID == list.UserID && !p.Deleted() {
				want = append(want, p.ID)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			wrong("%s lists %v as products of user %d, which are %v", list.API, got, list.UserID, want)
		}
	}
}
