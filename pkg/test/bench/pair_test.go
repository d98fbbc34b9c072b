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

// sample is the result of a number of operations.
type sample struct {
	elapsed time.Duration
	cpu     time.Duration   // of this process: server, clients and garbage collector
	each    []time.Duration // latencies of the operations; nil for batches
}

// runConcurrently runs n operations on a fixed number of workers. Each worker starts an operation when its last one is done.
// do gets the index of the worker and that of the operation. The first error stops all workers.
func runConcurrently(workers, n int, do func(worker, i int) error) (sample, error) {
	var (
		next   atomic.Int64
		failed atomic.Pointer[error]
		wg     sync.WaitGroup
	)
	each := make([]time.Duration, n)
	start := time.Now()
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
	elapsed := time.Since(start)
	if err := failed.Load(); err != nil {
		return sample{}, *err
	}
	return sample{elapsed: elapsed, each: each}, nil
}

// side is one of the two implementations that are compared.
type side struct {
	prepare func(n int) error // called before each round, not measured; may be nil
	run     func(n int) (sample, error)
}

// tally is the sum of one side's rounds.
type tally struct {
	done         int
	elapsed, cpu time.Duration
	each         []time.Duration
}

// round runs n operations.
func (s side) round(tb testing.TB, n int) sample {
	tb.Helper()
	if s.prepare != nil {
		must(tb, s.prepare(n))
	}
	runtime.GC() // the garbage of the other side must not count for this one
	before := cpuTime(tb)
	result, err := s.run(n)
	must(tb, err)
	result.cpu = cpuTime(tb) - before
	return result
}

// cpuTime returns the CPU time of this process so far. Unlike elapsed time it excludes other processes.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var used syscall.Rusage
	must(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// compare runs b.N operations on each side, in rounds whose first side alternates, and reports both. ns/op is that of our
// side, while b.N follows from the time of both sides.
func compare(b *testing.B, perRound int, ours, other side) {
	b.Helper()
	for _, s := range []side{ours, other} {
		s.round(b, min(b.N, perRound)) // fills connections, prepared statements and pools
	}
	b.ResetTimer()
	var oursTally, bareTally tally
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
		oursTally.add(n, a)
		bareTally.add(n, z)
		if n == perRound || round == 0 { // a short last round must not have the weight of a full one
			ratios = append(ratios, z.elapsed.Seconds()/a.elapsed.Seconds())
		}
	}
	slices.Sort(ratios)
	b.ReportMetric(quantile(ratios, 0.5), unitRatio)
	b.ReportMetric(quantile(ratios, 0.25), unitRatioLow)
	b.ReportMetric(quantile(ratios, 0.75), unitRatioHigh)
	b.ReportMetric(float64(len(ratios)), unitRounds)
	b.ReportMetric(float64(oursTally.elapsed.Nanoseconds())/float64(oursTally.done), "ns/op")
	oursTally.report(b, "")
	bareTally.report(b, bare)
}

func (t *tally) add(n int, s sample) {
	t.done += n
	t.elapsed += s.elapsed
	t.cpu += s.cpu
	t.each = append(t.each, s.each...)
}

// report reports throughput, CPU time and, if there are latencies, their quantiles.
func (t *tally) report(b *testing.B, prefix string) {
	b.Helper()
	b.ReportMetric(float64(t.done)/t.elapsed.Seconds(), prefix+unitRate)
	b.ReportMetric(float64(t.cpu.Nanoseconds())/1e3/float64(t.done), prefix+unitCPU)
	if len(t.each) == 0 {
		return
	}
	slices.Sort(t.each)
	for unit, q := range map[string]float64{unitP50: 0.50, unitP95: 0.95, unitP99: 0.99} {
		b.ReportMetric(float64(quantile(t.each, q).Nanoseconds())/1e3, prefix+unit)
	}
}

// quantile returns the q-quantile of sorted values by the nearest-rank method.
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
	elapsed, err := runConcurrently(8, len(done), func(worker, i int) error {
		if worker < 0 || worker >= 8 {
			t.Errorf("worker %d of 8", worker)
		}
		done[i].Add(1)
		return nil
	})
	if err != nil || len(elapsed.each) != len(done) || elapsed.elapsed <= 0 {
		t.Errorf("got %d latencies in %s, error %v", len(elapsed.each), elapsed.elapsed, err)
	}
	for i := range done {
		if got := done[i].Load(); got != 1 {
			t.Errorf("operation %d ran %d times", i, got)
		}
	}
	calls, errStop := 0, errors.New("stop")
	_, err = runConcurrently(1, 100, func(_, i int) error {
		calls++
		if i == 3 {
			return errStop
		}
		return nil
	})
	if err != errStop || calls != 4 { //nolint:errorlint // the same value
		t.Errorf("got %v after %d calls, want the error after 4", err, calls)
	}
}
