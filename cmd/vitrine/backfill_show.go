package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"vitrine.io/pkg/domain/backfill"
)

// backfillJSON is the JSON form of a backfill.
type backfillJSON struct {
	Name         string           `json:"name"`
	State        string           `json:"state"`
	Reason       string           `json:"reason,omitempty"`
	Suspended    string           `json:"suspended,omitempty"` // operator or failures
	Open         bool             `json:"open"`
	ManagedBy    string           `json:"managed_by"`
	Kind         string           `json:"kind"`
	TargetHash   string           `json:"target_hash"`
	TargetOutput string           `json:"target_output_hash"`
	OnMissing    string           `json:"on_missing"`
	MaxInFlight  int              `json:"max_in_flight"`
	Rate         float64          `json:"rate"`
	Windows      []string         `json:"windows"`
	TimeZone     string           `json:"time_zone"`
	Threshold    float64          `json:"failure_threshold"`
	Plan         planJSON         `json:"plan"`
	Canary       *canaryJSON      `json:"canary,omitempty"`
	Total        int64            `json:"total"`
	Requested    int64            `json:"requested"`
	Done         int64            `json:"done"`
	Skipped      int64            `json:"skipped"`
	Failed       int64            `json:"failed"`
	Failures     map[string]int64 `json:"failures_by_code"` // at most five
	Pass         int              `json:"pass"`
	CreatedAt    time.Time        `json:"created_at"`
	ApprovedAt   time.Time        `json:"approved_at,omitzero"`
	StartedAt    time.Time        `json:"started_at,omitzero"`
	EndedAt      time.Time        `json:"ended_at,omitzero"`
	ETA          float64          `json:"eta_seconds,omitempty"`
}

// planJSON is the JSON form of a plan.
type planJSON struct {
	Sampled     int          `json:"sampled"`
	Images      estimateJSON `json:"images"`
	NoOriginal  estimateJSON `json:"no_original"`
	SourceBytes estimateJSON `json:"source_bytes"`
	StoredBytes estimateJSON `json:"stored_bytes"`
	Seconds     float64      `json:"seconds"`
}

type estimateJSON struct {
	Value float64 `json:"value"`
	Error float64 `json:"standard_error"`
}

func toPlanJSON(p backfill.Plan) planJSON {
	return planJSON{
		Sampled: p.Sampled, Images: estimateJSON(p.Images), NoOriginal: estimateJSON(p.NoOriginal),
		SourceBytes: estimateJSON(p.SourceBytes),
		StoredBytes: estimateJSON(p.StoredBytes), Seconds: p.Seconds,
	}
}

func toBackfillJSON(b backfill.Backfill, now time.Time) backfillJSON {
	j := backfillJSON{
		Name: b.Name(), State: string(b.State), Reason: b.Reason, Suspended: string(b.Suspended), Open: b.Open,
		ManagedBy: string(b.ManagedBy), Kind: string(b.Selection.Kind), TargetHash: b.TargetHash,
		TargetOutput: b.TargetOutput, OnMissing: string(b.OnMissing), MaxInFlight: b.MaxInFlight, Rate: b.Rate,
		Windows: []string{}, TimeZone: b.TimeZone, Threshold: b.FailureThreshold, Plan: toPlanJSON(b.Plan),
		Canary: toCanaryJSON(b), Total: b.Total(), Requested: b.Requested, Done: b.Done,
		Skipped: b.Skipped, Failed: b.Failed, Failures: map[string]int64{}, Pass: b.Pass, CreatedAt: b.CreatedAt,
		ApprovedAt: b.ApprovedAt, StartedAt: b.StartedAt, EndedAt: b.EndedAt,
	}
	for _, w := range b.Windows {
		j.Windows = append(j.Windows, w.String())
	}
	for _, code := range backfill.TopFailures(b.Failures) {
		j.Failures[string(code)] = b.Failures[code]
	}
	if left, ok := b.ETA(now); ok {
		j.ETA = left.Seconds()
	}
	return j
}

func (c console) listBackfills(o *backfillOptions, list []backfill.Backfill) error {
	now := time.Now()
	if o.output == "json" {
		items := make([]backfillJSON, len(list))
		for i, b := range list {
			items[i] = toBackfillJSON(b, now)
		}
		return writeJSON(c.stdout, map[string]any{"backfills": items})
	}
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tSTATE\tKIND\tTOTAL\tDONE\tSKIPPED\tFAILED\tCREATED")
	for _, b := range list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", b.Name(), stateText(b), b.Selection.Kind, b.Total(), b.Done,
			b.Skipped, b.Failed, b.CreatedAt.Format(time.RFC3339))
	}
	return table.Flush()
}

func stateText(b backfill.Backfill) string {
	switch {
	case b.Suspended != backfill.NotSuspended:
		return fmt.Sprintf("%s, suspended (%s)", b.State, b.Suspended)
	case b.State == backfill.Running && !b.Open:
		return string(b.State) + ", waiting"
	default:
		return string(b.State)
	}
}

// showBackfills shows one backfill.
func (c console) showBackfills(o *backfillOptions, b backfill.Backfill) error {
	now := time.Now()
	if o.output == "json" {
		return writeJSON(c.stdout, toBackfillJSON(b, now))
	}
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(table, name+"\t"+format+"\n", args...) }
	row("name", "%s", b.Name())
	row("state", "%s", stateText(b))
	if b.Reason != "" {
		row("reason", "%s", b.Reason)
	}
	row("managed by", "%s", b.ManagedBy)
	row("for", "%s", selectionText(b.Selection))
	row("target", "%s", b.TargetHash)
	writePlan(table, b.Plan)
	writeCanary(table, b)
	row("without original", "%s", onMissingText(b.OnMissing))
	row("pace", "%g images a second, %d in flight, suspended above %g %% failed", b.Rate, b.MaxInFlight, b.FailureThreshold)
	var windows []string
	for _, w := range b.Windows {
		windows = append(windows, w.String())
	}
	row("windows", "%s %s", cmp.Or(strings.Join(windows, "; "), "always"), b.TimeZone)
	row("images", "%d of about %d done, %d skipped, %d failed", b.Done, b.Total(), b.Skipped, b.Failed)
	for _, code := range backfill.TopFailures(b.Failures) {
		row("failed", "%d %s", b.Failures[code], code)
	}
	if left, ok := b.ETA(now); ok {
		row("left", "about %s", left.Round(time.Second))
	}
	return table.Flush()
}

func selectionText(s backfill.Selection) string {
	codes := make([]string, len(s.Codes))
	for i, code := range s.Codes {
		codes[i] = string(code)
	}
	switch {
	case s.Kind == backfill.ByHand:
		return "images by conditions"
	case s.Kind == backfill.Failures:
		return "images that failed with " + strings.Join(codes, ", ")
	case len(codes) > 0:
		return "ready images with other renditions, and images that failed with " + strings.Join(codes, ", ")
	default:
		return "ready images with other renditions"
	}
}

func onMissingText(m backfill.OnMissing) string {
	if m == backfill.SkipMissing {
		return "skipped"
	}
	return "read from their URLs"
}

// writePlan writes a plan as rows of a table.
func writePlan(table io.Writer, p backfill.Plan) {
	fmt.Fprintf(table, "plan\t%s images, from a sample of %d ids\n", countText(p.Images), p.Sampled)
	fmt.Fprintf(table, "\t%s of them without an original\n", countText(p.NoOriginal))
	fmt.Fprintf(table, "\t%s to download, %s of renditions replaced\n", bytesText(p.SourceBytes), bytesText(p.StoredBytes))
	fmt.Fprintf(table, "\tabout %s\n", time.Duration(p.Seconds*float64(time.Second)).Round(time.Second))
}

func countText(e backfill.Estimate) string {
	if e.Error == 0 {
		return fmt.Sprintf("%.0f", e.Value)
	}
	return fmt.Sprintf("about %.0f (± %.0f)", math.Round(e.Value), math.Ceil(e.Error))
}

func bytesText(e backfill.Estimate) string {
	const mega = 1 << 20
	if e.Error == 0 {
		return fmt.Sprintf("%.1f MiB", e.Value/mega)
	}
	return fmt.Sprintf("about %.1f (± %.1f) MiB", e.Value/mega, e.Error/mega)
}

func writeJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
