package main

import (
	"fmt"
	"strings"
)

// The units of the section about a backfill.
const (
	unitP50Seconds = "p50-s"
	unitP99Seconds = "p99-s"
	unitAdded      = "added-s"   // p99 with the backfill, less that without
	unitMatching   = "matching"  // images that have to be made again
	unitDone       = "done"      // images made again / those that have to be
	unitForgotten  = "forgotten" // images with other renditions at the end
	unitPasses     = "passes"
)

// backfillRatios are the ratios of the section about a backfill.
var backfillRatios = []ratio{
	{"Backfill/live_with", unitRatio, "backfill-live-p99/without"},
	{"Backfill/live_with", unitAdded, "backfill-live-p99/added-seconds"},
	{"Backfill/walk", unitDone, "backfill/done"},
	{"Backfill/walk", unitForgotten, "backfill/forgotten"},
}

// backfillTables returns the tables of the section about a backfill, in Markdown.
func (r report) backfillTables() string {
	var out strings.Builder
	walk := r.find("Backfill/walk")
	fmt.Fprintf(&out, "\n%.0f rows of images, of which %.0f have to be made again: **%.2f** of them were, in %.0f passes, by "+
		"%.0f workers, %.1f a second; %.0f failed, %.0f are forgotten.\n\n", walk[unitImages], walk[unitMatching], walk[unitDone],
		walk[unitPasses], walk[unitWorkers], walk[unitRate], walk[unitFailed], walk[unitForgotten])
	out.WriteString("| images of clients, accepted to ready | images | p50, s | p99, s | max, s |\n|---|---:|---:|---:|---:|\n")
	for _, row := range []struct{ benchmark, what string }{
		{"Backfill/live_without", "without the backfill"}, {"Backfill/live_with", "beside it"},
	} {
		m := r.find(row.benchmark)
		fmt.Fprintf(&out, "| %s | %.0f | %.2f | %.2f | %.2f |\n", row.what, m[unitImages], m[unitP50Seconds], m[unitP99Seconds],
			m[unitMaxSeconds])
	}
	m := r.find("Backfill/live_with")
	fmt.Fprintf(&out, "\nThe p99 beside it is **%.2f** of that without, %+.2f s.\n", m[unitRatio], m[unitAdded])
	return out.String()
}
