package relay

import (
	"context"
	"time"
)

// saved is how much of the rate an idle relay saves up: a burst of live traffic goes at full speed.
const saved = 2 * time.Second

// allowance is what the rate still allows. A backlog of an hour goes out steadily beside the live traffic of this process,
// its database and Kafka, and not as fast as all of them can.
type allowance struct {
	rate float64 // messages a second; 0: no limit
	left float64 // below zero: in debt
	at   time.Time
}

func newAllowance(rate int, now time.Time) *allowance {
	return &allowance{rate: float64(rate), left: float64(rate) * saved.Seconds(), at: now}
}

// spend takes n messages off.
func (a *allowance) spend(n int) { a.left -= float64(n) }

// await returns when the next round may begin, or ctx ends.
func (a *allowance) await(ctx context.Context) {
	if a.rate == 0 {
		return
	}
	now := time.Now()
	a.left = min(a.left+now.Sub(a.at).Seconds()*a.rate, a.rate*saved.Seconds())
	a.at = now
	if a.left < 0 {
		wait(ctx, time.Duration(-a.left/a.rate*float64(time.Second)), nil)
	}
}
