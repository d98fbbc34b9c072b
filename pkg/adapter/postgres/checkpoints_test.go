package postgres_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/test/storetest"
)

func TestCheckpoints(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "pass_starts_once_and_again_when_it_is_due", run: passStarts},
		{name: "concurrent_starts_have_one_winner", run: passStartsOnce},
		{name: "two_stores_share_the_shards", run: shardsShared},
		{name: "crashed_lease_comes_back_and_its_holder_cannot_save", run: leaseCrashed},
		{name: "longest_due_shard_is_first", run: longestDue},
		{name: "state_of_a_pass_is_that_of_its_shards", run: passState},
	})
}

// ranges returns n ranges.
func ranges(n int) []maintenance.Range {
	all := make([]maintenance.Range, n)
	for i := range all {
		all[i] = maintenance.Range{After: fmt.Sprint("after ", i), Until: fmt.Sprint("until ", i)}
	}
	return all
}

// startPass starts a pass over the scan "rows".
func (f *fixture) startPass(shards int, every time.Duration) bool {
	f.Helper()
	started, err := f.store.StartPass(f.Context(), "rows", ranges(shards), every)
	f.Must(err, "start pass")
	return started
}

// acquire acquires a shard of the scan "rows".
func (f *fixture) acquire(lease time.Duration) (maintenance.Shard, bool) {
	f.Helper()
	shard, acquired, err := f.store.Acquire(f.Context(), "rows", lease)
	f.Must(err, "acquire")
	return shard, acquired
}

func (f *fixture) save(shard maintenance.Shard, at maintenance.Position, wait time.Duration) {
	f.Helper()
	f.Must(f.store.Save(f.Context(), shard, at, wait), "save")
}

// pass returns the state of the pass over the scan "rows".
func (f *fixture) pass() maintenance.Pass {
	f.Helper()
	pass, err := f.store.Pass(f.Context(), "rows")
	f.Must(err, "read pass")
	return pass
}

func passStarts(f *fixture) {
	f.Same(f.startPass(2, time.Hour), true, "the first")
	f.Same(f.startPass(2, -time.Hour), false, "while shards are not finished")
	for range 2 {
		shard, _ := f.acquire(time.Hour)
		f.save(shard, maintenance.Position{Done: true}, 0)
	}
	if shard, acquired := f.acquire(time.Hour); acquired {
		f.Errorf("got %+v of a finished pass", shard)
	}
	f.Same(f.startPass(1, time.Hour), false, "within the hour")
	f.Same(f.startPass(1, -time.Second), true, "when it is due")
	f.Same(f.pass().Shards, 1, "the shards of the new pass")
	started, err := f.store.StartPass(f.Context(), "objects", ranges(1), time.Hour)
	f.Must(err, "start another scan")
	f.Same(started, true, "another scan")
}

func passStartsOnce(f *fixture) {
	for round := range 5 {
		started := make([]bool, 4)
		storetest.Together(4, func(i int) {
			var err error
			started[i], err = f.store.StartPass(f.Context(), fmt.Sprint("scan ", round), ranges(i+1), time.Hour)
			if err != nil {
				f.Error(err)
			}
		})
		winner := slices.Index(started, true)
		pass, err := f.store.Pass(f.Context(), fmt.Sprint("scan ", round))
		f.Must(err, "read pass")
		if winner < 0 || slices.Contains(started[winner+1:], true) || pass.Shards != winner+1 {
			f.Errorf("started %v with %d shards, want one pass with its own shards", started, pass.Shards)
		}
	}
}

// shardsShared lets four processes scan sixteen shards in five steps each.
func shardsShared(f *fixture) {
	const shards, steps = 16, 5
	f.startPass(shards, time.Hour)
	var mu sync.Mutex
	held, done := map[int]bool{}, map[int]int{}
	storetest.Together(4, func(int) {
		for range shards*steps + 1 {
			shard, acquired, err := f.store.Acquire(f.Context(), "rows", time.Hour)
			if err != nil {
				f.Error(err)
			}
			if !acquired {
				return
			}
			mu.Lock()
			if held[shard.Number] {
				f.Errorf("shard %d is held twice", shard.Number)
			}
			held[shard.Number] = true
			if n := done[shard.Number]; n > 0 && shard.Cursor != fmt.Sprint(n) {
				f.Errorf("shard %d continues at %q, want %d", shard.Number, shard.Cursor, n)
			}
			done[shard.Number]++
			at := maintenance.Position{Cursor: fmt.Sprint(done[shard.Number]), Done: done[shard.Number] == steps}
			mu.Unlock()
			runtime.Gosched()
			mu.Lock()
			held[shard.Number] = false
			mu.Unlock()
			if err := f.store.Save(f.Context(), shard, at, 0); err != nil {
				f.Error(err)
			}
		}
	})
	for n := range shards {
		if done[n] != steps {
			f.Errorf("shard %d had %d steps, want %d", n, done[n], steps)
		}
	}
	f.Same(f.pass().Unfinished, 0, "unfinished")
}

func leaseCrashed(f *fixture) {
	f.startPass(1, time.Hour)
	crashed, _ := f.acquire(time.Hour)
	if _, acquired := f.acquire(time.Hour); acquired {
		f.Error("a shard was acquired twice")
	}
	f.save(crashed, maintenance.Position{Cursor: "one", Progress: 0.5}, 0)
	crashed, _ = f.acquire(0) // a lease that ends at once
	f.Same(crashed.Cursor, "one", "cursor")
	next, acquired := f.acquire(time.Hour)
	if !acquired || next.Cursor != "one" || next.Progress != 0.5 || next.Lease == crashed.Lease {
		f.Errorf("got %+v, %v, want the shard with another lease", next, acquired)
	}
	f.save(crashed, maintenance.Position{Cursor: "late", Done: true}, 0)
	f.Same(f.pass().Unfinished, 1, "unfinished after the late save")
	f.save(next, maintenance.Position{Cursor: "two"}, 0)
	last, _ := f.acquire(time.Hour)
	f.Same(last.Cursor, "two", "cursor")
}

func longestDue(f *fixture) {
	f.startPass(3, time.Hour)
	var shards []maintenance.Shard
	for n := range 3 {
		shard, _ := f.acquire(time.Hour)
		f.Same(shard.Range, ranges(3)[n], "range")
		f.Same(shard.Shards, 3, "shards")
		f.Same(shard.Cursor, shard.After, "cursor at first")
		shards = append(shards, shard)
	}
	for n, wait := range []time.Duration{-time.Minute, -3 * time.Minute, -2 * time.Minute} {
		f.save(shards[n], maintenance.Position{}, wait)
	}
	for _, want := range []int{1, 2, 0} {
		shard, _ := f.acquire(time.Hour)
		f.Same(shard.Number, want, "acquired")
	}
}

func passState(f *fixture) {
	f.Same(f.pass(), maintenance.Pass{Stopped: []string{}}, "no pass")
	f.startPass(4, time.Hour)
	positions := []maintenance.Position{
		{Progress: 0.5, Stopped: "no_owner"}, {Progress: 0.25, Stopped: "no_owner"}, {Progress: 1, Done: true}, {Progress: 0.25},
	}
	for _, at := range positions {
		shard, _ := f.acquire(time.Hour)
		f.save(shard, at, time.Hour)
	}
	pass := f.pass()
	if pass.Age < 0 || pass.Age > time.Hour {
		f.Errorf("got age %s", pass.Age)
	}
	pass.Age = 0
	f.Same(pass, maintenance.Pass{Shards: 4, Unfinished: 3, Progress: 0.5, Stopped: []string{"no_owner"}}, "the pass")
}
