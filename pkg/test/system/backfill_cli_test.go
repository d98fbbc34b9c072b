package system_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/catalogtest"
)

// backfillCLI is a database with a pipeline in force, and the command.
type backfillCLI struct {
	*catalogtest.Catalog
	inForce, changed string // files
}

func newBackfillCLI(t *testing.T) *backfillCLI {
	t.Helper()
	c := &backfillCLI{Catalog: catalogtest.New(t, 3)}
	p := pipeline.Default()
	c.inForce = c.write("in-force.json", p)
	r := pipeline.NewRevision(p)
	c.Must(c.Store.RecordHeartbeat(t.Context(), pipeline.Report{Role: "api", Instance: "a", Revision: r.ID(), Hash: r.Hash()}))
	p.Spec.Renditions[0].Width, p.Spec.Limits.MaxBytes = 400, 50<<20
	c.changed = c.write("changed.json", p)
	return c
}

func (c *backfillCLI) write(name string, p pipeline.Pipeline) string {
	c.Helper()
	file := filepath.Join(c.TempDir(), name)
	c.Must(os.WriteFile(file, p.Document(), 0o600))
	return file
}

// run runs the command, which has to succeed, and returns its output.
func (c *backfillCLI) run(args ...string) string {
	c.Helper()
	out, err := cli(c.T, []string{"VITRINE_POSTGRES_DSN=" + c.DSN}, "vitrine", args...)
	if err != nil {
		c.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// refuse runs the command, which has to fail and to mention every one of the texts.
func (c *backfillCLI) refuse(args []string, mentions ...string) {
	c.Helper()
	out, err := cli(c.T, []string{"VITRINE_POSTGRES_DSN=" + c.DSN}, "vitrine", args...)
	if err == nil {
		c.Errorf("%v: it succeeded\n%s", args, out)
	}
	for _, want := range mentions {
		if !strings.Contains(out, want) {
			c.Errorf("%v: %q is not mentioned in\n%s", args, want, out)
		}
	}
}

// state returns a backfill's state in the JSON form.
func (c *backfillCLI) state(name string) (state, suspended string) {
	c.Helper()
	var b struct{ State, Suspended string }
	if err := json.Unmarshal([]byte(c.run("backfill", "status", name, "-o", "json")), &b); err != nil {
		c.Fatal(err)
	}
	return b.State, b.Suspended
}

func TestBackfillCommand(t *testing.T) {
	t.Parallel()
	t.Run("difference_shows_fields_images_and_cost", testBackfillDifference)
	t.Run("plan_approve_suspend_resume_cancel", testBackfillLifecycle)
	t.Run("mistakes_name_their_field", testBackfillMistakes)
	t.Run("backfill_of_a_resource_can_only_be_suspended", testBackfillOfResource)
}

func testBackfillDifference(t *testing.T) {
	t.Parallel()
	c := newBackfillCLI(t)
	out := c.run("pipeline", "diff", c.changed)
	for _, want := range []string{
		"spec.limits.maxBytes: ", "spec.renditions[thumb].width: 320 -> 400", "too_large", "0 images, from a sample of 3 ids",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	var diff struct {
		Changes []struct{ Path string }
		Plan    *struct{ Sampled int }
	}
	if err := json.Unmarshal([]byte(c.run("pipeline", "diff", c.changed, "-o", "json")), &diff); err != nil ||
		len(diff.Changes) != 2 || diff.Plan == nil {
		t.Errorf("got %+v, %v", diff, err)
	}
	if out := c.run("pipeline", "diff", c.changed, "--from", c.changed); !strings.Contains(out, "no existing image") {
		t.Errorf("no difference shows\n%s", out)
	}
	file, err := os.ReadFile(c.changed)
	c.Must(err)
	out, err = cliReading(t, string(file), []string{"VITRINE_POSTGRES_DSN=" + c.DSN}, "vitrine", "pipeline", "diff", "-")
	if err != nil || !strings.Contains(out, "width: 320 -> 400") {
		t.Errorf("from stdin: %v\n%s", err, out)
	}
}

func testBackfillLifecycle(t *testing.T) {
	t.Parallel()
	c := newBackfillCLI(t)
	out := c.run("backfill", "plan", "--file", c.changed, "--window", "mon-fri 22:00-06:00", "--time-zone", "Europe/Berlin",
		"--on-missing", "skip")
	if !strings.Contains(out, "0 of them without an original") || !strings.Contains(out, "skipped") {
		t.Errorf("the plan is\n%s", out)
	}
	if !strings.Contains(out, "default-1") || !strings.Contains(out, "mon,tue,wed,thu,fri 22:00-06:00 Europe/Berlin") {
		t.Errorf("the plan is\n%s", out)
	}
	c.run("backfill", "approve", "default-1")
	for _, step := range []struct{ verb, state, suspended string }{
		{"suspend", "approved", "operator"}, {"resume", "approved", ""}, {"cancel", "cancelled", ""},
	} {
		c.run("backfill", step.verb, "default-1")
		if state, suspended := c.state("default-1"); state != step.state || suspended != step.suspended {
			t.Errorf("%s: it is %s, %q", step.verb, state, suspended)
		}
	}
	c.refuse([]string{"backfill", "resume", "default-1"}, "state", "cancelled")
	c.run("backfill", "plan", "--status", "failed", "--code", "timeout")
	if out := c.run("backfill", "status"); !strings.Contains(out, "default-2") || strings.Count(out, "\n") != 3 {
		t.Errorf("the list is\n%s", out)
	}
}

func testBackfillMistakes(t *testing.T) {
	t.Parallel()
	c := newBackfillCLI(t)
	c.refuse([]string{"backfill", "plan", "--status", "pending", "--code", "cosmic_rays", "--rate", "0", "--max-in-flight", "0",
		"--time-zone", "Mars", "--failure-threshold", "101", "--on-missing", "panic"},
		"status: ", "on_missing: ", "code: ", "rate: ", "max_in_flight: ", "time_zone: ", "failure_threshold: ")
	c.refuse([]string{"backfill", "plan", "--window", "noon"}, "--window")
	c.refuse([]string{"backfill", "plan", "--requested-before", "yesterday"}, "--requested-before")
	c.refuse([]string{"backfill", "plan", "-o", "yaml"}, "--output")
	c.refuse([]string{"backfill", "plan"}, "there is no other pipeline", "--from")
	c.refuse([]string{"backfill", "plan", "--file", c.inForce, "--from", c.inForce}, "affects no existing image")
	c.refuse([]string{"backfill", "status", "default-7"}, "default-7")
	c.run("backfill", "plan", "--file", c.changed)
	c.refuse([]string{"backfill", "approve", "default-1", "--hash", "abc"}, "approved_hash")
	c.refuse([]string{"backfill", "canary", "default-1", "--samples", "1001"}, "samples: ")
	c.refuse([]string{"backfill", "canary", "default-1"}, "samples: ", "selects no image")
}

func testBackfillOfResource(t *testing.T) {
	t.Parallel()
	c := newBackfillCLI(t)
	_, err := backfill.Manager{By: backfill.Resource, ManagerDeps: backfill.ManagerDeps{
		Backfills: c.Store, Images: c.Store, Sampler: c.Store, Pipelines: c.Store,
	}}.Propose(t.Context(), backfill.Proposal{
		Target: pipeline.NewRevision(pipeline.Default()), Selection: backfill.Selection{Kind: backfill.Renditions},
		Pace: backfill.DefaultPace(), ResourceUID: "uid", Generation: 1,
	})
	c.Must(err)
	for _, verb := range []string{"canary", "approve", "suspend", "resume", "cancel"} {
		c.refuse([]string{"backfill", verb, "default-1"}, "managed_by")
	}
	c.run("backfill", "suspend", "default-1", "--force")
	if _, suspended := c.state("default-1"); suspended != "operator" {
		t.Errorf("it is suspended by %q", suspended)
	}
}
