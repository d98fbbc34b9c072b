package codec

import (
	"time"

	"vitrine.io/pkg/foundation/pipeline"
)

// Types that are tested without processes.
type (
	PoisonCache = poisonCache
	BusyTime    = busyTime
)

// MaxPoison is how many entries a PoisonCache has at most.
const MaxPoison = maxPoison

// NewBusyTime is newBusyTime.
var NewBusyTime = newBusyTime

// NewPoisonCache returns an empty cache.
func NewPoisonCache(now func() time.Time) *poisonCache {
	return &poisonCache{now: now, entries: map[poisonKey]time.Time{}}
}

func (c *poisonCache) Contains(source string) bool {
	return c.contains([]byte(source), pipeline.Default().Spec)
}
func (c *poisonCache) Add(source string) { c.add([]byte(source), pipeline.Default().Spec) }
func (b *busyTime) Add(n int)            { b.add(n) }
func (b *busyTime) Total() float64       { return b.total() }
func (b *busyTime) Utilization() float64 { return b.utilization() }
