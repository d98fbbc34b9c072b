package slots_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vitrine.io/pkg/foundation/slots"
)

func TestSlots(t *testing.T) {
	t.Parallel()
	t.Run("limit_holds_for_each_key", testLimitOfKeys)
	t.Run("waiters_get_their_turn_in_order", testTurns)
	t.Run("wait_ends_with_context", testWaitEnds)
	t.Run("no_slot_is_lost_when_waits_end", testNoSlotIsLost)
}

func testLimitOfKeys(t *testing.T) {
	t.Parallel()
	s, ended := slots.New[string](), ended(t)
	first, ok := s.Acquire(ended, "a", 1)
	if !ok {
		t.Fatal("a free slot was not acquired")
	}
	if _, ok := s.TryAcquire("a", 1); ok || s.Users("a") != 1 {
		t.Errorf("a key with one slot has %d users, want one", s.Users("a"))
	}
	if second, ok := s.TryAcquire("a", 2); !ok || s.Users("a") != 2 {
		t.Errorf("a key with two slots has %d users, want two", s.Users("a"))
	} else {
		second()
	}
	if _, ok := s.Acquire(ended, "a", 1); ok {
		t.Error("two users of a key with one slot")
	}
	other, ok := s.Acquire(ended, "b", 1)
	if !ok {
		t.Error("another key was not free")
	}
	first()
	first() // has no effect
	if again, ok := s.Acquire(ended, "a", 1); !ok {
		t.Error("a released slot was not acquired")
	} else {
		again()
	}
	other()
	if n := s.Keys(); n != 0 {
		t.Errorf("%d keys are left, want none", n)
	}
}

func testTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := slots.New[int]()
		release, _ := s.Acquire(t.Context(), 1, 1)
		var order []int
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() {
				mine, ok := s.Acquire(t.Context(), 1, 1)
				if !ok {
					t.Error("a waiter got no slot")
					return
				}
				order = append(order, i)
				mine()
			})
			synctest.Wait()
		}
		if _, ok := s.TryAcquire(1, 2); ok {
			t.Error("acquired a slot before those that wait")
		}
		release()
		all.Wait()
		if len(order) != 3 || order[0] != 0 || order[1] != 1 || order[2] != 2 {
			t.Errorf("got %v, want the order of arrival", order)
		}
	})
}

func testWaitEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := slots.New[int]()
		release, _ := s.Acquire(t.Context(), 1, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, ok := s.Acquire(ctx, 1, 1); ok {
			t.Error("acquired a slot that is in use")
		}
		release()
		if n := s.Keys(); n != 0 {
			t.Errorf("%d keys are left, want none", n)
		}
	})
}

func testNoSlotIsLost(t *testing.T) {
	t.Parallel()
	s := slots.New[int]()
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if release, ok := s.Acquire(ctx, 1, 3); ok {
				release()
			}
		})
	}
	all.Wait()
	if n := s.Keys(); n != 0 {
		t.Errorf("%d keys are left, want none", n)
	}
}

// ended returns a context that has ended.
func ended(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
