package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, system{goCommand: "go", gitCommand: "git", now: time.Now})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// system holds the programs and the clock that the program uses.
type system struct {
	goCommand, gitCommand string
	now                   func() time.Time
}

// suite is one run of go test, for benchmarks with the same -benchtime.
type suite struct {
	pattern string
	time    string   // the value of -benchtime, which for a pair covers both sides
	args    []string // of the test binary
}

// suiteBound ends a hanging suite. All suites of a section need a few minutes.
const suiteBound = 45 * time.Minute

// run runs the benchmarks of a section, writes its tables into the document, and prints the tables and then the ratios.
func run(ctx context.Context, args []string, stdout io.Writer, sys system) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stdout)
	output := flags.String("o", "docs/benchmarks.md", "document to write the tables into")
	pairTime := flags.Duration("time", 15*time.Second, "duration of the measurement of each pair")
	listTime := flags.Duration("listtime", 2*time.Second, "duration of the measurement of each list")
	writes := flags.Int("writes", 100, "number of writes after which stale reads are measured")
	backlog := flags.Bool("outbox", false, "measure only the draining of an outbox of a million messages")
	images := flags.Bool("images", false, "measure only the rendering of images")
	flood := flags.Bool("flood", false, "measure only the processing of many images; arguments follow for its tests, such as "+
		"-flood-images=60000")
	backfill := flags.Bool("backfill", false, "measure only images of clients beside a backfill; arguments follow for "+
		"its tests, such as -backfill-images=100000")
	if err := flags.Parse(args); err != nil {
		return err
	}
	document, err := os.ReadFile(*output)
	if err != nil {
		return fmt.Errorf("read document: %w", err)
	}
	c := section{begin: beginMark, ratios: mainRatios(), tables: report.tables}
	suites := []suite{
		{"^Benchmark(GetProduct|CreateProduct|Relay)$", pairTime.String(), nil},
		{"^BenchmarkListProducts$", listTime.String(), nil},
		{"^BenchmarkStaleness$", fmt.Sprintf("%dx", *writes), nil},
	}
	if *backlog {
		c = section{begin: beginBacklogMark, ratios: backlogRatios, tables: report.backlogTables}
		suites = []suite{{"^BenchmarkBacklog$", "1x", nil}}
	}
	if *images {
		c = section{begin: beginImagesMark, ratios: imageRatios, tables: report.imageTables}
		suites = []suite{{"^BenchmarkImages$", "1x", nil}}
	}
	if *flood {
		c = section{begin: beginFloodMark, ratios: floodRatios, tables: report.floodTables}
		suites = []suite{{"^BenchmarkFlood$", "1x", flags.Args()}}
	}
	if *backfill {
		c = section{begin: beginBackfillMark, ratios: backfillRatios, tables: report.backfillTables}
		suites = []suite{{"^BenchmarkBackfill$", "1x", flags.Args()}}
	}
	var printed bytes.Buffer
	for _, s := range suites {
		if err := sys.bench(ctx, s, io.MultiWriter(stdout, &printed)); err != nil {
			return fmt.Errorf("run benchmarks: %w", err)
		}
	}
	report, err := parse(&printed)
	if err != nil {
		return fmt.Errorf("read benchmarks: %w", err)
	}
	ratios, err := report.lines(c.ratios)
	if err != nil {
		return err
	}
	tables := report.heading(sys.commit(ctx), sys.now()) + c.tables(report)
	document, err = c.between(document, tables)
	if err != nil {
		return fmt.Errorf("write %s: %w", *output, err)
	}
	if err := os.WriteFile(*output, document, 0o644); err != nil { //nolint:gosec // public documentation
		return fmt.Errorf("write document: %w", err)
	}
	_, err = fmt.Fprintf(stdout, "\n%s\n%s", tables, ratios)
	return err
}

// bench runs go test in the relayTime directory, the repository.
func (sys system) bench(ctx context.Context, s suite, out io.Writer) error {
	args := []string{
		"test", "-run", "^$", "-bench", s.pattern, "-benchtime", s.time, "-timeout", suiteBound.String(), "./pkg/test/bench",
	}
	cmd := exec.CommandContext(ctx, sys.goCommand, append(append(args, "-args"), s.args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute // then the parent of the servers ends the remaining processes
	return cmd.Run()
}

// commit returns the abbreviated hash of the measured commit, or "unknown".
func (sys system) commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, sys.gitCommand, "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
