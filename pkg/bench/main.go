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

// system is what the program needs of the machine it runs on.
type system struct {
	goCommand, gitCommand string
	now                   func() time.Time
}

// suite is one call of go test: benchmarks that are given the same time.
type suite struct {
	pattern string
	time    time.Duration // that a benchmark's last and longest attempt is to take, of a pair both sides together
}

// suiteBound ends a suite that hangs. Both suites together take about four minutes.
const suiteBound = 15 * time.Minute

// run runs all benchmarks, rewrites the document and prints the ratios, which are its last lines.
func run(ctx context.Context, args []string, stdout io.Writer, sys system) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stdout)
	output := flags.String("o", "docs/benchmarks.md", "document to write the tables into")
	pairTime := flags.Duration("time", 15*time.Second, "how long each pair is measured")
	listTime := flags.Duration("listtime", 2*time.Second, "how long each list is measured")
	if err := flags.Parse(args); err != nil {
		return err
	}
	document, err := os.ReadFile(*output)
	if err != nil {
		return fmt.Errorf("read document: %w", err)
	}
	var printed bytes.Buffer
	suites := []suite{{"^Benchmark(GetProduct|CreateProduct|Relay)$", *pairTime}, {"^BenchmarkListProducts$", *listTime}}
	for _, s := range suites {
		if err := sys.bench(ctx, s, io.MultiWriter(stdout, &printed)); err != nil {
			return fmt.Errorf("run benchmarks: %w", err)
		}
	}
	report, err := parse(&printed)
	if err != nil {
		return fmt.Errorf("read benchmarks: %w", err)
	}
	ratios, err := report.ratios()
	if err != nil {
		return err
	}
	tables := report.tables(sys.commit(ctx), sys.now())
	document, err = between(document, tables)
	if err != nil {
		return fmt.Errorf("write %s: %w", *output, err)
	}
	if err := os.WriteFile(*output, document, 0o644); err != nil { //nolint:gosec // a document, for everyone
		return fmt.Errorf("write document: %w", err)
	}
	_, err = fmt.Fprintf(stdout, "\n%s\n%s", tables, ratios)
	return err
}

// bench runs go test in the working directory, the repository.
func (sys system) bench(ctx context.Context, s suite, out io.Writer) error {
	cmd := exec.CommandContext(ctx, sys.goCommand, "test", "-run", "^$", "-bench", s.pattern,
		"-benchtime", s.time.String(), "-timeout", suiteBound.String(), "./pkg/bench")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute // the servers' parent ends what is left
	return cmd.Run()
}

// commit names what was measured, as well as it is known.
func (sys system) commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, sys.gitCommand, "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
