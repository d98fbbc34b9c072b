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

// command runs the program without a server.
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

func TestASchedulePrintedIsTheOneThatIsRun(t *testing.T) {
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

func TestWhatMakesNoSenseIsRefused(t *testing.T) {
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

func TestSeedsThatHaveResultsAreNotRunAgain(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	path := filepath.Join(home, ".cache", "vitrine", "chaos", "v1.jsonl")
	results, err := chaos.OpenResults(path)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(3) {
		if err := results.Add(chaos.Result{Seed: seed + 1, OK: true}); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := command(t, home, "-seeds", "3", "-version", "v1")
	if code != 0 || !strings.Contains(out, "3 of 3 seeds ok\n") {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	finding := []chaos.Finding{{Rule: "images reach a final state", Detail: "picture 1 does not"}}
	if err := results.Add(chaos.Result{Seed: 2, Findings: finding}); err != nil {
		t.Fatal(err)
	}
	code, out, errs = command(t, home, "-seeds", "3", "-version", "v1")
	if code != 1 || !strings.Contains(out, "1 of 3 seeds FAILED: 2\n") {
		t.Errorf("a seed that failed before: exit code %d, %q, %q", code, out, errs)
	}
}

func TestResultsSurviveAKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "there", "results.jsonl")
	results, err := chaos.OpenResults(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := results.Add(chaos.Result{Seed: 7, OK: true, Ready: 3}); err != nil {
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
	again, err := chaos.OpenResults(path)
	if err != nil {
		t.Fatal(err)
	}
	if one, ok := again.Of(7); !ok || !one.OK || one.Ready != 3 {
		t.Errorf("got %+v, %v", one, ok)
	}
	if _, ok := again.Of(8); ok {
		t.Error("a line that was cut short is a result")
	}
	if err := again.Add(chaos.Result{Seed: 9, OK: true}); err != nil {
		t.Fatal(err)
	}
	if again, err = chaos.OpenResults(path); err != nil {
		t.Fatal(err)
	}
	if _, ok := again.Of(9); !ok {
		t.Error("what was written after a line that was cut short is lost")
	}
}

func TestAResultIsOneLine(t *testing.T) {
	t.Parallel()
	good := chaos.Result{Seed: 7, OK: true, Faults: 11, Accepted: 80, Ready: 90, Failed: 20, Seconds: 61.23}.String()
	bad := chaos.Result{Seed: 8}.String()
	if !strings.HasPrefix(good, "seed 7    ok ") || !strings.Contains(good, "90 pictures ready,  20 failed") {
		t.Errorf("got %q", good)
	}
	if !strings.HasPrefix(bad, "seed 8    FAILED ") || strings.Contains(good+bad, "\n") {
		t.Errorf("got %q", bad)
	}
}
