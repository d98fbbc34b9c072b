package keyedmutex_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"vitrine.io/pkg/foundation/keyedmutex"
)

func TestLock(t *testing.T) {
	t.Parallel()
	t.Run("one_holder_per_key", testOneHolder)
	t.Run("stop_ends_the_wait", testStop)
	t.Run("full_key_does_not_wait", testFull)
}

func testOneHolder(t *testing.T) {
	t.Parallel()
	m := keyedmutex.New[string]()
	var holders, maxHolders atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			unlock, _ := m.Lock("a", keyedmutex.Wait{})
			maxHolders.Store(max(maxHolders.Load(), holders.Add(1)))
			holders.Add(-1)
			unlock()
		})
	}
	wg.Wait()
	if maxHolders.Load() != 1 || m.Users("a") != 0 {
		t.Errorf("holders at the same time: got %d, want 1; users left: %d, want 0", maxHolders.Load(), m.Users("a"))
	}
}

func testStop(t *testing.T) {
	t.Parallel()
	m := keyedmutex.New[int]()
	stop := make(chan struct{})
	close(stop)
	unlock, _ := m.Lock(1, keyedmutex.Wait{})
	waits := 0
	if got, full := m.Lock(1, keyedmutex.Wait{Stop: stop, Before: func() { waits++ }}); got != nil || full || waits != 1 {
		t.Errorf("a held key: got locked %t, full %t, %d waits, want an ended wait", got != nil, full, waits)
	}
	other, _ := m.Lock(2, keyedmutex.Wait{})
	other()
	unlock()
	if m.Users(1) != 0 {
		t.Errorf("users left after an ended wait: got %d, want 0", m.Users(1))
	}
}

func testFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := keyedmutex.New[int]()
		unlock, _ := m.Lock(1, keyedmutex.Wait{MaxUsers: 2})
		locked := make(chan func(), 1)
		go func() {
			waiter, _ := m.Lock(1, keyedmutex.Wait{MaxUsers: 2})
			locked <- waiter
		}()
		synctest.Wait()
		if got, full := m.Lock(1, keyedmutex.Wait{MaxUsers: 2}); got != nil || !full {
			t.Errorf("a third user: got locked %t, full %t, want full", got != nil, full)
		}
		unlock()
		(<-locked)()
		if unlock, full := m.Lock(1, keyedmutex.Wait{MaxUsers: 2}); unlock == nil || full {
			t.Error("a key without users was not locked")
		}
	})
}
