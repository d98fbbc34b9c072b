package main

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// sample is how it went to do something a number of times.
type sample struct {
	took time.Duration
	cpu  time.Duration   // of this process: our server's or the bare one's, the clients' and the garbage collector's
	each []time.Duration // of the single operations; nil where they are not done singly
}

// abreast does n operations on a fixed number of workers, each of which begins its next one when it has finished the last.
// do gets the worker's number and the operation's. The first error ends it.
func abreast(workers, n int, do func(worker, i int) error) (sample, error) {
	var (
		next   atomic.Int64
		failed atomic.Pointer[error]
		wg     sync.WaitGroup
	)
	each := make([]time.Duration, n)
	began := time.Now()
	for w := range min(workers, n) {
		wg.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				start := time.Now()
				if err := do(w, i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
				each[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := failed.Load(); err != nil {
		return sample{}, *err
	}
	return sample{took: took, each: each}, nil
}

// side is one of two ways to do the same thing.
type side struct {
	prepare func(n int) error // before each round, untimed; nil for nothing
	run     func(n int) (sample, error)
}

// tally is what one side has done so far.
type tally struct {
	done      int
	took, cpu time.Duration
	each      []time.Duration
}

// round does n operations.
func (s side) round(tb testing.TB, n int) sample {
	tb.Helper()
	if s.prepare != nil {
		must(tb, s.prepare(n))
	}
	runtime.GC() // what the other side has left is not this side's to clear away
	before := cpuTime(tb)
	how, err := s.run(n)
	must(tb, err)
	how.cpu = cpuTime(tb) - before
	return how
}

// cpuTime is what this process has computed so far. Unlike the clock it does not count what others do meanwhile.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var used syscall.Rusage
	must(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// compare does b.N operations on each side, in rounds in which the sides take turns at going first, and reports both.
// ns/op is of our side; how many operations there are is decided by the time of both.
func compare(b *testing.B, perRound int, ours, other side) {
	b.Helper()
	for _, s := range []side{ours, other} {
		s.round(b, min(b.N, perRound)) // connections, prepared statements, pools
	}
	b.ResetTimer()
	var mine, theirs tally
	var ratios []float64
	for round, left := 0, b.N; left > 0; round++ {
		n := min(left, perRound)
		left -= n
		var a, z sample
		if round%2 == 0 {
			a, z = ours.round(b, n), other.round(b, n)
		} else {
			z, a = other.round(b, n), ours.round(b, n)
		}
		mine.add(n, a)
		theirs.add(n, z)
		if n == perRound || round == 0 { // a short last round would count as much as a full one
			ratios = append(ratios, z.took.Seconds()/a.took.Seconds())
		}
	}
	slices.Sort(ratios)
	b.ReportMetric(quantile(ratios, 0.5), unitRatio)
	b.ReportMetric(quantile(ratios, 0.25), unitRatioLow)
	b.ReportMetric(quantile(ratios, 0.75), unitRatioHigh)
	b.ReportMetric(float64(len(ratios)), unitRounds)
	b.ReportMetric(float64(mine.took.Nanoseconds())/float64(mine.done), "ns/op")
	mine.report(b, "")
	theirs.report(b, bare)
}

func (t *tally) add(n int, s sample) {
	t.done += n
	t.took += s.took
	t.cpu += s.cpu
	t.each = append(t.each, s.each...)
}

// report reports throughput and, where there is one, latency.
func (t *tally) report(b *testing.B, prefix string) {
	b.Helper()
	b.ReportMetric(float64(t.done)/t.took.Seconds(), prefix+unitRate)
	b.ReportMetric(float64(t.cpu.Nanoseconds())/1e3/float64(t.done), prefix+unitCPU)
	if len(t.each) == 0 {
		return
	}
	slices.Sort(t.each)
	for unit, q := range map[string]float64{unitP50: 0.50, unitP95: 0.95, unitP99: 0.99} {
		b.ReportMetric(float64(quantile(t.each, q).Nanoseconds())/1e3, prefix+unit)
	}
}

// quantile returns the least value that is not below a share q of the sorted values (the nearest rank).
func quantile[T any](sorted []T, q float64) T {
	rank := int(q*float64(len(sorted)) + 0.999999)
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, row := range []struct {
		of   []int
		q    float64
		want int
	}{
		{hundred, 0.50, 50}, {hundred, 0.95, 95}, {hundred, 0.99, 99}, {hundred, 1, 100}, {hundred, 0, 1},
		{[]int{7}, 0.99, 7}, {[]int{1, 2, 3}, 0.5, 2}, {[]int{1, 2, 3, 4}, 0.75, 3},
	} {
		if got := quantile(row.of, row.q); got != row.want {
			t.Errorf("quantile %g of %d values: got %d, want %d", row.q, len(row.of), got, row.want)
		}
	}
}

func TestConcurrently(t *testing.T) {
	t.Parallel()
	var done [100]atomic.Int32
	took, err := abreast(8, len(done), func(worker, i int) error {
		if worker < 0 || worker >= 8 {
			t.Errorf("worker %d of 8", worker)
		}
		done[i].Add(1)
		return nil
	})
	if err != nil || len(took.each) != len(done) || took.took <= 0 {
		t.Errorf("got %d latencies in %s, error %v", len(took.each), took.took, err)
	}
	for i := range done {
		if got := done[i].Load(); got != 1 {
			t.Errorf("operation %d was done %d times", i, got)
		}
	}
	calls, errEnough := 0, errors.New("enough")
	_, err = abreast(1, 100, func(_, i int) error {
		calls++
		if i == 3 {
			return errEnough
		}
		return nil
	})
	if err != errEnough || calls != 4 { //nolint:errorlint // the very same
		t.Errorf("got %v after %d calls, want the error after 4", err, calls)
	}
}
