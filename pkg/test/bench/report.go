package main

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The units of the benchmarks, in addition to Go's ns/op. Latencies, in microseconds, are those of single operations at the
// client.
const (
	unitRatio     = "ratio"      // median over the rounds of our throughput / the bare one's
	unitRatioLow  = "ratio-low"  // first quartile of the rounds
	unitRatioHigh = "ratio-high" // third quartile of the rounds
	unitRounds    = "rounds"
	unitRate      = "ops/s"
	unitCPU       = "cpu-us" // of the benchmark's process for one operation, clients included
	unitP50       = "p50-us"
	unitP95       = "p95-us"
	unitP99       = "p99-us"
	unitMax       = "max-us"
	unitWrites    = "writes"
	unitReads     = "reads"
	unitStale     = "stale"   // the share of the reads
	unitSteady    = "steady"  // rate of the last tenth / of the first
	unitSlowest   = "slowest" // rate of the slowest tenth / of the fastest
	unitHeap      = "heap"    // maximum after any tenth / after the first
	unitHeapMB    = "heap-MB"
	bare          = "bare-" // prefix of a unit: that of the bare side

	unitRenditions = "renditions/cpu-s"
	unitToSharp    = "to-sharp" // median over the rounds of renditions/cpu-s, divided by sharp's
	unitImages     = "images"
	unitMB         = "MB" // of all renditions of a round
	unitPeakMB     = "peak-MB"
	unitSettledMB  = "settled-MB"
	unitCPUEach    = "cpu-s/image"
	unitKBEach     = "kB/image"

	unitP95Seconds = "p95-s"
	unitMaxSeconds = "max-s"
	unitReady      = "ready" // the second user's images
	unitFailed     = "failed"
	unitWorkers    = "workers"
	unitCommits    = "commits/image"
	unitRollbacks  = "rollbacks/image"
	unitWAL        = "WAL-bytes/image"
	unitRecords    = "records/image" // in the topic of jobs
	unitUpdates    = "updates"       // of a table's rows; together: of images, for each image
	unitHOT        = "HOT-updates"
	unitIndexesMB  = "indexes-MB"
	unitLive       = "live-tuples"
	unitDead       = "dead-tuples"
)

// floodGoal is the longest time from accepted to ready, for 95 % of a user's few images beside a flood of another user.
const floodGoal = 10 * time.Second

// pairs are the benchmarks with two sides, and the names of their ratios.
var pairs = []ratio{
	{"GetProduct/hit", unitRatio, "hit/bare"},
	{"GetProduct/miss", unitRatio, "miss/bare"},
	{"CreateProduct/images=3", unitRatio, "create/sql"},
	{"Relay/batch=500", unitRatio, "relay/producer"},
}

// ratio is an output line for scripts: the value of a benchmark in a unit, under a name.
type ratio struct{ benchmark, unit, name string }

// staleness are the benchmarks of stale reads, with their labels in the table.
var staleness = []struct{ benchmark, what string }{
	{"Staleness/as_it_is", "normal operation"},
	{"Staleness/by_event_alone", "the writer's invalidation is lost, the event corrects the cache"},
}

// mainRatios are the ratios of the first section.
func mainRatios() []ratio {
	return append(slices.Clone(pairs),
		ratio{"Staleness/as_it_is", unitStale, "stale/reads"},
		ratio{"Staleness/by_event_alone", unitStale, "stale-by-event/reads"})
}

// backlogRatios are the ratios of the section about the outbox.
var backlogRatios = []ratio{
	{"Backlog/beside_reads", unitRatio, "backlog/reads"},
	{"Backlog/alone", unitSteady, "backlog/steady"},
	{"Backlog/alone", unitHeap, "backlog/heap"},
	{"Backlog/beside_an_old_transaction", unitSteady, "backlog-pinned/steady"},
	{"Backlog/beside_an_old_transaction", unitHeap, "backlog-pinned/heap"},
}

// imageRatios are the ratios of the section about images.
var imageRatios = []ratio{
	{"Images/utilization", unitRatio, "codec-utilization"},
	{"Images/codec", unitRatio, "codec/ceiling"},
	{"Images/worker", unitRatio, "worker/ceiling"},
	{"Images/codec", unitToSharp, "codec/sharp"},
	{"Images/memory", unitRatio, "rss500/rss50"},
}

// floodRatios are the ratios of the section about a flood of images.
var floodRatios = []ratio{
	{"Flood/same_host", unitRatio, "flood-same-host/goal"},
	{"Flood/other_host", unitRatio, "flood-other-host/goal"},
	{"Flood/processing", unitFailed, "flood/failed"},
	{"Flood/together", unitCommits, "flood/commits"},
	{"Flood/together", unitRecords, "flood/records"},
	{"Flood/together", unitUpdates, "flood/updates"},
}

// listsPrefix is the prefix of the list benchmarks, which have one side only.
const listsPrefix = "ListProducts/"

// find returns the metrics of a benchmark, or nil if there is no result.
func (r report) find(name string) map[string]float64 {
	for _, res := range r.results {
		if res.name == name {
			return res.metrics
		}
	}
	return nil
}

// lines returns the output lines for scripts, in a fixed order. A missing value is an error.
func (r report) lines(ratios []ratio) (string, error) {
	var lines strings.Builder
	var missing []error
	for _, p := range ratios {
		value, ok := r.find(p.benchmark)[p.unit]
		if !ok {
			missing = append(missing, fmt.Errorf("benchmark %s has reported no %s", p.benchmark, p.unit))
		}
		fmt.Fprintf(&lines, "ratio %s %.2f\n", p.name, value)
	}
	return lines.String(), errors.Join(missing...)
}

// heading returns the time, the commit and the machine of the measurement.
func (r report) heading(commit string, now time.Time) string {
	return fmt.Sprintf("Measured %s at commit `%s` with %s, GOMAXPROCS %s; %s.\n",
		now.UTC().Format("2006-01-02 15:04 UTC"), commit, runtime.Version(), r.cpus, strings.Join(r.machine, ", "))
}

// tables returns the tables of the first section, in Markdown.
func (r report) tables() string {
	var out strings.Builder
	out.WriteString("\n| ratio | median | middle half of the rounds | rounds | ours, per second | bare, per second | " +
		"ours, µs CPU each | bare, µs CPU each |\n|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, p := range pairs {
		m := r.find(p.benchmark)
		fmt.Fprintf(&out, "| `%s` | **%.2f** | %.2f to %.2f | %.0f | %.0f | %.0f | %.0f | %.0f |\n", p.name, m[unitRatio],
			m[unitRatioLow], m[unitRatioHigh], m[unitRounds], m[unitRate], m[bare+unitRate], m[unitCPU], m[bare+unitCPU])
	}
	out.WriteString("\n| latency, ms | p50 | p95 | p99 | bare p50 | bare p95 | bare p99 |\n" +
		"|---|---:|---:|---:|---:|---:|---:|\n")
	for _, p := range pairs {
		m := r.find(p.benchmark)
		if _, ok := m[unitP50]; !ok {
			continue // a batch has no latency of single operations
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
	out.WriteString("\n| staleness, ms after the acknowledgement | p50 | p95 | p99 | max | writes | reads | of them stale |\n" +
		"|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, row := range staleness {
		m := r.find(row.benchmark)
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s | %.0f | %.0f | %.2f |\n", row.what, ms(m[unitP50]), ms(m[unitP95]),
			ms(m[unitP99]), ms(m[unitMax]), m[unitWrites], m[unitReads], m[unitStale])
	}
	return out.String()
}

// backlogTables returns the tables of the section about the outbox, in Markdown.
func (r report) backlogTables() string {
	var out strings.Builder
	m := r.find("Backlog/beside_reads")
	out.WriteString("\n| beside reads | median | middle half of the rounds | rounds | messages per second |\n" +
		"|---|---:|---:|---:|---:|\n")
	fmt.Fprintf(&out, "| `backlog/reads` | **%.2f** | %.2f to %.2f | %.0f | %.0f |\n", m[unitRatio], m[unitRatioLow],
		m[unitRatioHigh], m[unitRounds], m[unitRate])
	out.WriteString("\n| a million messages, at full speed | messages per second | last tenth / first | " +
		"slowest tenth / fastest | maximum memory / after the first tenth | MB after the first tenth |\n" +
		"|---|---:|---:|---:|---:|---:|\n")
	for _, row := range []struct{ benchmark, what string }{
		{"Backlog/alone", "alone"}, {"Backlog/beside_an_old_transaction", "beside an open transaction that is older"},
	} {
		m := r.find(row.benchmark)
		fmt.Fprintf(&out, "| %s | %.0f | **%.2f** | %.2f | **%.2f** | %.1f |\n", row.what, m[unitRate], m[unitSteady],
			m[unitSlowest], m[unitHeap], m[unitHeapMB])
	}
	return out.String()
}

// imageTables returns the tables of the section about images, in Markdown.
func (r report) imageTables() string {
	var out strings.Builder
	m := r.find("Images/ceiling")
	fmt.Fprintf(&out, "\n%.0f photographs, %.0f rounds.\n\n", m[unitImages], m[unitRounds])
	out.WriteString("| | renditions per CPU second | of the ceiling | minimum and maximum of the rounds | MB of renditions | " +
		"peak memory, MB | memory at rest, MB |\n|---|---:|---:|---:|---:|---:|---:|\n")
	for _, row := range []struct{ side, what string }{
		{"ceiling", "C loop over libvips"}, {"codec", "our codec"}, {"worker", "our worker with two codecs"}, {"sharp", "sharp"},
	} {
		m := r.find("Images/" + row.side)
		fmt.Fprintf(&out, "| %s | %.2f | **%.2f** | %.2f to %.2f | %.1f | %.0f | %.0f |\n", row.what, m[unitRenditions],
			m[unitRatio], m[unitRatioLow], m[unitRatioHigh], m[unitMB], m[unitPeakMB], m[unitSettledMB])
	}
	out.WriteString("\n| sources | photographs | our codec, of the ceiling | our codec, of sharp |\n|---|---:|---:|---:|\n")
	for _, res := range r.results {
		if format, ok := strings.CutPrefix(res.name, "Images/of_"); ok {
			fmt.Fprintf(&out, "| %s | %.0f | %.2f | %.2f |\n", format, res.metrics[unitImages], res.metrics[unitRatio],
				res.metrics[unitToSharp])
		}
	}
	m = r.find("Images/memory")
	fmt.Fprintf(&out, "\nA codec keeps %.0f MB after 50 images and %.0f MB after 500: **%.2f**. The worker's codecs were "+
		"busy for **%.2f** of the time.\n", m["first-"+unitSettledMB], m["last-"+unitSettledMB], m[unitRatio],
		r.find("Images/utilization")[unitRatio])
	out.WriteString("\n| pipeline | CPU seconds per image | kB per image |\n|---|---:|---:|\n")
	for _, row := range []struct{ variant, what string }{
		{"as_it_is", "default: WebP and JPEG"}, {"with_avif", "and AVIF"}, {"with_targets", "targets of 70 instead of qualities"},
	} {
		m := r.find("Images/" + row.variant)
		fmt.Fprintf(&out, "| %s | %.2f | %.0f |\n", row.what, m[unitCPUEach], m[unitKBEach])
	}
	return out.String()
}

// floodTables returns the tables of the section about a flood, in Markdown.
func (r report) floodTables() string {
	var out strings.Builder
	queued, done := r.find("Flood/queueing"), r.find("Flood/processing")
	fmt.Fprintf(&out, "\n%.0f images queued; %.0f processed by %.0f workers, %.0f a second, %.0f failed.\n\n",
		queued[unitImages], done[unitImages], done[unitWorkers], done[unitRate], done[unitFailed])
	out.WriteString("| ten images of the second user | ready | accepted to ready, p95, s | max, s | p95 / goal |\n" +
		"|---|---:|---:|---:|---:|\n")
	for _, row := range []struct{ benchmark, what string }{
		{"Flood/same_host", "of the flood's host"}, {"Flood/other_host", "of another host"},
	} {
		m := r.find(row.benchmark)
		fmt.Fprintf(&out, "| %s | %.0f | %.1f | %.1f | **%.2f** |\n", row.what, m[unitReady], m[unitP95Seconds],
			m[unitMaxSeconds], m[unitRatio])
	}
	out.WriteString("\n| for each image | commits | rollbacks | records of jobs | bytes of WAL |\n|---|---:|---:|---:|---:|\n")
	for _, row := range []struct{ benchmark, what string }{
		{"Flood/queueing", "queued"}, {"Flood/processing", "processed"}, {"Flood/together", "together"},
	} {
		m := r.find(row.benchmark)
		fmt.Fprintf(&out, "| %s | %.2f | %.2f | %.2f | %.0f |\n", row.what, m[unitCommits], m[unitRollbacks], m[unitRecords],
			m[unitWAL])
	}
	out.WriteString("\n| table, at the end | heap, MB | indexes, MB | live tuples | dead tuples | updates | of them HOT |\n" +
		"|---|---:|---:|---:|---:|---:|---:|\n")
	for _, name := range []string{"images", "image_jobs"} {
		m := r.find("Flood/table_" + name)
		fmt.Fprintf(&out, "| `%s` | %.1f | %.1f | %.0f | %.0f | %.0f | %.0f |\n", name, m[unitHeapMB], m[unitIndexesMB],
			m[unitLive], m[unitDead], m[unitUpdates], m[unitHOT])
	}
	return out.String()
}

// ms formats microseconds as milliseconds.
func ms(us float64) string { return fmt.Sprintf("%.2f", us/1000) }

// section is a part of the document that this program writes, between two markers. People write the rest.
type section struct {
	begin  string
	ratios []ratio
	tables func(report) string
}

const (
	beginMark         = "<!-- make bench writes from here -->"
	beginBacklogMark  = "<!-- make bench-outbox writes from here -->"
	beginImagesMark   = "<!-- make bench-images writes from here -->"
	beginFloodMark    = "<!-- make bench-flood writes from here -->"
	beginBackfillMark = "<!-- make bench-backfill writes from here -->"
	endMark           = "<!-- to here -->"
)

// between returns the document with tables between the section's markers.
func (c section) between(document []byte, tables string) ([]byte, error) {
	head, rest, ok := bytes.Cut(document, []byte(c.begin))
	_, tail, ended := bytes.Cut(rest, []byte(endMark))
	if !ok || !ended {
		return nil, fmt.Errorf("the document lacks the line %s or, after it, %s", c.begin, endMark)
	}
	return fmt.Appendf(nil, "%s%s\n\n%s\n%s%s", head, c.begin, tables, endMark, tail), nil
}
