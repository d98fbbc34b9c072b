package pipeline_test

import (
	"os"
	"path/filepath"
	"testing"

	"vitrine.io/pkg/pipeline"
)

func TestConfigLoad(t *testing.T) {
	t.Parallel()
	if got, err := (pipeline.Config{}).Load(); err != nil || got.Hash() != pipeline.Default().Hash() {
		t.Errorf("no file: got %s, %v, want the default", got.Hash(), err)
	}
	file := filepath.Join(t.TempDir(), "pipeline.yaml")
	want := pipeline.Default()
	want.Spec.Renditions = want.Spec.Renditions[2:]
	if err := os.WriteFile(file, want.Document(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := (pipeline.Config{File: file}).Load(); err != nil || got.Hash() != want.Hash() {
		t.Errorf("a file: got %s, %v, want %s", got.Hash(), err, want.Hash())
	}
	if _, err := (pipeline.Config{File: file + ".gone"}).Load(); err == nil {
		t.Error("a missing file must be an error")
	}
}
