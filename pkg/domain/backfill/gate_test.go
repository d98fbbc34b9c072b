package backfill_test

import (
	"strings"
	"testing"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestGates(t *testing.T) {
	t.Parallel()
	report := backfill.Canary{
		State: backfill.CanaryComplete, Samples: 100, Done: 98, Scored: 97, Failed: 2, BytesBefore: 1000, BytesAfter: 1050,
		ScoreBefore: 80, ScoreAfter: 79,
	}
	running, empty := report, backfill.Canary{State: backfill.CanaryComplete}
	running.State = backfill.CanaryRunning
	for name, row := range map[string]struct {
		report backfill.Canary
		gates  pipeline.Gates
		want   string // the first words of each sentence
	}{
		"no_gate_needs_no_report":        {},
		"gate_needs_a_complete_report":   {running, pipeline.Gates{MaxFailedPercent: new(100.0)}, "the gates need"},
		"all_are_met":                    {report, pipeline.Gates{MaxFailedPercent: new(2.0), MaxBytesIncreasePercent: new(5.1), MinScoreDelta: new(-1.0)}, ""},
		"too_many_samples_failed":        {report, pipeline.Gates{MaxFailedPercent: new(1.9)}, "maxFailedPercent"},
		"too_many_bytes":                 {report, pipeline.Gates{MaxBytesIncreasePercent: new(4.9)}, "maxBytesIncreasePercent"},
		"score_falls_too_much":           {report, pipeline.Gates{MinScoreDelta: new(-0.9)}, "minScoreDelta"},
		"zero_is_a_gate":                 {report, pipeline.Gates{MaxFailedPercent: new(0.0), MinScoreDelta: new(0.0)}, "maxFailedPercent minScoreDelta"},
		"report_without_samples_is_none": {empty, pipeline.Gates{MaxFailedPercent: new(100.0), MaxBytesIncreasePercent: new(10000.0), MinScoreDelta: new(-100.0)}, "maxFailedPercent maxBytesIncreasePercent minScoreDelta"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unmet := row.report.Unmet(row.gates)
			for i, sentence := range unmet {
				if first := strings.Fields(row.want); len(first) != len(unmet) && row.want != "the gates need" ||
					!strings.HasPrefix(sentence, "the gates need") && !strings.HasPrefix(sentence, first[i]) {
					t.Errorf("got %q", sentence)
				}
			}
			if (len(unmet) == 0) != (row.want == "") {
				t.Errorf("got %q, want %q", unmet, row.want)
			}
		})
	}
}
