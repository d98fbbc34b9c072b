package main_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	chaos "vitrine.io/pkg/test/chaos"
)

// command runs the program without servers.
func command(t *testing.T, home string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = chaos.Command(t.Context(), args, func(name string) string {
		if name == "HOME" {
			return home
		}
		return ""
	}, &out, &errs)
	return code, out.String(), errs.String()
}

func TestCommand(t *testing.T) {
	t.Parallel()
	t.Run("print_schedule", testCommandPrintSchedule)
	t.Run("invalid_arguments", testCommandInvalidArguments)
	t.Run("seeds_with_results_are_skipped", testCommandSeedsWithResultsAreSkipped)
}

func testCommandPrintSchedule(t *testing.T) {
	t.Parallel()
	code, out, _ := command(t, "", "-seeds", "2", "-print")
	var want bytes.Buffer
	for seed := range uint64(2) {
		if err := chaos.Plan(seed+1, 25*time.Second).Print(&want); err != nil {
			t.Fatal(err)
		}
	}
	if code != 0 || out != want.String() {
		t.Errorf("exit code %d, printed\n%s\nwant\n%s", code, out, want.String())
	}
}

func testCommandInvalidArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"-seed", "1", "-seeds", "2"}, {"-seed", "x"}, {"-nonsense"}} {
		if code, out, errs := command(t, "", args...); code != 2 || out != "" || errs == "" {
			t.Errorf("%q: exit code %d, %q, %q", args, code, out, errs)
		}
	}
	if code, _, errs := command(t, "", "-help"); code != 0 || !strings.Contains(errs, "make chaos SEED=7") {
		t.Errorf("help: exit code %d, %s", code, errs)
	}
	if code, _, errs := command(t, "", "-seed", "1"); code != 3 || !strings.Contains(errs, "HOME") {
		t.Errorf("no home: exit code %d, %s", code, errs)
	}
}

func testCommandSeedsWithResultsAreSkipped(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	path := filepath.Join(home, ".cache", "vitrine", "chaos", "v1.jsonl")
	results, err := chaos.OpenResults(path)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(3) {
		schedule := chaos.Plan(seed+1, length).ID()
		if err := results.Add(chaos.Result{Seed: seed + 1, Schedule: schedule, OK: true}); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := command(t, home, "-seeds", "3", "-version", "v1")
	if code != 0 || !strings.Contains(out, "3 of 3 seeds ok\n") {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	finding := []chaos.Finding{{Rule: "images reach a final state", Detail: "image 1 does not"}}
	if err := results.Add(chaos.Result{Seed: 2, Schedule: chaos.Plan(2, length).ID(), Findings: finding}); err != nil {
		t.Fatal(err)
	}
	code, out, errs = command(t, home, "-seeds", "3", "-version", "v1")
	if code != 1 || !strings.Contains(out, "1 of 3 seeds FAILED: 2\n") {
		t.Errorf("seed with a failure: exit code %d, %q, %q", code, out, errs)
	}
}

func TestResults(t *testing.T) {
	t.Parallel()
	t.Run("truncated_line", testResultsTruncatedLine)
	t.Run("another_schedule", testResultsAnotherSchedule)
}

func testResultsAnotherSchedule(t *testing.T) {
	t.Parallel()
	results, err := chaos.OpenResults(filepath.Join(t.TempDir(), "results.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	s := chaos.Plan(7, length)
	if err := results.Add(chaos.Result{Seed: 7, Schedule: s.ID(), OK: true}); err != nil {
		t.Fatal(err)
	}
	if _, ok := results.Of(s); !ok {
		t.Error("the schedule has no result")
	}
	if _, ok := results.Of(chaos.Plan(7, length/2)); ok {
		t.Error("a result counts for another schedule of its seed")
	}
}

func testResultsTruncatedLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "there", "results.jsonl")
	results, err := chaos.OpenResults(path)
	if err != nil {
		t.Fatal(err)
	}
	seven, nine := chaos.Plan(7, length), chaos.Plan(9, length)
	if err := results.Add(chaos.Result{Seed: 7, Schedule: seven.ID(), OK: true, Ready: 3}); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"seed":8,"ok":tr`); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	reopened, err := chaos.OpenResults(path)
	if err != nil {
		t.Fatal(err)
	}
	if result, ok := reopened.Of(seven); !ok || !result.OK || result.Ready != 3 {
		t.Errorf("got %+v, %v", result, ok)
	}
	if _, ok := reopened.Of(chaos.Plan(8, length)); ok {
		t.Error("a truncated line is a result")
	}
	if err := reopened.Add(chaos.Result{Seed: 9, Schedule: nine.ID(), OK: true}); err != nil {
		t.Fatal(err)
	}
	if reopened, err = chaos.OpenResults(path); err != nil {
		t.Fatal(err)
	}
	if _, ok := reopened.Of(nine); !ok {
		t.Error("a result after a truncated line is lost")
	}
}

func TestResultString(t *testing.T) {
	t.Parallel()
	passed := chaos.Result{Seed: 7, OK: true, Faults: 11, Accepted: 80, Ready: 90, Failed: 20, Seconds: 61.23}.String()
	failed := chaos.Result{Seed: 8}.String()
	if !strings.HasPrefix(passed, "seed 7    ok ") || !strings.Contains(passed, "90 images ready,  20 failed") {
		t.Errorf("got %q", passed)
	}
	if !strings.HasPrefix(failed, "seed 8    FAILED ") || strings.Contains(passed+failed, "\n") {
		t.Errorf("got %q", failed)
	}
}
