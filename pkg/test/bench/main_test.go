package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// header is the beginning of go test's output.
const header = `goos: linux
goarch: amd64
pkg: vitrine.io/pkg/test/bench
cpu: Some CPU @ 2.00GHz
`

// output is the output of go test.
const output = header +
	"BenchmarkGetProduct/hit-2\t200000\t95031 ns/op\t2100 bare-p50-us\t4100 bare-p95-us\t5100 bare-p99-us\t" +
	"11000 bare-ops/s\t10200 ops/s\t2400 p50-us\t4500 p95-us\t6500 p99-us\t0.9321 ratio\t0.9600 ratio-high\t" +
	"0.9000 ratio-low\t100 rounds\t71.30 cpu-us\t60.10 bare-cpu-us" + `
BenchmarkGetProduct/miss-2 	   10000	    395031 ns/op	         0.7000 ratio
BenchmarkCreateProduct/images=3-2 	   10000	    395031 ns/op	         0.5049 ratio
BenchmarkRelay/batch=500-2 	   10000	    395031 ns/op	         0.2551 ratio
goos: linux
goarch: amd64
cpu: Some CPU @ 2.00GHz
BenchmarkListProducts/one_user's_newest-2 	    1000	   1000000 ns/op	   900 p50-us	  1800 p95-us	  2700 p99-us	  4000 ops/s
BenchmarkStaleness/as_it_is-2 	 100	 1 ns/op	 0 p50-us	 0 p95-us	 0 p99-us	 0 max-us	 100 writes	 9000 reads	 0 stale
` + "BenchmarkStaleness/by_event_alone-2 \t 100\t 1 ns/op\t 106000 p50-us\t 120000 p95-us\t 130000 p99-us\t" +
	` 140000 max-us	 100 writes	 8000 reads	 0.25 stale
PASS
ok  	vitrine.io/pkg/test/bench	61.5s
`

const ratioLines = `ratio hit/bare 0.93
ratio miss/bare 0.70
ratio create/sql 0.50
ratio relay/producer 0.26
ratio stale/reads 0.00
ratio stale-by-event/reads 0.25
`

// backlogOutput is the output of go test for the section about the outbox.
const backlogOutput = header +
	"BenchmarkBacklog/beside_reads-2 \t 1\t 9 ns/op\t 0.91 ratio\t 0.88 ratio-low\t 0.95 ratio-high\t" +
	` 12 rounds	 5000 ops/s
BenchmarkBacklog/alone-2 	 1	 9 ns/op	 0.97 steady	 0.90 slowest	 1.02 heap	 14.2 heap-MB	 25000 ops/s
BenchmarkBacklog/beside_an_old_transaction-2 	 1	 9 ns/op	 0.87 steady	 0.80 slowest	 1.01 heap	 14.5 heap-MB	 21000 ops/s
`

// imagesOutput is the output of go test for the section about images.
const imagesOutput = header + `
BenchmarkImages/ceiling-2 1 9 ns/op 14.10 renditions/cpu-s 1 ratio 40 images 3 rounds 1 to-sharp
` + "BenchmarkImages/codec-2 1 9 ns/op 13.80 renditions/cpu-s 0.98 ratio 0.97 ratio-low 0.99 ratio-high 2.21 to-sharp" +
	` 8.1 MB 168.8 peak-MB 60.4 settled-MB
BenchmarkImages/worker-2 1 9 ns/op 12.60 renditions/cpu-s 0.89 ratio
BenchmarkImages/sharp-2 1 9 ns/op 6.20 renditions/cpu-s 0.44 ratio
BenchmarkImages/of_webp-2 1 9 ns/op 0.99 ratio 3.10 to-sharp 14 images
BenchmarkImages/utilization-2 1 9 ns/op 0.96 ratio
BenchmarkImages/memory-2 1 9 ns/op 1.08 ratio 60.1 first-settled-MB 64.9 last-settled-MB
BenchmarkImages/with_avif-2 1 9 ns/op 0.71 cpu-s/image 420 kB/image
`

// floodOutput is the output of go test for the section about a flood of images.
const floodOutput = header + `
BenchmarkFlood/same_host-2 1 9 ns/op 0.31 ratio 3.1 p95-s 3.4 max-s 10 ready
BenchmarkFlood/other_host-2 1 9 ns/op 0.12 ratio 1.2 p95-s 1.3 max-s 10 ready
BenchmarkFlood/queueing-2 1 9 ns/op 100000 images 0.11 commits/image 0 rollbacks/image 900 WAL-bytes/image ` +
	`0.01 records/image
BenchmarkFlood/processing-2 1 9 ns/op 15000 images 2 workers 61 ops/s 0 failed 3.20 commits/image 0.10 rollbacks/image ` +
	`4100 WAL-bytes/image 1.00 records/image
BenchmarkFlood/together-2 1 9 ns/op 3.31 commits/image 0.10 rollbacks/image 5000 WAL-bytes/image 1.01 records/image ` +
	`1.00 updates
BenchmarkFlood/table_images-2 1 9 ns/op 41.2 heap-MB 9.1 indexes-MB 100020 live-tuples 120 dead-tuples 15000 updates ` +
	`400 HOT-updates
BenchmarkFlood/table_image_jobs-2 1 9 ns/op 51.2 heap-MB 30.1 indexes-MB 85000 live-tuples 70 dead-tuples 30000 updates ` +
	`15000 HOT-updates
`

const floodLines = `ratio flood-same-host/goal 0.31
ratio flood-other-host/goal 0.12
ratio flood/failed 0.00
ratio flood/commits 3.31
ratio flood/records 1.01
ratio flood/updates 1.00
`

const imagesLines = `ratio codec-utilization 0.96
ratio codec/ceiling 0.98
ratio worker/ceiling 0.89
ratio codec/sharp 2.21
ratio rss500/rss50 1.08
`

const backlogLines = `ratio backlog/reads 0.91
ratio backlog/steady 0.97
ratio backlog/heap 1.02
ratio backlog-pinned/steady 0.87
ratio backlog-pinned/heap 1.01
`

// runOn runs the program with a shell script as the go command, and returns its output and the document.
func runOn(t *testing.T, goCommand, document string, more ...string) (stdout, written string, err error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "benchmarks.md")
	must(t, os.WriteFile(path, []byte(document), 0o600))
	command := filepath.Join(dir, "go")
	// No fork while the file is open for writing: a child of a parallel test would inherit the descriptor, and exec would fail
	// with "text file busy".
	syscall.ForkLock.RLock()
	err = os.WriteFile(command, []byte("#!/bin/sh\n"+goCommand), 0o700)
	syscall.ForkLock.RUnlock()
	must(t, err)
	var out bytes.Buffer
	now := func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	sys := system{goCommand: command, gitCommand: "/does/not/exist", now: now}
	err = run(t.Context(), append([]string{"-o", path, "-time", "3s"}, more...), &out, sys)
	left, readErr := os.ReadFile(path)
	must(t, readErr)
	return out.String(), string(left), err
}

const document = "# Title\n\n" + beginMark + "\nold\n" + endMark + "\n\nthe rest\n"

func TestReport(t *testing.T) {
	t.Parallel()
	t.Run("images_section", testReportImagesSection)
	t.Run("backlog_section", testReportBacklogSection)
	t.Run("flood_section", testReportFloodSection)
	t.Run("backfill_section", testReportBackfillSection)
	t.Run("only_text_between_markers_is_replaced", testReportOnlyTextBetweenMarkersIsReplaced)
	t.Run("missing_results_leave_document", testReportMissingResultsLeaveDocument)
	t.Run("bad_arguments_and_missing_document", testReportBadArgumentsAndMissingDocument)
	t.Run("repository_document_has_markers", testReportRepositoryDocumentHasMarkers)
}

func testReportImagesSection(t *testing.T) {
	t.Parallel()
	const other = document + "\n" + beginImagesMark + "\nolder\n" + endMark + "\n"
	stdout, written, err := runOn(t, "echo \"args: $*\"\ncat <<'END'\n"+imagesOutput+"END\n", other, "-images")
	if err != nil {
		t.Fatalf("got %v\n%s", err, stdout)
	}
	if !strings.HasSuffix(stdout, "\n\n"+imagesLines) || !strings.Contains(stdout, "-bench ^BenchmarkImages$ -benchtime 1x") {
		t.Errorf("got %s\nwant one run that ends with\n%s", stdout, imagesLines)
	}
	for _, want := range []string{
		document, "40 photographs, 3 rounds.\n", "| our codec | 13.80 | **0.98** | 0.97 to 0.99 | 8.1 | 169 | 60 |\n",
		"| webp | 14 | 0.99 | 3.10 |\n", "keeps 60 MB after 50 images and 65 MB after 500: **1.08**",
		"busy for **0.96** of the time", "| and AVIF | 0.71 | 420 |\n",
	} {
		if !strings.Contains(written, want) {
			t.Errorf("the document lacks %q:\n%s", want, written)
		}
	}
}

func testReportBacklogSection(t *testing.T) {
	t.Parallel()
	const other = document + "\n" + beginBacklogMark + "\nolder\n" + endMark + "\n"
	stdout, written, err := runOn(t, "echo \"args: $*\"\ncat <<'END'\n"+backlogOutput+"END\n", other, "-outbox")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(stdout, "\n\n"+backlogLines) || strings.Count(stdout, "args: ") != 1 ||
		!strings.Contains(stdout, "-bench ^BenchmarkBacklog$ -benchtime 1x") {
		t.Errorf("wrong arguments of go, or the output does not end with the ratios:\n%s", stdout)
	}
	for _, want := range []string{
		document, "| `backlog/reads` | **0.91** | 0.88 to 0.95 | 12 | 5000 |\n",
		"| alone | 25000 | **0.97** | 0.90 | **1.02** | 14.2 |\n",
		"| beside an open transaction that is older | 21000 | **0.87** | 0.80 | **1.01** | 14.5 |\n",
	} {
		if !strings.Contains(written, want) {
			t.Errorf("the document lacks %q:\n%s", want, written)
		}
	}
	if strings.Contains(written, "older\n") {
		t.Errorf("the document has other text too:\n%s", written)
	}
}

// backfillOutput is the output of go test for the section about a backfill.
const backfillOutput = header + `
BenchmarkBackfill/live_without-2 1 9 ns/op 480 images 0.20 p50-s 0.50 p99-s 0.60 max-s 1.08 ratio 0.04 added-s
BenchmarkBackfill/live_with-2 1 9 ns/op 470 images 0.21 p50-s 0.54 p99-s 0.70 max-s 1.08 ratio 0.04 added-s
BenchmarkBackfill/walk-2 1 9 ns/op 1000000 images 20000 matching 1 done 0 forgotten 0 failed 3 passes 31.5 ops/s 2 workers
PASS
`

func testReportBackfillSection(t *testing.T) {
	t.Parallel()
	const other = document + "\n" + beginBackfillMark + "\nolder\n" + endMark + "\n"
	stdout, written, err := runOn(t, "echo \"args: $*\"\ncat <<'END'\n"+backfillOutput+"END\n", other,
		"-backfill", "--", "-backfill-images=1000")
	if err != nil {
		t.Fatal(err)
	}
	const lines = "ratio backfill-live-p99/without 1.08\nratio backfill-live-p99/added-seconds 0.04\n" +
		"ratio backfill/done 1.00\nratio backfill/forgotten 0.00\n"
	if !strings.HasSuffix(stdout, "\n\n"+lines) || !strings.Contains(stdout, "-bench ^BenchmarkBackfill$ -benchtime 1x") ||
		!strings.Contains(stdout, " -args -backfill-images=1000\n") {
		t.Errorf("wrong arguments of go, or the output does not end with the ratios:\n%s", stdout)
	}
	for _, want := range []string{
		document, "1000000 rows of images, of which 20000 have to be made again: **1.00** of them were, in 3 passes",
		"| beside it | 470 | 0.21 | 0.54 | 0.70 |\n", "is **1.08** of that without, +0.04 s.\n",
	} {
		if !strings.Contains(written, want) {
			t.Errorf("the document lacks %q:\n%s", want, written)
		}
	}
}

func testReportFloodSection(t *testing.T) {
	t.Parallel()
	const other = document + "\n" + beginFloodMark + "\nolder\n" + endMark + "\n"
	stdout, written, err := runOn(t, "echo \"args: $*\"\ncat <<'END'\n"+floodOutput+"END\n", other,
		"-flood", "--", "-flood-images=100000")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(stdout, "\n\n"+floodLines) ||
		!strings.Contains(stdout, "-bench ^BenchmarkFlood$ -benchtime 1x") ||
		!strings.Contains(stdout, " -args -flood-images=100000\n") {
		t.Errorf("wrong arguments of go, or the output does not end with the ratios:\n%s", stdout)
	}
	for _, want := range []string{
		document, "100000 images queued; 15000 processed by 2 workers, 61 a second, 0 failed.\n",
		"| of the flood's host | 10 | 3.1 | 3.4 | **0.31** |\n", "| queued | 0.11 | 0.00 | 0.01 | 900 |\n",
		"| processed | 3.20 | 0.10 | 1.00 | 4100 |\n| together | 3.31 | 0.10 | 1.01 | 5000 |\n",
		"| `image_jobs` | 51.2 | 30.1 | 85000 | 70 | 30000 | 15000 |\n",
	} {
		if !strings.Contains(written, want) {
			t.Errorf("the document lacks %q:\n%s", want, written)
		}
	}
}

func testReportOnlyTextBetweenMarkersIsReplaced(t *testing.T) {
	t.Parallel()
	script := "case \"$*\" in *ListProducts* | *Staleness*) exit 0;; esac\necho \"args: $*\"\ncat <<'END'\n" + output + "END\n"
	stdout, written, err := runOn(t, script, document)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(stdout, "\n\n"+ratioLines) {
		t.Errorf("the output does not end with the ratios:\n%s", stdout)
	}
	want := "args: test -run ^$ -bench ^Benchmark(GetProduct|CreateProduct|Relay)$ -benchtime 3s"
	if !strings.Contains(stdout, want) {
		t.Errorf("wrong arguments of go: %s", stdout)
	}
	for _, want := range []string{
		"# Title\n\n" + beginMark + "\n", endMark + "\n\nthe rest\n",
		"Measured 2026-01-02 03:04 UTC at commit `unknown` with go1.",
		"GOMAXPROCS 2; goos: linux, goarch: amd64, cpu: Some CPU @ 2.00GHz.\n",
		"| `hit/bare` | **0.93** | 0.90 to 0.96 | 100 | 10200 | 11000 | 71 | 60 |\n",
		"| `GetProduct/hit` | 2.40 | 4.50 | 6.50 | 2.10 | 4.10 | 5.10 |\n",
		"| one user's newest | 0.90 | 1.80 | 2.70 | 4000 |\n",
		"| normal operation | 0.00 | 0.00 | 0.00 | 0.00 | 100 | 9000 | 0.00 |\n",
		"| the writer's invalidation is lost, the event corrects the cache | " +
			"106.00 | 120.00 | 130.00 | 140.00 | 100 | 8000 | 0.25 |\n",
	} {
		if !strings.Contains(written, want) {
			t.Errorf("the document lacks %q:\n%s", want, written)
		}
	}
	if strings.Contains(written, "\nold\n") || strings.Contains(written, "| `Relay") {
		t.Errorf("the document has other text too:\n%s", written)
	}
}

func testReportMissingResultsLeaveDocument(t *testing.T) {
	t.Parallel()
	printing := func(text string) string { return "cat <<'END'\n" + text + "END\n" }
	for name, row := range map[string]struct{ script, document, want string }{
		"failed_benchmark": {"echo FAIL; exit 1", document, "run benchmarks: exit status 1"},
		"no_ratio": {
			printing(strings.Replace(output, "0.5049 ratio", "0.5 other", 1)), document,
			"benchmark CreateProduct/images=3 has reported no ratio",
		},
		"no_number":   {printing(strings.Replace(output, "0.5049", "half", 1)), document, `parsing "half"`},
		"no_unit":     {printing("BenchmarkX 1 2 ns/op 3\n"), document, "a number without a unit"},
		"no_begin":    {printing(output), "# Title\n" + endMark, "the document lacks the line"},
		"no_end":      {printing(output), "# Title\n" + beginMark, "the document lacks the line"},
		"wrong_order": {printing(output), endMark + beginMark, "the document lacks the line"},
	} {
		_, written, err := runOn(t, row.script, row.document)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, row.want)
		}
		if written != row.document {
			t.Errorf("%s: the document is changed to\n%s", name, written)
		}
	}
}

func testReportBadArgumentsAndMissingDocument(t *testing.T) {
	t.Parallel()
	sys := system{goCommand: "/does/not/exist", gitCommand: "/does/not/exist", now: time.Now}
	for _, args := range [][]string{{"-nonsense"}, {"-o", filepath.Join(t.TempDir(), "none.md")}} {
		var out bytes.Buffer
		if err := run(t.Context(), args, &out, sys); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func testReportRepositoryDocumentHasMarkers(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/benchmarks.md")
	must(t, err)
	for _, c := range []section{
		{begin: beginMark}, {begin: beginBacklogMark}, {begin: beginFloodMark}, {begin: beginBackfillMark},
	} {
		if _, err := c.between(text, ""); err != nil {
			t.Error(err)
		}
	}
}
