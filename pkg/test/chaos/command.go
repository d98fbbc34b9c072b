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
	exitOK   = 0
	exitFindings  = 1 // a seed failed
	exitUsage  = 2
	exitFailed = 3 // the harness could not do its work
)

// usage is what the command says of itself.
const usage = `chaos: kills, pauses and cuts off everything while clients are at work, and shows that nothing is lost.

  make chaos SEED=7       one seed
  make chaos SEEDS=200    the seeds 1 to 200 that have no result yet for this version; it may be stopped and started again

`

// options are the command's flags.
type options struct {
	seed, seeds, from uint64
	retryFailed, print      bool
	length            time.Duration
	bin, results      string
	logs, version     string
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	flags.Uint64Var(&o.seed, "seed", 0, "run this seed, whether it has a result or not")
	flags.Uint64Var(&o.seeds, "seeds", 0, "run so many seeds, those that have no result yet")
	flags.Uint64Var(&o.from, "from", 1, "the first of them")
	flags.BoolVar(&o.retryFailed, "again", false, "run those again that failed")
	flags.BoolVar(&o.print, "print", false, "print what would happen, and run nothing")
	flags.DurationVar(&o.length, "length", 25*time.Second, "how long clients are at work")
	flags.StringVar(&o.bin, "bin", "", "directory of api, worker, codec and vitrine; empty: they are built")
	flags.StringVar(&o.results, "results", "", "file of results; empty: one for each version, in the cache")
	flags.StringVar(&o.logs, "logs", "", "directory for what failed runs leave; empty: beside the results")
	flags.StringVar(&o.version, "version", "unknown", "of the programs")
	err := flags.Parse(args)
	if err == nil && (o.seed == 0) == (o.seeds == 0) {
		err = errors.New("give a seed or a number of seeds, which begin with 1")
		fmt.Fprintln(stderr, "chaos:", err)
	}
	return o, err
}

// Command is the program: it runs seeds and prints a line for each. It returns the exit code.
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

// run runs the seeds that are to be run, and counts those that failed, now or before.
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
		known, ok := results.Of(seed)
		return o.seed == 0 && ok && (known.OK || !o.retryFailed)
	})
	if len(due) < len(seeds) {
		fmt.Fprintf(stdout, "%d of %d seeds have their results in %s\n", len(seeds)-len(due), len(seeds), o.results)
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
	var wrong []string
	for _, seed := range seeds {
		if one, _ := results.Of(seed); !one.OK {
			wrong = append(wrong, fmt.Sprint(seed))
		}
	}
	if len(wrong) > 0 {
		fmt.Fprintf(stdout, "%d of %d seeds FAILED: %s\n", len(wrong), len(seeds), strings.Join(wrong, " "))
	} else {
		fmt.Fprintf(stdout, "%d of %d seeds ok\n", len(seeds), len(seeds))
	}
	return len(wrong), nil
}

// runSeeds runs seeds one after the other on one site. A site that a run has left broken is replaced.
func (o options) runSeeds(
	ctx context.Context, seeds []uint64, results *Results, getenv func(string) string, stdout io.Writer,
) (err error) {
	var site *Backends
	defer func() {
		if site != nil {
			err = errors.Join(err, site.Close())
		}
	}()
	for _, seed := range seeds {
		if site == nil {
			if site, err = StartBackends(getenv); err != nil {
				site = nil
				return err
			}
		}
		h := Harness{
			Backends: site, Bin: o.bin, Version: o.version, Logs: o.logs, Length: o.length,
			Environ: []string{"PATH=" + getenv("PATH"), "GOCOVERDIR=" + getenv("GOCOVERDIR")},
		}
		one, err := h.Run(ctx, seed)
		if ctx.Err() != nil {
			return fmt.Errorf("stopped at seed %d: %w", seed, ctx.Err())
		}
		if err != nil {
			one.OK = false
			one.Findings = append(one.Findings, Finding{"the harness can do its work", err.Error()})
		}
		printResult(stdout, one, o.length)
		if err := results.Add(one); err != nil {
			return err
		}
		if !one.OK { // it may be the servers' fault
			err := site.Close()
			site = nil
			if err != nil {
				return fmt.Errorf("stop servers: %w", err)
			}
		}
	}
	return nil
}

// printResult prints a result, and all about it if it is bad.
func printResult(w io.Writer, r Result, length time.Duration) {
	fmt.Fprintln(w, r)
	if r.OK {
		return
	}
	const most = 5 // of each rule
	count := map[string]int{}
	for _, f := range r.Findings {
		if count[f.Rule]++; count[f.Rule] <= most {
			fmt.Fprintf(w, "  - %.1000s\n", f)
		}
	}
	for _, rule := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(w, "  %d times: %s\n", count[rule], rule)
	}
	_ = Plan(r.Seed, length).Print(w) // to a terminal nothing can be done
	fmt.Fprintf(w, "  logs: %s\n", r.Logs)
}

// cacheDir is where results and programs are kept.
func cacheDir(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "vitrine"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", errors.New("neither XDG_CACHE_HOME nor HOME says where the cache is")
	}
	return filepath.Join(home, ".cache", "vitrine"), nil
}

// build builds the programs from the sources in the working directory.
func build(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make directory for programs: %w", err)
	}
	args := []string{"build", "-o", dir + "/", "./cmd/api", "./cmd/worker", "./cmd/vitrine", "./cmd/codec"}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}
