package slots_test

import (
	"sync"
	"testing"
	"testing/synctest"

	"vitrine.io/pkg/foundation/slots"
)

func TestShared(t *testing.T) {
	t.Parallel()
	t.Run("free_slot_goes_to_preferred_users", testSharedPreferred)
	t.Run("others_use_no_more_than_their_limit", testSharedLimit)
	t.Run("no_slot_is_lost_when_waits_end", testSharedWaitsEnd)
}

func testSharedPreferred(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := slots.NewShared(1, 1)
		s.Others().Acquire(nil)
		var order []string
		var all sync.WaitGroup
		wait := func(name string, p *slots.Part) {
			all.Go(func() {
				p.Acquire(nil)
				order = append(order, name)
				p.Release()
			})
			synctest.Wait()
		}
		wait("other", s.Others())
		wait("first", s.Preferred())
		wait("second", s.Preferred())
		s.Others().Release()
		all.Wait()
		if len(order) != 3 || order[0] != "first" || order[1] != "second" {
			t.Errorf("got %v, want the preferred users first", order)
		}
	})
}

func testSharedLimit(t *testing.T) {
	t.Parallel()
	s := slots.NewShared(4, 2)
	stopped := make(chan struct{})
	close(stopped)
	acquire := func(p *slots.Part, tries int) (got int) {
		for range tries {
			if p.Acquire(stopped) { // with a free slot it may return either
				got++
			}
		}
		return got
	}
	if got := acquire(s.Others(), 100); got != 2 {
		t.Errorf("others got %d slots, want 2", got)
	}
	if got := acquire(s.Preferred(), 100); got != 2 {
		t.Errorf("preferred users got %d slots, want the 2 that are left", got)
	}
	s.Others().Release()
	if got := acquire(s.Preferred(), 100); got != 1 {
		t.Errorf("preferred users got %d slots of the one that others have released", got)
	}
}

func testSharedWaitsEnd(t *testing.T) {
	t.Parallel()
	s := slots.NewShared(2, 1)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			p := s.Preferred()
			if i%2 == 0 {
				p = s.Others()
			}
			stop := make(chan struct{})
			if i%3 == 0 {
				close(stop)
			}
			if p.Acquire(stop) {
				p.Release()
			}
		})
	}
	all.Wait()
	s.Others().Acquire(nil)
	s.Preferred().Acquire(nil)
}
