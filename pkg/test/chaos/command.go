package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Exit codes of the command.
const (
	exitOK       = 0
	exitFindings = 1 // a seed failed
	exitUsage    = 2
	exitFailed   = 3 // the harness itself failed
)

// usage is the text of -help.
const usage = `chaos: kills, pauses and disconnects every process while clients are active, and checks that no data is lost.

  make chaos SEED=7       one seed
  make chaos SEEDS=200    the seeds 1 to 200 that have no result yet for this version; can be interrupted and resumed

`

// options are the command's flags.
type options struct {
	seed, seeds, from  uint64
	retryFailed, print bool
	length             time.Duration
	bin, results       string
	logs, version      string
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	flags.Uint64Var(&o.seed, "seed", 0, "run this seed, even if it has a result")
	flags.Uint64Var(&o.seeds, "seeds", 0, "number of seeds; those with a result are skipped")
	flags.Uint64Var(&o.from, "from", 1, "first of the -seeds seeds")
	flags.BoolVar(&o.retryFailed, "retry-failed", false, "also run seeds whose last result is a failure")
	flags.BoolVar(&o.print, "print", false, "print the schedules and exit")
	flags.DurationVar(&o.length, "length", 25*time.Second, "how long clients are active")
	flags.StringVar(&o.bin, "bin", "", "directory of api, worker, codec and vitrine; empty: build them")
	flags.StringVar(&o.results, "results", "", "file of results; empty: a file for each version, in the cache directory")
	flags.StringVar(&o.logs, "logs", "", "directory for the logs of failed runs; empty: logs/ next to the results")
	flags.StringVar(&o.version, "version", "unknown", "version of the programs")
	err := flags.Parse(args)
	if err == nil && (o.seed == 0) == (o.seeds == 0) {
		err = errors.New("give either -seed or -seeds, not 0")
		fmt.Fprintln(stderr, "chaos:", err)
	}
	return o, err
}

// Command runs the program: it runs seeds and prints one line for each. It returns the exit code: 0 if all seeds passed, 1
// if a seed failed, 2 for wrong flags, 3 if the harness itself failed.
func Command(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	}
	seeds := []uint64{o.seed}
	if o.seed == 0 {
		seeds = seeds[:0]
		for seed := o.from; seed < o.from+o.seeds; seed++ {
			seeds = append(seeds, seed)
		}
	}
	if o.print {
		for _, seed := range seeds {
			if err := Plan(seed, o.length).Print(stdout); err != nil {
				return exitFailed
			}
		}
		return exitOK
	}
	failed, err := o.run(ctx, seeds, getenv, stdout)
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "chaos:", err)
		return exitFailed
	case failed > 0:
		return exitFindings
	default:
		return exitOK
	}
}

// run runs the seeds that have no result yet, and returns the number of seeds whose last result is a failure.
func (o options) run(
	ctx context.Context, seeds []uint64, getenv func(string) string, stdout io.Writer,
) (failed int, err error) {
	cache, err := cacheDir(getenv)
	if err != nil {
		return 0, err
	}
	if o.results == "" {
		o.results = filepath.Join(cache, "chaos", o.version+".jsonl")
	}
	if o.logs == "" {
		o.logs = filepath.Join(filepath.Dir(o.results), "logs")
	}
	results, err := OpenResults(o.results)
	if err != nil {
		return 0, err
	}
	due := slices.DeleteFunc(slices.Clone(seeds), func(seed uint64) bool {
		known, ok := results.Of(Plan(seed, o.length))
		return o.seed == 0 && ok && (known.OK || !o.retryFailed)
	})
	if len(due) < len(seeds) {
		fmt.Fprintf(stdout, "%d of %d seeds already have a result in %s\n", len(seeds)-len(due), len(seeds), o.results)
	}
	if len(due) > 0 {
		if o.bin == "" {
			o.bin = filepath.Join(cache, "chaos", "bin")
			fmt.Fprintf(stdout, "building the programs into %s\n", o.bin)
			if err := build(ctx, o.bin); err != nil {
				return 0, err
			}
		}
		if err := o.runSeeds(ctx, due, results, getenv, stdout); err != nil {
			return 0, err
		}
	}
	var failures []string
	for _, seed := range seeds {
		if result, _ := results.Of(Plan(seed, o.length)); !result.OK {
			failures = append(failures, fmt.Sprint(seed))
		}
	}
	if len(failures) > 0 {
		fmt.Fprintf(stdout, "%d of %d seeds FAILED: %s\n", len(failures), len(seeds), strings.Join(failures, " "))
	} else {
		fmt.Fprintf(stdout, "%d of %d seeds ok\n", len(seeds), len(seeds))
	}
	return len(failures), nil
}

// runSeeds runs seeds one after the other on the same servers. After a failed run the servers are replaced, because their
// state is unknown.
func (o options) runSeeds(
	ctx context.Context, seeds []uint64, results *Results, getenv func(string) string, stdout io.Writer,
) (err error) {
	var backends *Backends
	defer func() {
		if backends != nil {
			err = errors.Join(err, backends.Close())
		}
	}()
	for _, seed := range seeds {
		if backends == nil {
			if backends, err = StartBackends(getenv); err != nil {
				backends = nil
				return err
			}
		}
		h := Harness{
			Backends: backends, Bin: o.bin, Version: o.version, Logs: o.logs, Length: o.length,
			Environ: []string{"PATH=" + getenv("PATH"), "GOCOVERDIR=" + getenv("GOCOVERDIR")},
		}
		result, err := h.Run(ctx, seed)
		if ctx.Err() != nil {
			return fmt.Errorf("stopped at seed %d: %w", seed, ctx.Err())
		}
		if err != nil {
			result.OK = false
			result.Findings = append(result.Findings, Finding{"the harness works", err.Error()})
		}
		printResult(stdout, result, o.length)
		if err := results.Add(result); err != nil {
			return err
		}
		if !result.OK {
			err := backends.Close()
			backends = nil
			if err != nil {
				return fmt.Errorf("stop servers: %w", err)
			}
		}
	}
	return nil
}

// printResult prints a result. For a failure it adds the findings, at most maxPerRule for each rule, and the schedule.
func printResult(w io.Writer, r Result, length time.Duration) {
	fmt.Fprintln(w, r)
	if r.OK {
		return
	}
	const maxPerRule = 5
	count := map[string]int{}
	for _, f := range r.Findings {
		if count[f.Rule]++; count[f.Rule] <= maxPerRule {
			fmt.Fprintf(w, "  - %.1000s\n", f)
		}
	}
	for _, rule := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(w, "  %d findings: %s\n", count[rule], rule)
	}
	_ = Plan(r.Seed, length).Print(w) // an error of the terminal cannot be reported
	fmt.Fprintf(w, "  logs: %s\n", r.Logs)
}

// cacheDir returns the directory of results and built programs.
func cacheDir(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "vitrine"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", errors.New("cannot find the cache directory: neither XDG_CACHE_HOME nor HOME is set")
	}
	return filepath.Join(home, ".cache", "vitrine"), nil
}

// build builds the programs from the sources in the working directory.
func build(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("create directory for programs: %w", err)
	}
	args := []string{"build", "-o", dir + "/", "./cmd/api", "./cmd/worker", "./cmd/vitrine", "./cmd/codec"}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}
