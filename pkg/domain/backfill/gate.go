package backfill

import (
	"fmt"

	"vitrine.io/pkg/foundation/pipeline"
)

// Unmet returns a sentence for each gate that the report does not meet. A gate needs a complete report, and a gate about
// samples is not met if there are none.
func (c Canary) Unmet(g pipeline.Gates) []string {
	if g == (pipeline.Gates{}) {
		return nil
	}
	if c.State != CanaryComplete {
		return []string{"the gates need the complete report of a canary"}
	}
	var unmet []string
	check := func(met bool, format string, args ...any) {
		if !met {
			unmet = append(unmet, fmt.Sprintf(format, args...))
		}
	}
	if limit := g.MaxFailedPercent; limit != nil {
		percent := 100 * float64(c.Failed) / float64(c.Samples)
		check(percent <= *limit, "maxFailedPercent is %g, and %d of %d samples failed", *limit, c.Failed, c.Samples)
	}
	if limit := g.MaxBytesIncreasePercent; limit != nil {
		percent := 100 * (float64(c.BytesAfter)/float64(c.BytesBefore) - 1)
		check(percent <= *limit, "maxBytesIncreasePercent is %g, and %d bytes became %d", *limit, c.BytesBefore, c.BytesAfter)
	}
	if limit := g.MinScoreDelta; limit != nil {
		check(c.Scored > 0 && c.ScoreAfter-c.ScoreBefore >= *limit,
			"minScoreDelta is %g, and the mean score changed from %.2f to %.2f", *limit, c.ScoreBefore, c.ScoreAfter)
	}
	return unmet
}
