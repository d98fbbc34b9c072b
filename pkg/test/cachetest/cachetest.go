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

// Open returns a cache under a tag, and closes it when t ends. The caches that one Run opens share what they store; nothing
// else stores there.
type Open func(t testing.TB, tag string) catalog.Cache

// Run runs the suite.
func Run(t *testing.T, open Open) {
	s := &suite{open: open}
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"get_unfilled_is_a_miss", s.nothingFilled},
		{"fill_is_read_back", s.readBack},
		{"fill_missing_product_is_read_back", s.missingReadBack},
		{"get_document_never_changes_later", s.documentStaysWhole},
		{"products_are_independent", s.productsApart},
		{"fill_older_than_tombstone_is_rejected", s.slowFill},
		{"fill_older_version_is_rejected", s.olderFill},
		{"fill_same_version_is_accepted", s.sameFill},
		{"fill_version_of_tombstone_is_accepted", s.tombstoneGivesWay},
		{"forget_older_version_changes_nothing", s.olderForget},
		{"forget_same_version_is_kept", s.forgetLeavesCurrent},
		{"fill_new_product_replaces_missing", s.createAfterMissing},
		{"fill_deleted_product_stays_deleted", s.deleted},
		{"fill_slow_read_is_rejected", s.tooSlow},
		{"versions_compare_as_integers", s.wholeNumbers},
		{"get_other_tag_is_a_miss", s.otherTag},
		{"forget_reaches_every_tag", s.forgetEveryTag},
		{"ended_context_is_an_error", s.endedContext},
		{"random_interleavings_match_model", s.model},
		{"concurrent_reads_are_not_older_than_a_forget", s.race},
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

// shelf is a cache seen by a test: errors end the test.
type shelf struct {
	t     testing.TB
	cache catalog.Cache
	id    catalog.ProductID
}

func (s *suite) shelf(t *testing.T) shelf {
	t.Helper()
	return shelf{t: t, cache: s.open(t, tagA), id: s.product()}
}

// document returns what the API would answer for a product at a version.
func document(id catalog.ProductID, version int64) catalog.Document {
	return catalog.Document{
		Version: version,
		ETag:    fmt.Sprintf(`"%d-x"`, version),
		Body:    fmt.Appendf(nil, `{"id":%d,"version":%d}`, id, version),
	}
}

func (s shelf) fill(version int64, want catalog.FillOutcome) {
	s.t.Helper()
	s.fillDoc(document(s.id, version), want)
}

func (s shelf) fillDoc(doc catalog.Document, want catalog.FillOutcome) {
	s.t.Helper()
	got, err := s.cache.Fill(s.t.Context(), s.id, doc, time.Now())
	if err != nil {
		s.t.Fatalf("fill version %d: %v", doc.Version, err)
	}
	if got != want {
		s.t.Fatalf("fill version %d: got outcome %d, want %d", doc.Version, got, want)
	}
}

func (s shelf) forget(version int64) {
	s.t.Helper()
	if err := s.cache.Invalidate(s.t.Context(), s.id, version); err != nil {
		s.t.Fatalf("forget version %d: %v", version, err)
	}
}

// wantDoc wants a hit with exactly this document.
func (s shelf) wantDoc(want catalog.Document) {
	s.t.Helper()
	got, hit, err := s.cache.Get(s.t.Context(), s.id)
	if err != nil {
		s.t.Fatalf("get: %v", err)
	}
	if !hit {
		s.t.Fatalf("get: got a miss, want version %d", want.Version)
	}
	if got.Version != want.Version || got.Missing != want.Missing || got.ETag != want.ETag ||
		!bytes.Equal(got.Body, want.Body) {
		s.t.Fatalf("get: got version %d missing %t etag %s body %.60q, want %d %t %s %.60q", got.Version, got.Missing,
			got.ETag, got.Body, want.Version, want.Missing, want.ETag, want.Body)
	}
}

// want wants a hit of a version.
func (s shelf) want(version int64) {
	s.t.Helper()
	s.wantDoc(document(s.id, version))
}

func (s shelf) wantMiss() {
	s.t.Helper()
	doc, hit, err := s.cache.Get(s.t.Context(), s.id)
	if err != nil {
		s.t.Fatalf("get: %v", err)
	}
	if hit {
		s.t.Fatalf("get: got a hit of version %d, want a miss", doc.Version)
	}
}

func (s *suite) nothingFilled(t *testing.T) {
	s.shelf(t).wantMiss()
}

func (s *suite) readBack(t *testing.T) {
	at := s.shelf(t)
	at.fill(1, catalog.Filled)
	at.want(1)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for version, body := range [][]byte{{}, []byte("\x00"), every, bytes.Repeat(every, 4096)} {
		doc := catalog.Document{Version: int64(version) + 2, ETag: `"é\"` + "\x00" + `"`, Body: body}
		at.fillDoc(doc, catalog.Filled)
		at.wantDoc(doc)
	}
	long := catalog.Document{Version: 9, ETag: strings.Repeat("e", 255), Body: []byte("x")}
	at.fillDoc(long, catalog.Filled)
	at.wantDoc(long)
}

func (s *suite) missingReadBack(t *testing.T) {
	for _, version := range []int64{0, 7} {
		at := s.shelf(t)
		at.fillDoc(catalog.Document{Version: version, Missing: true}, catalog.Filled)
		at.wantDoc(catalog.Document{Version: version, Missing: true})
	}
}

func (s *suite) documentStaysWhole(t *testing.T) {
	at := s.shelf(t)
	at.fill(1, catalog.Filled)
	first, _, err := at.cache.Get(t.Context(), at.id)
	if err != nil {
		t.Fatal(err)
	}
	for version := int64(2); version < 50; version++ {
		at.fill(version, catalog.Filled)
		at.want(version)
	}
	if got, want := string(first.Body)+first.ETag, string(document(at.id, 1).Body)+document(at.id, 1).ETag; got != want {
		t.Fatalf("the first document changed after it was read: got %q, want %q", got, want)
	}
}

func (s *suite) productsApart(t *testing.T) {
	one := s.shelf(t)
	others := make([]shelf, 0, 40)
	for range cap(others) {
		others = append(others, shelf{t: t, cache: one.cache, id: s.product()})
	}
	for i, other := range others {
		other.fill(int64(i)+1, catalog.Filled)
	}
	one.forget(1000)
	for i, other := range others {
		other.want(int64(i) + 1)
	}
	one.wantMiss()
}

func (s *suite) slowFill(t *testing.T) {
	at := s.shelf(t)
	began := time.Now() // the slow reader has read version 1
	at.forget(2)
	got, err := at.cache.Fill(t.Context(), at.id, document(at.id, 1), began)
	if err != nil || got != catalog.Stale {
		t.Fatalf("got outcome %d, %v, want Outdated: version 2 was announced before this arrived", got, err)
	}
	at.wantMiss()
	at.fillDoc(catalog.Document{Version: 1, Missing: true}, catalog.Stale)
	at.fillDoc(catalog.Document{Version: 0, Missing: true}, catalog.Stale)
	at.wantMiss()
}

func (s *suite) olderFill(t *testing.T) {
	at := s.shelf(t)
	at.fill(3, catalog.Filled)
	at.fill(2, catalog.Stale)
	at.want(3)
	at.fill(4, catalog.Filled)
	at.want(4)
}

func (s *suite) sameFill(t *testing.T) {
	at := s.shelf(t)
	at.fill(3, catalog.Filled)
	at.fill(3, catalog.Filled)
	at.want(3)
}

func (s *suite) tombstoneGivesWay(t *testing.T) {
	at := s.shelf(t)
	at.fill(1, catalog.Filled)
	at.forget(2)
	at.wantMiss()
	at.fill(2, catalog.Filled)
	at.want(2)
	at.forget(3)
	at.fill(4, catalog.Filled)
	at.want(4)
}

func (s *suite) olderForget(t *testing.T) {
	at := s.shelf(t)
	at.forget(5)
	at.forget(3)
	at.fill(4, catalog.Stale)
	at.forget(5)
	at.forget(6)
	at.fill(5, catalog.Stale)
	at.fill(6, catalog.Filled)
	at.want(6)
}

func (s *suite) forgetLeavesCurrent(t *testing.T) {
	at := s.shelf(t)
	at.fill(5, catalog.Filled)
	at.forget(4)
	at.want(5)
	at.forget(5) // the event of version 5 arrives after a reader has filled version 5
	at.want(5)
	at.forget(6)
	at.wantMiss()
}

func (s *suite) createAfterMissing(t *testing.T) {
	never := catalog.Document{Version: 0, Missing: true}
	announced := s.shelf(t)
	announced.fillDoc(never, catalog.Filled)
	announced.forget(1)
	announced.wantMiss()
	announced.fillDoc(never, catalog.Stale)
	announced.fill(1, catalog.Filled)
	announced.want(1)

	unannounced := s.shelf(t)
	unannounced.fillDoc(never, catalog.Filled)
	unannounced.fill(1, catalog.Filled)
	unannounced.want(1)
	unannounced.fillDoc(never, catalog.Stale)
	unannounced.want(1)
}

func (s *suite) deleted(t *testing.T) {
	gone := catalog.Document{Version: 4, Missing: true}
	at := s.shelf(t)
	at.fill(3, catalog.Filled)
	at.forget(4)
	at.fillDoc(gone, catalog.Filled)
	at.fill(3, catalog.Stale)
	at.forget(4)
	at.wantDoc(gone)
}

func (s *suite) tooSlow(t *testing.T) {
	at := s.shelf(t)
	got, err := at.cache.Fill(t.Context(), at.id, document(at.id, 1), time.Now().Add(-time.Hour))
	if err != nil || got != catalog.TooSlow {
		t.Fatalf("got outcome %d, %v, want TooSlow: a tombstone could have come and gone since", got, err)
	}
	at.wantMiss()
}

func (s *suite) wholeNumbers(t *testing.T) {
	at := s.shelf(t)
	const double = 1 << 53 // from here on, a double cannot tell a number from the next
	for _, version := range []int64{9, 10, 99, 100, 1 << 32, double, double + 1, double + 2, 1<<63 - 2, 1<<63 - 1} {
		at.fill(version, catalog.Filled)
		at.fill(version-1, catalog.Stale)
		at.forget(version - 1)
		at.want(version)
		if version < 1<<63-2 {
			at.forget(version + 1)
			at.fill(version, catalog.Stale)
			at.wantMiss()
		}
	}
}

func (s *suite) otherTag(t *testing.T) {
	a := s.shelf(t)
	b := shelf{t: t, cache: s.open(t, tagB), id: a.id}
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

func (s *suite) forgetEveryTag(t *testing.T) {
	a := s.shelf(t)
	b := shelf{t: t, cache: s.open(t, tagB), id: a.id}
	a.fill(1, catalog.Filled)
	b.forget(2)
	a.wantMiss()
	a.fill(1, catalog.Stale)
	b.fill(1, catalog.Stale)
	a.fill(2, catalog.Filled)
	a.want(2)
}

func (s *suite) endedContext(t *testing.T) {
	at := s.shelf(t)
	at.fill(1, catalog.Filled)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, hit, err := at.cache.Get(ended, at.id); err == nil || hit {
		t.Errorf("get: got hit %t and error %v, want an error", hit, err)
	}
	if _, err := at.cache.Fill(ended, at.id, document(at.id, 2), time.Now()); err == nil {
		t.Error("fill: got no error")
	}
	if err := at.cache.Invalidate(ended, at.id, 3); err == nil {
		t.Error("forget: got no error")
	}
}
