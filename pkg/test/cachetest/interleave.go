package cachetest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vitrine.io/pkg/domain/catalog"
)

// entry is the model: what a key holds.
type entry struct {
	tag     string // "" is a tombstone
	version int64
	here    bool
}

func (e *entry) fill(tag string, version int64) catalog.FillOutcome {
	if e.here && e.version > version {
		return catalog.Stale
	}
	*e = entry{tag: tag, version: version, here: true}
	return catalog.Filled
}

func (e *entry) forget(version int64) {
	if !e.here || e.version < version {
		*e = entry{version: version, here: true}
	}
}

// model walks random interleavings of readers and writers of one product through two releases. It checks each answer against
// the model and, apart from the model, the one promise that matters: nothing older than the highest Forget is read.
func (s *suite) model(t *testing.T) {
	caches := map[string]catalog.Cache{tagA: s.open(t, tagA), tagB: s.open(t, tagB)}
	rapid.Check(t, func(r *rapid.T) {
		id := s.product()
		var held entry
		var floor int64
		tags := rapid.SampledFrom([]string{tagA, tagB})
		versions := rapid.Int64Range(0, 6)
		r.Repeat(map[string]func(*rapid.T){
			"fill": func(r *rapid.T) {
				tag, version := tags.Draw(r, "tag"), versions.Draw(r, "version")
				doc := document(id, version)
				if version == 0 {
					doc = catalog.Document{Missing: true}
				}
				got, err := caches[tag].Fill(t.Context(), id, doc, time.Now())
				if want := held.fill(tag, version); err != nil || got != want {
					r.Fatalf("fill %d: got outcome %d, %v, want %d", version, got, err, want)
				}
			},
			"forget": func(r *rapid.T) {
				tag, version := tags.Draw(r, "tag"), versions.Draw(r, "version")
				if err := caches[tag].Invalidate(t.Context(), id, version); err != nil {
					r.Fatalf("forget %d: %v", version, err)
				}
				held.forget(version)
				floor = max(floor, version)
			},
			"get": func(r *rapid.T) {
				tag := tags.Draw(r, "tag")
				doc, hit, err := caches[tag].Get(t.Context(), id)
				if err != nil {
					r.Fatalf("get: %v", err)
				}
				if hit && doc.Version < floor {
					r.Fatalf("get: got version %d after a forget of %d", doc.Version, floor)
				}
				if want := held.here && held.tag == tag; hit != want || hit && doc.Version != held.version {
					r.Fatalf("get: got hit %t version %d, want %t %d", hit, doc.Version, want, held.version)
				}
			},
		})
	})
}

// race lets writers, slow readers and readers go at one product at once. database is its version; a writer raises it and
// then calls Forget, as the service does after a commit; forgotten is the highest version passed to Forget.
func (s *suite) race(t *testing.T) {
	const workers, rounds = 4, 250
	at := s.shelf(t)
	var database, forgotten atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for range rounds {
				version := database.Add(1)
				if err := at.cache.Invalidate(t.Context(), at.id, version); err != nil {
					t.Errorf("forget %d: %v", version, err)
					return
				}
				raise(&forgotten, version)
			}
		})
		group.Go(func() {
			for range rounds {
				began, version := time.Now(), database.Load()
				if _, err := at.cache.Fill(t.Context(), at.id, document(at.id, version), began); err != nil {
					t.Errorf("fill %d: %v", version, err)
					return
				}
			}
		})
		group.Go(func() { s.watch(t, at, &forgotten, rounds) })
	}
	group.Wait()
	at.fill(database.Load(), catalog.Filled)
	at.want(database.Load())
}

// watch reads, and compares each version with the highest one passed to Forget before.
func (s *suite) watch(t *testing.T, at shelf, forgotten *atomic.Int64, rounds int) {
	for range rounds {
		floor := forgotten.Load()
		doc, hit, err := at.cache.Get(t.Context(), at.id)
		if err != nil {
			t.Errorf("get: %v", err)
			return
		}
		if hit && doc.Version < floor {
			t.Errorf("got version %d, after Forget of %d", doc.Version, floor)
			return
		}
	}
}

// raise sets n to version unless it is higher.
func raise(n *atomic.Int64, version int64) {
	for {
		old := n.Load()
		if old >= version || n.CompareAndSwap(old, version) {
			return
		}
	}
}
