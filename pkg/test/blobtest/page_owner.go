package blobtest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"vitrine.io/pkg/domain/maintenance"
)

// errorOf3 returns the error of a call with three results.
func errorOf3[A, B any](_ A, _ B, err error) error { return err }

// errorOf2 returns the error of a call with two results.
func errorOf2[A any](_ A, err error) error { return err }

// pageContinues reads a bucket in pages whose sizes differ from those of the store.
func (s suite) pageContinues(t *testing.T) {
	b, _ := s.create(t)
	before := time.Now().Add(-time.Minute) // the store's clock may differ a little
	want := fillMany(t, b, "l/", 1050)     // more than the store's page of 1,000
	put(t, b, "k", "text/plain", []byte("x"))
	put(t, b, "m", "text/plain", []byte("x"))
	for _, limit := range []int{1, 7, 1000, 1050, 2000} {
		var got []string
		for after, more := "", true; more && len(got) < 1100; {
			var page []maintenance.Object
			var err error
			if page, more, err = b.Page(t.Context(), "l/", after, limit); err != nil {
				t.Fatal(err)
			}
			if len(page) > limit || more && len(page) < limit {
				t.Fatalf("limit %d: got %d objects, more: %v", limit, len(page), more)
			}
			for _, o := range page {
				if o.Size != 1 || o.Modified.Before(before) || o.Modified.After(time.Now().Add(time.Minute)) {
					t.Fatalf("got %+v, want one byte, modified now", o)
				}
				got = append(got, o.Key)
			}
			if after = got[len(got)-1]; limit == 1 && len(got) == 20 {
				break // 20 pages of one object are enough
			}
		}
		if limit == 1 && !slices.Equal(got, want[:20]) || limit > 1 && !slices.Equal(got, want) {
			t.Errorf("limit %d: got %d keys, from %q to %q, want all of l/", limit, len(got), got[0], got[len(got)-1])
		}
	}
	if page, more, err := b.Page(t.Context(), "l/", want[len(want)-1], 10); len(page) != 0 || more || err != nil {
		t.Errorf("after the last: got %v, %v, %v", page, more, err)
	}
}

func (s suite) firstClaimOwns(t *testing.T) {
	b, _ := s.create(t)
	if got, err := b.Owner(t.Context()); got != "" || err != nil {
		t.Errorf("a new bucket: got %q, %v", got, err)
	}
	for _, claimant := range []string{"first", "first", "second"} {
		if got, err := b.Claim(t.Context(), claimant); got != "first" || err != nil {
			t.Errorf("claimed by %s: got %q, %v, want first", claimant, got, err)
		}
	}
	if got, err := b.Owner(t.Context()); got != "first" || err != nil {
		t.Errorf("got %q, %v, want first", got, err)
	}
}

func (s suite) concurrentClaims(t *testing.T) {
	b, _ := s.create(t)
	owners := make([]string, 8)
	var group sync.WaitGroup
	for i := range owners {
		group.Go(func() {
			var err error
			if owners[i], err = b.Claim(t.Context(), fmt.Sprint("installation-", i)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if owners = slices.Compact(owners); len(owners) != 1 || owners[0] == "" {
		t.Errorf("got owners %q, want one for all claims", owners)
	}
}
