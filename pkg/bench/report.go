package main

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
)

// What the benchmarks report, beside Go's ns/op. Microseconds are of single operations as their client saw them.
const (
	unitRatio     = "ratio"      // median over the rounds of our throughput / the bare one's
	unitRatioLow  = "ratio-low"  // the rounds' first quartile
	unitRatioHigh = "ratio-high" // the rounds' third quartile
	unitRounds    = "rounds"
	unitRate      = "ops/s"
	unitCPU       = "cpu-us" // of the benchmark's process for one operation, clients included
	unitP50       = "p50-us"
	unitP95       = "p95-us"
	unitP99       = "p99-us"
	bare          = "bare-" // before a unit: the other side's
)

// pairs are the benchmarks that have two sides, and what their ratios are called.
var pairs = []struct{ benchmark, ratio string }{
	{"GetProduct/hit", "hit/bare"},
	{"GetProduct/miss", "miss/bare"},
	{"CreateProduct/pictures=3", "create/sql"},
	{"Relay/batch=500", "relay/producer"},
}

// listsPrefix begins the names of the benchmarks that stand alone.
const listsPrefix = "ListProducts/"

// find returns the metrics of a benchmark, nil if it did not run.
func (r report) find(name string) map[string]float64 {
	for _, res := range r.results {
		if res.name == name {
			return res.metrics
		}
	}
	return nil
}

// ratios returns the lines that a script may read, in a fixed order. One that is missing is an error.
func (r report) ratios() (string, error) {
	var lines strings.Builder
	var missing []error
	for _, p := range pairs {
		ratio, ok := r.find(p.benchmark)[unitRatio]
		if !ok {
			missing = append(missing, fmt.Errorf("benchmark %s has reported no ratio", p.benchmark))
		}
		fmt.Fprintf(&lines, "ratio %s %.2f\n", p.ratio, ratio)
	}
	return lines.String(), errors.Join(missing...)
}

// tables returns everything as Markdown.
func (r report) tables(commit string, now time.Time) string {
	var out strings.Builder
	fmt.Fprintf(&out, "Measured %s at commit `%s` with %s, GOMAXPROCS %s; %s.\n",
		now.UTC().Format("2006-01-02 15:04 UTC"), commit, runtime.Version(), r.cpus, strings.Join(r.machine, ", "))
	out.WriteString("\n| ratio | median | middle half of the rounds | rounds | ours, per second | bare, per second | " +
		"ours, µs CPU each | bare, µs CPU each |\n|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, p := range pairs {
		m := r.find(p.benchmark)
		fmt.Fprintf(&out, "| `%s` | **%.2f** | %.2f to %.2f | %.0f | %.0f | %.0f | %.0f | %.0f |\n", p.ratio, m[unitRatio],
			m[unitRatioLow], m[unitRatioHigh], m[unitRounds], m[unitRate], m[bare+unitRate], m[unitCPU], m[bare+unitCPU])
	}
	out.WriteString("\n| latency, ms | p50 | p95 | p99 | bare p50 | bare p95 | bare p99 |\n" +
		"|---|---:|---:|---:|---:|---:|---:|\n")
	for _, p := range pairs {
		m := r.find(p.benchmark)
		if _, ok := m[unitP50]; !ok {
			continue // batches have no latency of a single message
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s | %s | %s | %s |\n", p.benchmark, ms(m[unitP50]), ms(m[unitP95]), ms(m[unitP99]),
			ms(m[bare+unitP50]), ms(m[bare+unitP95]), ms(m[bare+unitP99]))
	}
	out.WriteString("\n| list, ms | p50 | p95 | p99 | per second |\n|---|---:|---:|---:|---:|\n")
	for _, res := range r.results {
		if name, ok := strings.CutPrefix(res.name, listsPrefix); ok {
			m := res.metrics
			fmt.Fprintf(&out, "| %s | %s | %s | %s | %.0f |\n", strings.ReplaceAll(name, "_", " "),
				ms(m[unitP50]), ms(m[unitP95]), ms(m[unitP99]), m[unitRate])
		}
	}
	return out.String()
}

// ms writes microseconds as milliseconds.
func ms(us float64) string { return fmt.Sprintf("%.2f", us/1000) }

// What stands between the markers is this program's; the rest of the document is people's.
const (
	beginMark = "<!-- make bench writes from here -->"
	endMark   = "<!-- to here -->"
)

// between returns the document with tables between its markers.
func between(document []byte, tables string) ([]byte, error) {
	head, rest, ok := bytes.Cut(document, []byte(beginMark))
	_, tail, ended := bytes.Cut(rest, []byte(endMark))
	if !ok || !ended {
		return nil, fmt.Errorf("the document lacks the line %s or, after it, %s", beginMark, endMark)
	}
	return fmt.Appendf(nil, "%s%s\n\n%s\n%s%s", head, beginMark, tables, endMark, tail), nil
}
