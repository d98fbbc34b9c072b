package fetch

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// budget is the memory that the bodies of all downloads may take together. Whoever has waited longest is served first, a
// large one not later than small ones that came after it.
type budget struct {
	total   int64 // bytes
	left    *semaphore.Weighted
	now     func() time.Time
	metrics *metrics
}

func newBudget(total int64, now func() time.Time, m *metrics) *budget {
	return &budget{total: total, left: semaphore.NewWeighted(total), now: now, metrics: m}
}

// reserve waits until size bytes are free. What is more than all there is gets all there is, and so is alone. The error is
// ctx's.
func (b *budget) reserve(ctx context.Context, size int64) (*reservation, error) {
	size = min(size, b.total)
	began := b.now()
	err := b.left.Acquire(ctx, size)
	b.metrics.wait.Observe(b.now().Sub(began).Seconds())
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller's own
	}
	b.metrics.reserved.Add(float64(size))
	r := &reservation{budget: b}
	r.size.Store(size)
	return r, nil
}

// reservation is the share of one body.
type reservation struct {
	budget *budget
	size   atomic.Int64 // bytes
}

// shrink gives back all but size bytes. It never takes more: a download that waits with a part of what it needs could wait
// for another that does the same.
func (r *reservation) shrink(size int64) {
	for {
		held := r.size.Load()
		if size >= held {
			return
		}
		if r.size.CompareAndSwap(held, size) {
			r.budget.metrics.reserved.Sub(float64(held - size))
			r.budget.left.Release(held - size)
			return
		}
	}
}

// release gives everything back. Again, it does nothing.
func (r *reservation) release() { r.shrink(0) }
