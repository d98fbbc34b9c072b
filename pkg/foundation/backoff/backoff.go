package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Sleep waits for d or until ctx ends, and reports whether ctx has not ended. It does not wait if d is zero or negative.
func Sleep(ctx context.Context, d time.Duration) bool { return Wait(ctx, d, nil) }

// Wait is Sleep that also returns when wake delivers a value or is closed. It does not receive from wake if d is zero or
// negative. A nil wake never ends the wait.
func Wait(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-wake:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// maxDoublings keeps a shifted duration from overflowing: 2^62 nanoseconds are 146 years.
const maxDoublings = 62

// Double returns first, doubled n times, but at most limit. It has no random part. first must not be negative; a negative n
// counts as zero.
func Double(n int, first, limit time.Duration) time.Duration {
	n = min(max(n, 0), maxDoublings)
	if first > limit>>n {
		return limit
	}
	return first << n
}

// Delay returns the delay before a retry: [Double] of failures, of which half is random. With failures at zero it is between
// half of first and first. It is never longer than limit.
func Delay(failures int, first, limit time.Duration) time.Duration {
	d := Double(failures, first, limit)
	return d/2 + upTo(d/2)
}

// Jitter returns d plus or minus at most a third of it, evenly spread. d must not be negative.
func Jitter(d time.Duration) time.Duration { return d - d/3 + upTo(2*(d/3)) }

// upTo returns a random duration from zero to d, both inclusive.
func upTo(d time.Duration) time.Duration {
	return rand.N(d + 1) //nolint:gosec // spreads load; not a secret
}
