package cachetest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vitrine.io/pkg/domain/catalog"
)

// entry is the model of a product's key.
type entry struct {
	tag     string // "" is a tombstone
	version int64
	present bool
}

func (e *entry) fill(tag string, version int64) catalog.FillResult {
	if e.present && e.version > version {
		return catalog.Stale
	}
	*e = entry{tag: tag, version: version, present: true}
	return catalog.Filled
}

func (e *entry) invalidate(version int64) {
	if !e.present || e.version < version {
		*e = entry{version: version, present: true}
	}
}

// interleavingsMatchModel makes random calls for one product through the caches of two releases. It compares each result
// with the model and, independently of it, checks that no lookup returns a version below the highest invalidated one.
func (s *suite) interleavingsMatchModel(t *testing.T) {
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
			"invalidate": func(r *rapid.T) {
				tag, version := tags.Draw(r, "tag"), versions.Draw(r, "version")
				if err := caches[tag].Invalidate(t.Context(), id, version); err != nil {
					r.Fatalf("invalidate %d: %v", version, err)
				}
				held.invalidate(version)
				floor = max(floor, version)
			},
			"get": func(r *rapid.T) {
				tag := tags.Draw(r, "tag")
				doc, hit, err := caches[tag].Get(t.Context(), id)
				if err != nil {
					r.Fatalf("get: %v", err)
				}
				if hit && doc.Version < floor {
					r.Fatalf("get: got version %d after an invalidation of %d", doc.Version, floor)
				}
				if want := held.present && held.tag == tag; hit != want || hit && doc.Version != held.version {
					r.Fatalf("get: got hit %t version %d, want %t %d", hit, doc.Version, want, held.version)
				}
			},
		})
	})
}

// concurrentReadsAreNotStale runs writers, filling readers and checking readers of one product concurrently. database is the
// product's version; a writer raises it and then calls Invalidate, as the service does after a commit. invalidated is the
// highest version passed to Invalidate.
func (s *suite) concurrentReadsAreNotStale(t *testing.T) {
	const workers, rounds = 4, 250
	c := s.productCache(t)
	var database, invalidated atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for range rounds {
				version := database.Add(1)
				if err := c.cache.Invalidate(t.Context(), c.id, version); err != nil {
					t.Errorf("invalidate %d: %v", version, err)
					return
				}
				raise(&invalidated, version)
			}
		})
		group.Go(func() {
			for range rounds {
				readStart, version := time.Now(), database.Load()
				if _, err := c.cache.Fill(t.Context(), c.id, document(c.id, version), readStart); err != nil {
					t.Errorf("fill %d: %v", version, err)
					return
				}
			}
		})
		group.Go(func() { s.watch(t, c, &invalidated, rounds) })
	}
	group.Wait()
	c.fill(database.Load(), catalog.Filled)
	c.want(database.Load())
}

// watch looks the product up, and fails on a version below the highest one invalidated before the lookup.
func (s *suite) watch(t *testing.T, c productCache, invalidated *atomic.Int64, rounds int) {
	for range rounds {
		floor := invalidated.Load()
		doc, hit, err := c.cache.Get(t.Context(), c.id)
		if err != nil {
			t.Errorf("get: %v", err)
			return
		}
		if hit && doc.Version < floor {
			t.Errorf("got version %d, after an invalidation of %d", doc.Version, floor)
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
