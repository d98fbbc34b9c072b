package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vitrine.io/pkg/foundation/pipeline"
)

func TestWritePipeline(t *testing.T) {
	t.Parallel()
	t.Run("moved_fields_of_an_earlier_build_are_removed", testWritePipelineMovedFieldsOfAnEarlierBuildAreRemoved)
	t.Run("any_other_file_is_kept", testWritePipelineAnyOtherFileIsKept)
}

// written returns the file and the copy beside it after writePipeline, both "" if absent.
func written(t *testing.T, before string) (file, backup string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipeline.yaml")
	if before != "" {
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := writePipeline(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old, _ := os.ReadFile(path + ".bak")
	return string(text), string(old)
}

func testWritePipelineMovedFieldsOfAnEarlierBuildAreRemoved(t *testing.T) {
	t.Parallel()
	want := pipeline.Default()
	const moved = `"fetch":{"allowCIDRs":["127.0.0.0/8"],"allowPorts":[80],`
	before := strings.Replace(string(want.Document()), `"fetch":{`, moved, 1)
	file, backup := written(t, before)
	got, err := pipeline.Parse([]byte(file))
	if err != nil || string(got.Document()) != string(want.Document()) {
		t.Errorf("got %v, %s", err, file)
	}
	if backup != before {
		t.Errorf("the copy is %q", backup)
	}
}

func testWritePipelineAnyOtherFileIsKept(t *testing.T) {
	t.Parallel()
	valid := string(pipeline.Default().Document())
	for _, before := range []string{
		valid,
		"nonsense",
		strings.Replace(valid, `"fetch":{`, `"fetch":{"allowCIDRs":[],"perhost":1,`, 1),
		strings.Replace(valid, `"fetch":{`, `"fetch":{"allowCIDRs":[],`, 1) + "\n---\n" + valid,
	} {
		if file, backup := written(t, before); file != before || backup != "" {
			t.Errorf("%s\nbecame %s, with a copy %q", before, file, backup)
		}
	}
	if file, _ := written(t, ""); file != valid {
		t.Errorf("got %s", file)
	}
}
