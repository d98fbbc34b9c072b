package pipeline_test

import (
	"testing"
	"time"

	"vitrine.io/pkg/foundation/pipeline"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	if wrong := (pipeline.Config{Poll: time.Second}).Validate(); wrong != nil {
		t.Errorf("got %v, want none", wrong)
	}
	if wrong := (pipeline.Config{}).Validate(); len(wrong) != 1 || wrong[0].Path != "POLL" {
		t.Errorf("got %v, want POLL", wrong)
	}
}
