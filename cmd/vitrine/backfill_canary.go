package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"vitrine.io/pkg/domain/backfill"
)

func (c console) backfillCanaryCommand(o *backfillOptions) *cobra.Command {
	cmd := c.backfillChangeCommand(o, "canary", "Try a backfill on random images before it is approved",
		func(ctx context.Context, m backfill.Manager, name string) (backfill.Backfill, error) {
			return m.StartCanary(ctx, name, o.samples)
		})
	cmd.Long = `Random images that the backfill selects are rendered with its target, and compared with their present
renditions. Clients see nothing of it: the results are objects of their own, which are deleted after a week. The command
starts the canary; "vitrine backfill status NAME" shows its report.`
	cmd.Flags().IntVar(&o.samples, "samples", backfill.DefaultSamples,
		fmt.Sprintf("number of images to try, at most %d", backfill.MaxSamples))
	return cmd
}

// canaryJSON is the JSON form of a canary.
type canaryJSON struct {
	State       string          `json:"state"` // running, complete or stopped
	Samples     int             `json:"samples"`
	Done        int             `json:"done"`
	Failed      int             `json:"failed"`
	Changed     int             `json:"changed"`
	Scored      int             `json:"scored"`
	BytesBefore int64           `json:"bytes_before"`
	BytesAfter  int64           `json:"bytes_after"`
	ScoreBefore float64         `json:"ssimulacra2_before"` // 0 if none is scored
	ScoreAfter  float64         `json:"ssimulacra2_after"`  // the same
	CPUSeconds  float64         `json:"cpu_seconds"`
	Failures    map[string]int  `json:"failures_by_code"`
	Examples    []canaryExample `json:"examples"` // at most five
	CPU         *estimateJSON   `json:"backfill_cpu_seconds,omitempty"`
	StartedAt   time.Time       `json:"started_at"`
	EndedAt     time.Time       `json:"ended_at,omitzero"`
}

type canaryExample struct {
	ImageID     int64   `json:"image_id"`
	Before      string  `json:"before,omitempty"` // URL
	After       string  `json:"after"`            // URL
	BytesBefore int64   `json:"bytes_before"`
	BytesAfter  int64   `json:"bytes_after"`
	ScoreBefore float64 `json:"ssimulacra2_before"`
	ScoreAfter  float64 `json:"ssimulacra2_after"`
}

// toCanaryJSON returns nil if the backfill has no canary.
func toCanaryJSON(b backfill.Backfill) *canaryJSON {
	c := b.Canary
	if c.State == backfill.NoCanary {
		return nil
	}
	j := &canaryJSON{
		State: string(c.State), Samples: c.Samples, Done: c.Done, Failed: c.Failed, Changed: c.Changed, Scored: c.Scored,
		BytesBefore: c.BytesBefore, BytesAfter: c.BytesAfter, ScoreBefore: c.ScoreBefore, ScoreAfter: c.ScoreAfter,
		CPUSeconds: c.CPUSeconds, Failures: map[string]int{}, Examples: []canaryExample{}, StartedAt: c.StartedAt,
		EndedAt: c.EndedAt,
	}
	for code, n := range c.Failures {
		j.Failures[string(code)] = n
	}
	for _, e := range c.Examples {
		j.Examples = append(j.Examples, canaryExample{
			int64(e.ImageID), e.Before, e.After, e.BytesBefore, e.BytesAfter, e.ScoreBefore, e.ScoreAfter,
		})
	}
	if cpu, ok := b.CPUSeconds(); ok {
		estimate := estimateJSON(cpu)
		j.CPU = &estimate
	}
	return j
}

// writeCanary writes the report of a canary as rows of a table.
func writeCanary(table io.Writer, b backfill.Backfill) {
	c := b.Canary
	if c.State == backfill.NoCanary {
		return
	}
	row := func(name, format string, args ...any) { fmt.Fprintf(table, name+"\t"+format+"\n", args...) }
	row("canary", "%s: %d samples, %d done, %d failed, %d with a changed source", c.State, c.Samples, c.Done, c.Failed,
		c.Changed)
	for _, code := range slices.Sorted(maps.Keys(c.Failures)) {
		row("", "%d failed: %s", c.Failures[code], code)
	}
	if c.Done > 0 {
		row("", "%d bytes before, %d after (%s)", c.BytesBefore, c.BytesAfter, changeText(c.BytesBefore, c.BytesAfter))
	}
	if c.Scored > 0 {
		row("", "SSIMULACRA2 %.1f before, %.1f after, of %d samples", c.ScoreBefore, c.ScoreAfter, c.Scored)
	}
	if cpu, ok := b.CPUSeconds(); ok {
		took := func(seconds float64) time.Duration {
			return time.Duration(seconds * float64(time.Second)).Round(time.Second)
		}
		row("", "about %s of CPU time for the whole backfill (± %s)", took(cpu.Value), took(cpu.Error))
	}
	for _, e := range c.Examples {
		row("example", "image %d: %d bytes before, %d after; SSIMULACRA2 %.1f and %.1f", e.ImageID, e.BytesBefore, e.BytesAfter,
			e.ScoreBefore, e.ScoreAfter)
		if e.Before != "" {
			row("", "%s", e.Before)
		}
		row("", "%s", e.After)
	}
}

// changeText returns by how many percent a number of bytes changes.
func changeText(before, after int64) string {
	if before == 0 {
		return "no renditions before"
	}
	return fmt.Sprintf("%+.1f %%", 100*(float64(after)/float64(before)-1))
}
