package chart_test

import (
	"path/filepath"
	"testing"
)

// What the Job made may be lost, and the Job is done: only another one makes it again.
func TestSetupJob(t *testing.T) {
	t.Parallel()
	job := func(revision string) string {
		t.Helper()
		w, err := render(map[string]any{"setup": map[string]any{"revision": revision}}, filepath.Join(chartDir, "ci", "operators-values.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range w.objects {
			if o.Kind == "Job" {
				return o.Name
			}
		}
		t.Fatal("there is no Job")
		return ""
	}
	if job("") != job("") || job("a") != job("a") {
		t.Error("the same values are two Jobs")
	}
	if job("") == job("a") || job("a") == job("b") {
		t.Error("two revisions are one Job")
	}
}
