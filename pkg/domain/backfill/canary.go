package backfill

import (
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
)

// Canary is the trial of a proposed backfill: random images that it selects are rendered with its target into objects of
// their own, which no client sees.
type Canary struct {
	State   CanaryState
	Samples int // images that are tried
	Done    int // rendered, and compared
	Failed  int // failed, by any code of Failures
	Changed int // the source is not the one that the present renditions were made from: not scored

	BytesBefore, BytesAfter int64   // of all renditions of the samples that are done
	ScoreBefore, ScoreAfter float64 // mean SSIMULACRA2 against the source; 100 is identical
	CPUSeconds              float64 // of the codec, for the samples that are done
	Failures                map[media.Code]int
	Examples                []CanaryExample // at most five

	StartedAt, EndedAt time.Time
}

// CanaryState is the state of a Canary.
type CanaryState string

// The values of CanaryState.
const (
	NoCanary       CanaryState = ""
	CanaryRunning  CanaryState = "running"
	CanaryComplete CanaryState = "complete" // every sample has an outcome
)

// CanaryExample is one sample of a report.
type CanaryExample struct {
	ImageID                 catalog.ImageID
	Before, After           string // URLs of the same rendition
	BytesBefore, BytesAfter int64
	ScoreBefore, ScoreAfter float64
}
