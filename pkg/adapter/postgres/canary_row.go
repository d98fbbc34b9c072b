package postgres

import (
	"time"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
)

// canaryRow is the column canary of backfills. It is stored as JSON, so fields may be added, but not renamed. Without a
// canary it is {}.
type canaryRow struct {
	State       backfill.CanaryState `json:"state,omitempty"`
	Samples     int                  `json:"samples,omitempty"`
	Done        int                  `json:"done,omitempty"`
	Failed      int                  `json:"failed,omitempty"`
	Changed     int                  `json:"changed,omitempty"`
	Scored      int                  `json:"scored,omitempty"`
	BytesBefore int64                `json:"bytes_before,omitempty"`
	BytesAfter  int64                `json:"bytes_after,omitempty"`
	ScoreBefore float64              `json:"score_before,omitempty"`
	ScoreAfter  float64              `json:"score_after,omitempty"`
	CPUSeconds  float64              `json:"cpu_seconds,omitempty"`
	Failures    map[media.Code]int   `json:"failures,omitempty"`
	Examples    []canaryExampleRow   `json:"examples,omitempty"`
	StartedAt   time.Time            `json:"started_at,omitzero"`
	EndedAt     time.Time            `json:"ended_at,omitzero"`
}

type canaryExampleRow struct {
	ImageID     catalog.ImageID `json:"image_id"`
	Before      string          `json:"before,omitempty"`
	After       string          `json:"after"`
	BytesBefore int64           `json:"bytes_before,omitempty"`
	BytesAfter  int64           `json:"bytes_after,omitempty"`
	ScoreBefore float64         `json:"score_before,omitempty"`
	ScoreAfter  float64         `json:"score_after,omitempty"`
}

func toCanaryRow(c backfill.Canary) canaryRow {
	r := canaryRow{
		State: c.State, Samples: c.Samples, Done: c.Done, Failed: c.Failed, Changed: c.Changed, Scored: c.Scored,
		BytesBefore: c.BytesBefore, BytesAfter: c.BytesAfter, ScoreBefore: c.ScoreBefore, ScoreAfter: c.ScoreAfter,
		CPUSeconds: c.CPUSeconds, Failures: c.Failures, StartedAt: toTime(c.StartedAt), EndedAt: toTime(c.EndedAt),
	}
	for _, e := range c.Examples {
		r.Examples = append(r.Examples, canaryExampleRow(e))
	}
	return r
}

func (r canaryRow) fromRow() backfill.Canary {
	c := backfill.Canary{
		State: r.State, Samples: r.Samples, Done: r.Done, Failed: r.Failed, Changed: r.Changed, Scored: r.Scored,
		BytesBefore: r.BytesBefore, BytesAfter: r.BytesAfter, ScoreBefore: r.ScoreBefore, ScoreAfter: r.ScoreAfter,
		CPUSeconds: r.CPUSeconds, Failures: r.Failures, StartedAt: r.StartedAt.UTC(), EndedAt: r.EndedAt.UTC(),
	}
	for _, e := range r.Examples {
		c.Examples = append(c.Examples, backfill.CanaryExample(e))
	}
	return c
}

// sampleResultRow is the column result of backfill_samples. It is stored as JSON, as canaryRow is.
type sampleResultRow struct {
	BytesBefore int64          `json:"bytes_before,omitempty"`
	BytesAfter  int64          `json:"bytes_after,omitempty"`
	Scored      bool           `json:"scored,omitempty"`
	ScoreBefore float64        `json:"score_before,omitempty"`
	ScoreAfter  float64        `json:"score_after,omitempty"`
	CPUSeconds  float64        `json:"cpu_seconds,omitempty"`
	Example     sampleFilesRow `json:"example,omitzero"`
}

type sampleFilesRow struct {
	KeyBefore   string  `json:"key_before,omitempty"`
	KeyAfter    string  `json:"key_after,omitempty"`
	BytesBefore int64   `json:"bytes_before,omitempty"`
	BytesAfter  int64   `json:"bytes_after,omitempty"`
	ScoreBefore float64 `json:"score_before,omitempty"`
	ScoreAfter  float64 `json:"score_after,omitempty"`
}

func toSampleResultRow(o backfill.SampleOutcome) sampleResultRow {
	return sampleResultRow{
		BytesBefore: o.BytesBefore, BytesAfter: o.BytesAfter, Scored: o.Scored, ScoreBefore: o.ScoreBefore,
		ScoreAfter: o.ScoreAfter, CPUSeconds: o.CPUSeconds, Example: sampleFilesRow(o.Example),
	}
}

func (r sampleResultRow) fromRow(code media.Code) backfill.SampleOutcome {
	return backfill.SampleOutcome{
		Code: code, BytesBefore: r.BytesBefore, BytesAfter: r.BytesAfter, Scored: r.Scored, ScoreBefore: r.ScoreBefore,
		ScoreAfter: r.ScoreAfter, CPUSeconds: r.CPUSeconds, Example: backfill.SampleFiles(r.Example),
	}
}
