package backfill

import (
	"math"
	"time"
)

// sampleSize is the number of ids of a plan's sample.
const sampleSize = 10_000

// Plan is an estimate of what a backfill costs, from a sample of random ids.
type Plan struct {
	Sampled     int      // ids
	Images      Estimate // images to make again
	NoOriginal  Estimate // of them, those whose original is not kept
	SourceBytes Estimate // to download from URLs
	StoredBytes Estimate // of the renditions that are replaced
	Seconds     float64  // how long it takes: at its rate, or slower if earlier backfills were
	PlannedAt   time.Time
}

// Empty reports whether there is certainly no image to make: all were looked at.
func (p Plan) Empty(m OnMissing) bool { return p.Rendered(m).Value == 0 && p.Sampled < sampleSize }

// Rendered returns how many images are made again, without those that are skipped.
func (p Plan) Rendered(m OnMissing) Estimate {
	if m != SkipMissing {
		return p.Images
	}
	return Estimate{
		Value: max(p.Images.Value-p.NoOriginal.Value, 0), Error: math.Hypot(p.Images.Error, p.NoOriginal.Error),
	}
}

// Estimate is an estimated number with its standard error, 0 if the number is exact.
type Estimate struct{ Value, Error float64 }

// Sample is what a sample of ids has.
type Sample struct {
	Matched     int64   // selected images
	NoOriginal  int64   // of them, those whose original is not kept
	SourceBytes Moments // of those that are downloaded from their URLs
	StoredBytes Moments // of the renditions of those that are made again
}

// Moments are the sum and the sum of squares of a number.
type Moments struct{ Sum, Squares float64 }

// estimate returns the estimate of a sum over all ids, from one over n of them.
func (m Moments) estimate(n, all int64) Estimate {
	if n == 0 {
		return Estimate{}
	}
	mean := m.Sum / float64(n)
	variance := max(m.Squares/float64(n)-mean*mean, 0)
	missing := 1 - float64(n)/float64(all) // a sample of everything has no error
	return Estimate{Value: mean * float64(all), Error: float64(all) * math.Sqrt(variance/float64(n)*missing)}
}

// newPlan returns the plan that follows from a sample of n among all ids. rate is in images a second.
func newPlan(s Sample, n, all int64, rate float64, now time.Time) Plan {
	counted := func(images int64) Estimate { return Moments{float64(images), float64(images)}.estimate(n, all) }
	p := Plan{
		Sampled: int(n), Images: counted(s.Matched), NoOriginal: counted(s.NoOriginal),
		SourceBytes: s.SourceBytes.estimate(n, all),
		StoredBytes: s.StoredBytes.estimate(n, all), PlannedAt: now,
	}
	p.Seconds = p.Images.Value / rate // images that are skipped count against the rate, too
	return p
}

// sampleIDs returns the ids of a sample: all of those from 1 to last if they are few, else random ones without repetition.
func sampleIDs(last int64, random func(n int64) int64) []int64 {
	if last <= sampleSize {
		ids := make([]int64, last)
		for i := range ids {
			ids[i] = int64(i) + 1
		}
		return ids
	}
	seen := make(map[int64]bool, sampleSize)
	ids := make([]int64, 0, sampleSize)
	for len(ids) < sampleSize {
		if id := random(last) + 1; !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}
