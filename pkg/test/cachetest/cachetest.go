package cachetest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vitrine.io/pkg/domain/catalog"
)

// Open returns a cache under a tag, and closes it when t ends. The caches that one Run opens share one store, which nothing
// else uses.
type Open func(t testing.TB, tag string) catalog.Cache

// Run runs the suite.
func Run(t *testing.T, open Open) {
	s := &suite{open: open}
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"get_unfilled_is_a_miss", s.unfilledIsAMiss},
		{"fill_is_read_back", s.filledDocumentIsReadBack},
		{"fill_missing_product_is_read_back", s.missingProductIsReadBack},
		{"get_document_never_changes_later", s.documentNeverChangesLater},
		{"products_are_independent", s.productsAreIndependent},
		{"fill_older_than_tombstone_is_rejected", s.fillOlderThanTombstoneIsRejected},
		{"fill_older_version_is_rejected", s.fillOfOlderVersionIsRejected},
		{"fill_same_version_is_accepted", s.fillOfSameVersionIsAccepted},
		{"fill_version_of_tombstone_is_accepted", s.fillOfTombstoneVersionIsAccepted},
		{"invalidate_older_version_changes_nothing", s.invalidateOlderVersionChangesNothing},
		{"invalidate_same_version_is_kept", s.invalidateSameVersionKeepsIt},
		{"fill_new_product_replaces_missing", s.newProductReplacesMissing},
		{"fill_deleted_product_stays_deleted", s.deletedProductStaysDeleted},
		{"fill_slow_read_is_rejected", s.slowReadIsRejected},
		{"versions_compare_as_integers", s.versionsCompareAsIntegers},
		{"get_other_tag_is_a_miss", s.otherTagIsAMiss},
		{"invalidate_reaches_every_tag", s.invalidateReachesEveryTag},
		{"ended_context_is_an_error", s.endedContextIsAnError},
		{"random_interleavings_match_model", s.interleavingsMatchModel},
		{"concurrent_reads_are_not_older_than_an_invalidation", s.concurrentReadsAreNotStale},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t)
		})
	}
}

type suite struct {
	open Open
	ids  atomic.Int64
}

// product returns an id that no other test of this run has.
func (s *suite) product() catalog.ProductID { return catalog.ProductID(1000 + s.ids.Add(1)) }

// The tags of two releases.
const (
	tagA = "v1-a"
	tagB = "v2-b"
)

// productCache is a cache and one product. Its methods end the test if the cache returns an error or another result.
type productCache struct {
	t     testing.TB
	cache catalog.Cache
	id    catalog.ProductID
}

func (s *suite) productCache(t *testing.T) productCache {
	t.Helper()
	return productCache{t: t, cache: s.open(t, tagA), id: s.product()}
}

// document returns the document of a product at a version.
func document(id catalog.ProductID, version int64) catalog.Document {
	return catalog.Document{
		Version: version,
		ETag:    fmt.Sprintf(`"%d-x"`, version),
		Body:    fmt.Appendf(nil, `{"id":%d,"version":%d}`, id, version),
	}
}

func (c productCache) fill(version int64, want catalog.FillResult) {
	c.t.Helper()
	c.fillDoc(document(c.id, version), want)
}

func (c productCache) fillDoc(doc catalog.Document, want catalog.FillResult) {
	c.t.Helper()
	got, err := c.cache.Fill(c.t.Context(), c.id, doc, time.Now())
	if err != nil {
		c.t.Fatalf("fill version %d: %v", doc.Version, err)
	}
	if got != want {
		c.t.Fatalf("fill version %d: got outcome %d, want %d", doc.Version, got, want)
	}
}

func (c productCache) invalidate(version int64) {
	c.t.Helper()
	if err := c.cache.Invalidate(c.t.Context(), c.id, version); err != nil {
		c.t.Fatalf("invalidate version %d: %v", version, err)
	}
}

// wantDoc fails unless the lookup is a hit with this document.
func (c productCache) wantDoc(want catalog.Document) {
	c.t.Helper()
	got, hit, err := c.cache.Get(c.t.Context(), c.id)
	if err != nil {
		c.t.Fatalf("get: %v", err)
	}
	if !hit {
		c.t.Fatalf("get: got a miss, want version %d", want.Version)
	}
	if got.Version != want.Version || got.Missing != want.Missing || got.ETag != want.ETag ||
		!bytes.Equal(got.Body, want.Body) {
		c.t.Fatalf("get: got version %d missing %t etag %s body %.60q, want %d %t %s %.60q", got.Version, got.Missing,
			got.ETag, got.Body, want.Version, want.Missing, want.ETag, want.Body)
	}
}

// want fails unless the lookup is a hit with document(c.id, version).
func (c productCache) want(version int64) {
	c.t.Helper()
	c.wantDoc(document(c.id, version))
}

func (c productCache) wantMiss() {
	c.t.Helper()
	doc, hit, err := c.cache.Get(c.t.Context(), c.id)
	if err != nil {
		c.t.Fatalf("get: %v", err)
	}
	if hit {
		c.t.Fatalf("get: got a hit of version %d, want a miss", doc.Version)
	}
}

func (s *suite) unfilledIsAMiss(t *testing.T) {
	s.productCache(t).wantMiss()
}

func (s *suite) filledDocumentIsReadBack(t *testing.T) {
	c := s.productCache(t)
	c.fill(1, catalog.Filled)
	c.want(1)
	allBytes := make([]byte, 256)
	for i := range allBytes {
		allBytes[i] = byte(i)
	}
	for version, body := range [][]byte{{}, []byte("\x00"), allBytes, bytes.Repeat(allBytes, 4096)} {
		doc := catalog.Document{Version: int64(version) + 2, ETag: `"é\"` + "\x00" + `"`, Body: body}
		c.fillDoc(doc, catalog.Filled)
		c.wantDoc(doc)
	}
	long := catalog.Document{Version: 9, ETag: strings.Repeat("e", 255), Body: []byte("x")}
	c.fillDoc(long, catalog.Filled)
	c.wantDoc(long)
}

func (s *suite) missingProductIsReadBack(t *testing.T) {
	for _, version := range []int64{0, 7} {
		c := s.productCache(t)
		c.fillDoc(catalog.Document{Version: version, Missing: true}, catalog.Filled)
		c.wantDoc(catalog.Document{Version: version, Missing: true})
	}
}

func (s *suite) documentNeverChangesLater(t *testing.T) {
	c := s.productCache(t)
	c.fill(1, catalog.Filled)
	first, _, err := c.cache.Get(t.Context(), c.id)
	if err != nil {
		t.Fatal(err)
	}
	for version := int64(2); version < 50; version++ {
		c.fill(version, catalog.Filled)
		c.want(version)
	}
	if got, want := string(first.Body)+first.ETag, string(document(c.id, 1).Body)+document(c.id, 1).ETag; got != want {
		t.Fatalf("the first document changed after it was read: got %q, want %q", got, want)
	}
}

func (s *suite) productsAreIndependent(t *testing.T) {
	one := s.productCache(t)
	others := make([]productCache, 0, 40)
	for range cap(others) {
		others = append(others, productCache{t: t, cache: one.cache, id: s.product()})
	}
	for i, other := range others {
		other.fill(int64(i)+1, catalog.Filled)
	}
	one.invalidate(1000)
	for i, other := range others {
		other.want(int64(i) + 1)
	}
	one.wantMiss()
}

func (s *suite) fillOlderThanTombstoneIsRejected(t *testing.T) {
	c := s.productCache(t)
	readStart := time.Now() // the slow reader has read version 1
	c.invalidate(2)
	got, err := c.cache.Fill(t.Context(), c.id, document(c.id, 1), readStart)
	if err != nil || got != catalog.Stale {
		t.Fatalf("got outcome %d, %v, want Stale: version 2 was announced before", got, err)
	}
	c.wantMiss()
	c.fillDoc(catalog.Document{Version: 1, Missing: true}, catalog.Stale)
	c.fillDoc(catalog.Document{Version: 0, Missing: true}, catalog.Stale)
	c.wantMiss()
}

func (s *suite) fillOfOlderVersionIsRejected(t *testing.T) {
	c := s.productCache(t)
	c.fill(3, catalog.Filled)
	c.fill(2, catalog.Stale)
	c.want(3)
	c.fill(4, catalog.Filled)
	c.want(4)
}

func (s *suite) fillOfSameVersionIsAccepted(t *testing.T) {
	c := s.productCache(t)
	c.fill(3, catalog.Filled)
	c.fill(3, catalog.Filled)
	c.want(3)
}

func (s *suite) fillOfTombstoneVersionIsAccepted(t *testing.T) {
	c := s.productCache(t)
	c.fill(1, catalog.Filled)
	c.invalidate(2)
	c.wantMiss()
	c.fill(2, catalog.Filled)
	c.want(2)
	c.invalidate(3)
	c.fill(4, catalog.Filled)
	c.want(4)
}

func (s *suite) invalidateOlderVersionChangesNothing(t *testing.T) {
	c := s.productCache(t)
	c.invalidate(5)
	c.invalidate(3)
	c.fill(4, catalog.Stale)
	c.invalidate(5)
	c.invalidate(6)
	c.fill(5, catalog.Stale)
	c.fill(6, catalog.Filled)
	c.want(6)
}

func (s *suite) invalidateSameVersionKeepsIt(t *testing.T) {
	c := s.productCache(t)
	c.fill(5, catalog.Filled)
	c.invalidate(4)
	c.want(5)
	c.invalidate(5) // the event of version 5 arrives after a reader has filled version 5
	c.want(5)
	c.invalidate(6)
	c.wantMiss()
}

func (s *suite) newProductReplacesMissing(t *testing.T) {
	missing := catalog.Document{Version: 0, Missing: true}
	announced := s.productCache(t)
	announced.fillDoc(missing, catalog.Filled)
	announced.invalidate(1)
	announced.wantMiss()
	announced.fillDoc(missing, catalog.Stale)
	announced.fill(1, catalog.Filled)
	announced.want(1)

	unannounced := s.productCache(t)
	unannounced.fillDoc(missing, catalog.Filled)
	unannounced.fill(1, catalog.Filled)
	unannounced.want(1)
	unannounced.fillDoc(missing, catalog.Stale)
	unannounced.want(1)
}

func (s *suite) deletedProductStaysDeleted(t *testing.T) {
	gone := catalog.Document{Version: 4, Missing: true}
	c := s.productCache(t)
	c.fill(3, catalog.Filled)
	c.invalidate(4)
	c.fillDoc(gone, catalog.Filled)
	c.fill(3, catalog.Stale)
	c.invalidate(4)
	c.wantDoc(gone)
}

func (s *suite) slowReadIsRejected(t *testing.T) {
	c := s.productCache(t)
	got, err := c.cache.Fill(t.Context(), c.id, document(c.id, 1), time.Now().Add(-time.Hour))
	if err != nil || got != catalog.TooSlow {
		t.Fatalf("got outcome %d, %v, want TooSlow: a tombstone may have expired since", got, err)
	}
	c.wantMiss()
}

func (s *suite) versionsCompareAsIntegers(t *testing.T) {
	c := s.productCache(t)
	const double = 1 << 53 // above it, a double cannot represent every integer
	for _, version := range []int64{9, 10, 99, 100, 1 << 32, double, double + 1, double + 2, 1<<63 - 2, 1<<63 - 1} {
		c.fill(version, catalog.Filled)
		c.fill(version-1, catalog.Stale)
		c.invalidate(version - 1)
		c.want(version)
		if version < 1<<63-2 {
			c.invalidate(version + 1)
			c.fill(version, catalog.Stale)
			c.wantMiss()
		}
	}
}

func (s *suite) otherTagIsAMiss(t *testing.T) {
	a := s.productCache(t)
	b := productCache{t: t, cache: s.open(t, tagB), id: a.id}
	a.fill(2, catalog.Filled)
	b.wantMiss()
	b.fill(1, catalog.Stale)
	a.want(2)
	b.fill(2, catalog.Filled)
	b.want(2)
	a.wantMiss()
	a.fill(3, catalog.Filled)
	b.wantMiss()
	a.want(3)
}

func (s *suite) invalidateReachesEveryTag(t *testing.T) {
	a := s.productCache(t)
	b := productCache{t: t, cache: s.open(t, tagB), id: a.id}
	a.fill(1, catalog.Filled)
	b.invalidate(2)
	a.wantMiss()
	a.fill(1, catalog.Stale)
	b.fill(1, catalog.Stale)
	a.fill(2, catalog.Filled)
	a.want(2)
}

func (s *suite) endedContextIsAnError(t *testing.T) {
	c := s.productCache(t)
	c.fill(1, catalog.Filled)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, hit, err := c.cache.Get(ended, c.id); err == nil || hit {
		t.Errorf("get: got hit %t and error %v, want an error", hit, err)
	}
	if _, err := c.cache.Fill(ended, c.id, document(c.id, 2), time.Now()); err == nil {
		t.Error("fill: got no error")
	}
	if err := c.cache.Invalidate(ended, c.id, 3); err == nil {
		t.Error("invalidate: got no error")
	}
}
