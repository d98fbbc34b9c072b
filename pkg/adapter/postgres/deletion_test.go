package postgres_test

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/test/storetest"
)

func TestScheduledDeletions(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "canceled_deletion_never_starts", run: canceledNeverStarts},
		{name: "started_deletion_cannot_be_canceled", run: startedNotCanceled},
		{name: "only_due_ones_start_oldest_first", run: startOrder},
		{name: "row_being_canceled_is_skipped", run: startDuringCancel},
		{name: "second_pass_comes_back_until_removed", run: secondPass},
		{name: "concurrent_second_passes_share_nothing", run: secondPassTogether},
		{name: "removal_skips_locked_rows", run: removeLocked},
		{name: "later_of_two_times_counts", run: laterCounts},
		{name: "deletion_not_started_cannot_be_removed", run: removeNotStarted},
		{name: "concurrent_cancel_and_start_one_wins", run: cancelOrStart},
		{name: "concurrent_starts_share_nothing", run: startTogether},
	})
}

func canceledNeverStarts(f *fixture) {
	p := f.Product(1)
	f.ScheduleDeletion(p.ID, "products/1/1/1-a/", 0)
	f.Must(f.CancelDeletions(p.ID, "products/1/1/1-a/"), "cancel")
	f.Same(f.startDue(10, 0), []string{}, "started")
	f.WantError(f.CancelDeletions(p.ID, "products/1/1/1-a/"), catalog.ErrDeletionStarted, "cancel a second time")
	if got := f.Load(p.ID).Version; got != 2 {
		f.Errorf("got version %d, want 2", got)
	}
}

func startedNotCanceled(f *fixture) {
	p := f.Product(1)
	f.ScheduleDeletion(p.ID, "products/1/1/1-a/", 0)
	f.Same(f.startDue(10, time.Hour), []string{"products/1/1/1-a/"}, "started")
	f.WantError(f.CancelDeletions(p.ID, "products/1/1/1-a/"), catalog.ErrDeletionStarted, "cancel")
	f.ScheduleDeletion(p.ID, "products/1/1/1-a/", 0) // scheduling it a second time does not stop it
	f.WantError(f.CancelDeletions(p.ID, "products/1/1/1-a/"), catalog.ErrDeletionStarted, "cancel a second time")
	f.Same(f.Load(p.ID), p, "the product")
}

func startOrder(f *fixture) {
	p := f.Product(1)
	f.ScheduleDeletion(p.ID, "c/", -time.Minute)
	f.ScheduleDeletion(p.ID, "a/", -time.Hour)
	f.ScheduleDeletion(p.ID, "later/", time.Hour)
	f.ScheduleDeletion(p.ID, "b/", -2*time.Minute)
	first := f.startDue(2, time.Hour)
	if len(first) != 2 || first[0]+first[1] != "a/b/" && first[0]+first[1] != "b/a/" {
		f.Errorf("got %v, want a/ and b/", first)
	}
	f.Same(f.startDue(2, time.Hour), []string{"c/"}, "the rest")
	f.Same(f.startDue(2, time.Hour), []string{}, "nothing more")
}

// startDuringCancel starts deletions while an edit that cancels one is not committed. A call that waited for the row would
// block forever.
func startDuringCancel(f *fixture) {
	p := f.Product(1)
	f.ScheduleDeletion(p.ID, "canceled/", 0)
	f.ScheduleDeletion(p.ID, "other/", 0)
	conn := connect(f.T, f.dsn)
	run(f.T, conn, `BEGIN`)
	run(f.T, conn, `DELETE FROM scheduled_deletions WHERE prefix = 'canceled/'`) // as the edit does
	f.Same(f.startDue(10, time.Hour), []string{"other/"}, "started at the same time")
	run(f.T, conn, `COMMIT`)
}

func secondPass(f *fixture) {
	p := f.Product(1)
	f.ScheduleDeletion(p.ID, "later/", 0)
	f.startDue(10, time.Hour)
	f.ScheduleDeletion(p.ID, "now/", 0)
	f.startDue(10, -time.Second)
	f.Same(f.startDue(10, time.Hour), []string{}, "started a second time")
	f.ScheduleDeletion(p.ID, "now/", time.Hour) // a started deletion stays started
	f.ScheduleDeletion(p.ID, "third/", -time.Hour)
	f.Same(f.claimSecondPass(10, -time.Second), []string{"now/"}, "due for the second time")
	f.Same(f.claimSecondPass(10, -time.Second), []string{"now/"}, "due when its lease has ended")
	f.startDue(10, -time.Minute)
	f.Same(f.claimSecondPass(1, -time.Minute), []string{"third/"}, "longest due first")
	f.remove("third/")
	f.Same(f.claimSecondPass(10, -time.Second), []string{"now/"}, "the other one")
	f.Same(f.claimSecondPass(10, time.Hour), []string{"now/"}, "claimed")
	f.Same(f.claimSecondPass(10, time.Hour), []string{}, "claimed by another")
	f.remove("now/", "unknown/")
	f.remove("now/")
	f.Same(f.startDue(10, time.Hour), []string{}, "started after that")
}

// secondPassTogether lets two garbage collectors share the second pass. The first one crashes with its claims.
func secondPassTogether(f *fixture) {
	p := f.Product(1)
	const total = 60
	want := map[string]bool{}
	for i := range total {
		prefix := fmt.Sprintf("products/1/1/%02d-a/", i)
		f.ScheduleDeletion(p.ID, prefix, 0)
		want[prefix] = true
	}
	f.startDue(total, -time.Second)
	lost := f.claimSecondPass(10, 0) // a lease that ends at once
	var mu sync.Mutex
	seen := map[string]bool{}
	storetest.Together(4, func(int) {
		for range total + 1 {
			prefixes, err := f.store.ClaimSecondPass(f.Context(), 7, time.Hour)
			if err != nil || len(prefixes) > 7 {
				f.Errorf("got %d prefixes and %v, want at most 7", len(prefixes), err)
			}
			if len(prefixes) == 0 {
				return
			}
			mu.Lock()
			for _, prefix := range prefixes {
				if seen[prefix] {
					f.Errorf("%s was claimed twice", prefix)
				}
				seen[prefix] = true
			}
			mu.Unlock()
		}
	})
	if !maps.Equal(seen, want) || len(lost) != 10 {
		f.Errorf("claimed %d of %d, %d of them for the second time", len(seen), total, len(lost))
	}
}

// removeLocked removes deletions while another transaction holds one of them.
func removeLocked(f *fixture) {
	p := f.Product(1)
	f.ScheduleDeletion(p.ID, "locked/", 0)
	f.ScheduleDeletion(p.ID, "free/", 0)
	f.startDue(10, -time.Second)
	conn := connect(f.T, f.dsn)
	run(f.T, conn, `BEGIN`)
	run(f.T, conn, `SELECT FROM scheduled_deletions WHERE prefix = 'locked/' FOR UPDATE`)
	f.remove("locked/", "free/")
	run(f.T, conn, `COMMIT`)
	f.Same(f.claimSecondPass(10, time.Hour), []string{"locked/"}, "left")
}

func laterCounts(f *fixture) {
	p := f.Product(1)
	f.ScheduleDeletion(p.ID, "a/", time.Hour)
	f.ScheduleDeletion(p.ID, "a/", 0)
	f.Same(f.startDue(10, 0), []string{}, "started early")
	f.ScheduleDeletion(p.ID, "b/", 0)
	f.ScheduleDeletion(p.ID, "b/", time.Hour)
	f.Same(f.startDue(10, 0), []string{}, "started before the later time")
}

func removeNotStarted(f *fixture) {
	p := f.Product(1)
	f.ScheduleDeletion(p.ID, "a/", 0)
	f.remove("a/")
	f.Same(f.startDue(10, 0), []string{"a/"}, "still there")
}

func cancelOrStart(f *fixture) {
	p := f.Product(1)
	var canceled, started int
	for round := range 40 {
		prefix := fmt.Sprintf("products/1/1/%d-a/", round)
		f.ScheduleDeletion(p.ID, prefix, 0)
		var cancelErr, startErr error
		var prefixes []string
		storetest.Together(2, func(i int) {
			if i == 0 {
				prefixes, startErr = f.store.StartDue(f.Context(), 10, time.Hour)
				return
			}
			cancelErr = f.CancelDeletions(p.ID, prefix)
		})
		f.Must(startErr, "start")
		switch lost := errors.Is(cancelErr, catalog.ErrDeletionStarted); {
		case lost && len(prefixes) == 1:
			started++
		case cancelErr == nil && len(prefixes) == 0:
			canceled++
		default:
			f.Fatalf("cancel returned %v, and %v was started: want one of them", cancelErr, prefixes)
		}
	}
	f.Logf("%d canceled, %d started", canceled, started)
	if got := f.Load(p.ID).Version; got != 1+int64(canceled) {
		f.Errorf("got version %d, want one more for each of %d canceled", got, canceled)
	}
}

func startTogether(f *fixture) {
	p := f.Product(1)
	const total = 60
	for i := range total {
		f.ScheduleDeletion(p.ID, fmt.Sprintf("products/1/1/%d-a/", i), 0)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	storetest.Together(4, func(int) {
		for {
			prefixes, err := f.store.StartDue(f.Context(), 7, time.Hour)
			if err != nil || len(prefixes) > 7 {
				f.Errorf("got %d prefixes and %v, want at most 7", len(prefixes), err)
			}
			if len(prefixes) == 0 {
				return
			}
			mu.Lock()
			for _, prefix := range prefixes {
				seen[prefix]++
			}
			mu.Unlock()
		}
	})
	for prefix, times := range seen {
		if times != 1 {
			f.Errorf("%s was started %d times", prefix, times)
		}
	}
	if len(seen) != total {
		f.Errorf("got %d started, want %d", len(seen), total)
	}
}
