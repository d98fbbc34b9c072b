package system_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/pipeline"
)

// backfillGroup is the group in which workers consume the jobs of backfills and the samples of canaries.
const backfillGroup = "vitrine.workers.backfill"

// canaryReport is the report of a canary, as vitrine backfill status -o json prints it.
type canaryReport struct {
	State                                  string
	Samples, Done, Failed, Changed, Scored int
	BytesBefore                            int64   `json:"bytes_before"`
	BytesAfter                             int64   `json:"bytes_after"`
	ScoreBefore                            float64 `json:"ssimulacra2_before"`
	ScoreAfter                             float64 `json:"ssimulacra2_after"`
	CPUSeconds                             float64 `json:"cpu_seconds"`
	Examples                               []struct{ Before, After string }
}

// vitrine runs the command, which has to succeed, and returns its standard output.
func (s *crashEnv) vitrine(args ...string) string {
	s.t.Helper()
	out, err := s.stdout(args...)
	if err != nil {
		s.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// awaitCanary waits until the canary of a backfill is complete.
func (s *crashEnv) awaitCanary(name string) (report canaryReport) {
	s.t.Helper()
	eventually(s.t, "the canary is complete", func() error {
		var b struct{ Canary canaryReport }
		out := s.vitrine("backfill", "status", name, "-o", "json")
		s.must(json.Unmarshal([]byte(out), &b))
		if report = b.Canary; report.State != "complete" {
			return fmt.Errorf("it is %+v", report)
		}
		return nil
	})
	return report
}

// TestCanaryCrash runs a canary whose worker crashes when it has stored the first sample. The report has every sample once,
// the images stay as they are, and the objects of all attempts are deleted in the end.
func TestCanaryCrash(t *testing.T) {
	t.Parallel()
	s := newCrashEnv(t, 4)
	s.start("api")
	live := s.start("worker")
	for _, path := range []string{drawingPath, photoPath} {
		p, err := s.tryPost(path, s.sources.URL+path)
		s.must(err)
		s.checkOutcome(p.ID, undisturbed)
	}
	s.stop(live)
	images := queryColumn[string](s, "SELECT row_to_json(i)::text FROM images i ORDER BY id")

	p := pipeline.Default()
	p.Spec.Renditions[0].Width = 200
	for i := range p.Spec.Renditions {
		for j := range p.Spec.Renditions[i].Formats {
			p.Spec.Renditions[i].Formats[j].Quality = 30
		}
	}
	file := filepath.Join(t.TempDir(), "changed.json")
	s.must(os.WriteFile(file, p.Document(), 0o600))
	s.vitrine("backfill", "plan", "--file", file)
	crashing := s.startWithFailpoint("worker", failpoint.SampleStored, 1)
	if out := s.vitrine("backfill", "canary", "default-1", "--samples", "10"); !strings.Contains(out, "2 samples") {
		t.Errorf("the canary is\n%s", out)
	}
	s.awaitCrash(crashing, backfillGroup)
	s.removeFromGroup(workerGroup)
	s.start("worker")
	report := s.awaitCanary("default-1")
	s.checkReport(report)
	if out := s.vitrine("backfill", "status", "default-1"); !strings.Contains(out, "SSIMULACRA2 ") ||
		!strings.Contains(out, report.Examples[0].After) || !strings.Contains(out, "of CPU time for the whole backfill") {
		t.Errorf("the status is\n%s", out)
	}
	if now := queryColumn[string](s, "SELECT row_to_json(i)::text FROM images i ORDER BY id"); !slices.Equal(now, images) {
		t.Errorf("the images were\n%s\nand are\n%s", strings.Join(images, "\n"), strings.Join(now, "\n"))
	}
	if n := queryColumn[int64](s, "SELECT count(*) FROM image_jobs")[0]; n != 0 {
		t.Errorf("%d jobs of images", n)
	}
	eventually(t, "the samples are dropped", func() error {
		if n := queryColumn[int64](s, "SELECT count(*) FROM backfill_samples")[0]; n != 0 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
	s.checkCanaryObjects()
}

// checkReport checks the report of a canary of two samples at a much lower quality.
func (s *crashEnv) checkReport(r canaryReport) {
	s.t.Helper()
	if r.Samples != 2 || r.Done != 2 || r.Failed+r.Changed != 0 || r.Scored != 2 || len(r.Examples) != 2 || r.CPUSeconds <= 0 {
		s.t.Fatalf("got %+v", r)
	}
	if r.BytesAfter <= 0 || r.BytesAfter >= r.BytesBefore || r.ScoreBefore < 50 || r.ScoreAfter > r.ScoreBefore-5 {
		s.t.Errorf("a lower quality has fewer bytes and a lower score: got %+v", r)
	}
	for _, e := range r.Examples {
		for url, cache := range map[string]string{e.Before: blob.CacheControl, e.After: blob.NoStore} {
			got := s.call(http.MethodGet, url, "")
			if got.Status != http.StatusOK || got.Header.Get("Cache-Control") != cache || len(got.Body) == 0 {
				s.t.Errorf("%s: %d with %q", url, got.Status, got.Header.Get("Cache-Control"))
			}
		}
	}
}

// checkCanaryObjects checks that every object of the canary has a scheduled deletion in a week, and goes with it.
func (s *crashEnv) checkCanaryObjects() {
	s.t.Helper()
	prefixes := queryColumn[string](s, `SELECT prefix FROM scheduled_deletions
		WHERE starts_with(prefix, 'canary/') AND due_at BETWEEN now() + interval '160 hours' AND now() + interval '168 hours'`)
	if len(prefixes) != 3 { // two samples, one of them with an attempt that crashed
		s.t.Errorf("got the prefixes %v, want three", prefixes)
	}
	keys := s.objects("canary/")
	for _, key := range keys {
		if !slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			s.t.Errorf("%s has no scheduled deletion", key)
		}
	}
	before := len(s.objects("products/"))
	s.runDeletions("canary/")
	if left := s.objects("canary/"); len(keys) < 9 || len(left) != 0 || len(s.objects("products/")) != before {
		s.t.Errorf("of %d objects these are left: %v", len(keys), left)
	}
}
