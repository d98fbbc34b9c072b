package fetch

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// budget is the memory that the bodies of all downloads may use together. Reservations are granted first in, first out,
// so that small ones do not overtake a large one.
type budget struct {
	total   int64 // bytes
	left    *semaphore.Weighted
	now     func() time.Time
	metrics *metrics
}

func newBudget(total int64, now func() time.Time, m *metrics) *budget {
	return &budget{total: total, left: semaphore.NewWeighted(total), now: now, metrics: m}
}

// reserve waits until size bytes are free. A size above total reserves total, so that the download runs alone. The error is
// that of ctx.
func (b *budget) reserve(ctx context.Context, size int64) (*reservation, error) {
	size = min(size, b.total)
	start := b.now()
	err := b.left.Acquire(ctx, size)
	b.metrics.wait.Observe(b.now().Sub(start).Seconds())
	if err != nil {
		return nil, err
	}
	b.metrics.reserved.Add(float64(size))
	r := &reservation{budget: b}
	r.size.Store(size)
	return r, nil
}

// reservation is the memory of one body.
type reservation struct {
	budget *budget
	size   atomic.Int64 // bytes
}

// shrink releases all but size bytes. A reservation never grows, because two downloads that have each reserved a part of
// their memory could wait for each other.
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

// release releases everything. It is idempotent.
func (r *reservation) release() { r.shrink(0) }
