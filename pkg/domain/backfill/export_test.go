package backfill

import (
	"context"
	"time"
)

// Internals for tests.
var (
	NewPlan   = newPlan
	SampleIDs = sampleIDs
)

// Allows is Pace.allows.
func (p Pace) Allows(now time.Time) bool { return p.allows(now) }

// Measure is Walker.measure.
func (w *Walker) Measure(ctx context.Context) error { return w.measure(ctx) }
