package backfill

import (
	"cmp"
	"slices"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

// Canary is the trial of a backfill that does not run yet: random images that it selects are rendered with its target into
// objects of their own, which no client sees.
type Canary struct {
	State   CanaryState
	Samples int // images that are tried
	Done    int // rendered, and compared
	Failed  int // failed, by any code of Failures
	Changed int // the source is not the one that the present renditions were made from: not rendered, not scored
	Scored  int // of those that are done: they have a rendition and format before and after, whose scores are known

	BytesBefore, BytesAfter int64   // of all renditions of the samples that are done
	ScoreBefore, ScoreAfter float64 // mean SSIMULACRA2 against the source, of those that are scored; 100 is identical
	CPUSeconds              float64 // of the codec, to render the samples that are done
	Failures                map[media.Code]int
	Examples                []CanaryExample // at most five: those whose score has fallen most

	StartedAt, EndedAt time.Time
}

// CanaryState is the state of a Canary.
type CanaryState string

// The values of CanaryState.
const (
	NoCanary       CanaryState = ""
	CanaryRunning  CanaryState = "running"
	CanaryComplete CanaryState = "complete" // every sample has an outcome
	CanaryStopped  CanaryState = "stopped"  // the backfill was approved or has ended before every sample had an outcome
)

// CanaryExample is one sample of a report.
type CanaryExample struct {
	ImageID                 catalog.ImageID
	Before, After           string // URLs of the same rendition; Before is "" if the image has no renditions
	BytesBefore, BytesAfter int64
	ScoreBefore, ScoreAfter float64 // 0 if the rendition is not scored
}

// MaxSamples is the maximum number of samples of a canary, and DefaultSamples the number without a setting.
const (
	MaxSamples     = 1000
	DefaultSamples = 100
)

const (
	maxExamples     = 5
	samplesInFlight = 50 // at most; fewer if the pace of the backfill allows fewer jobs
)

// The codes of samples that failed otherwise than images do.
const (
	SampleLost media.Code = "sample_lost" // no outcome before the canary's time has passed
	SampleGone media.Code = "image_gone"  // the image or its product was deleted
)

// CanarySample is one image that a canary tries.
type CanarySample struct {
	ImageID catalog.ImageID
	State   SampleState
	SampleOutcome
}

// SampleState is the state of a CanarySample. It has ended in one of the last three.
type SampleState string

// The values of SampleState.
const (
	SampleWaiting SampleState = "waiting"
	SampleSent    SampleState = "sent" // to the workers
	SampleDone    SampleState = "done"
	SampleChanged SampleState = "changed"
	SampleFailed  SampleState = "failed"
)

// SampleOutcome is what a worker found out about a sample.
type SampleOutcome struct {
	Code media.Code // of a sample that failed

	// Of a sample that is done.
	BytesBefore, BytesAfter int64
	Scored                  bool    // the scores are set
	ScoreBefore, ScoreAfter float64 // means over the renditions and formats that exist before and after
	CPUSeconds              float64
	Example                 SampleFiles
}

// SampleFiles are the files of one rendition and format, before and after.
type SampleFiles struct {
	KeyBefore, KeyAfter     string // KeyBefore is "" if the image has no such file
	BytesBefore, BytesAfter int64
	ScoreBefore, ScoreAfter float64 // 0 if they are not scored
}

// SampleAttempt is one execution of a sample by a worker.
type SampleAttempt struct {
	ID         string // of the sample
	BackfillID int64
	ImageID    catalog.ImageID
	ProductID  catalog.ProductID
	UserID     catalog.UserID
	Number     int    // of the attempt, from 1
	Prefix     string // of the keys of its objects

	SourceURL    string
	SourceSHA256 string              // of the source that the present renditions were made from, in hex; "" if there is none
	Original     catalog.Original    // the source to read instead of SourceURL; zero: none
	MadeBy       string              // hash of the pipeline of the present ones; "" if it is not known
	Renditions   []catalog.Rendition // the present ones
}

// MaxSampleAttempts is how many attempts at a sample may begin without an outcome. The next one fails as worker_crashed.
const MaxSampleAttempts = 5

// mayTry reports whether a backfill in that state may have a canary.
func (s State) mayTry() bool { return s == Proposed || s == Approved }

// startCanary begins a canary of so many samples.
func (b *Backfill) startCanary(samples int, now time.Time) error {
	switch {
	case !b.State.mayTry():
		return b.wrongState("tried by a canary")
	case b.Canary.State == CanaryRunning:
		return fault.New(fault.Conflict, "canary_running", "canary: one is running for "+b.Name()+" already")
	}
	b.Canary = Canary{State: CanaryRunning, Samples: samples, StartedAt: now}
	return nil
}

// stop ends a canary that is running. The report stays as it is.
func (c *Canary) stop(now time.Time) {
	if c.State == CanaryRunning {
		c.State, c.EndedAt = CanaryStopped, now
	}
}

// pause takes the time since the last step out of that for which the canary has run, because the backfill is suspended.
func (c *Canary) pause(last, now time.Time) {
	if last.Before(c.StartedAt) {
		last = c.StartedAt
	}
	c.StartedAt = c.StartedAt.Add(now.Sub(last))
}

// CPUSeconds returns how much CPU time of codecs the backfill takes, by its canary. ok is false if no sample is done.
func (b Backfill) CPUSeconds() (e Estimate, ok bool) {
	if b.Canary.Done == 0 {
		return Estimate{}, false
	}
	each, rendered := b.Canary.CPUSeconds/float64(b.Canary.Done), b.Plan.Rendered(b.OnMissing)
	return Estimate{Value: each * rendered.Value, Error: each * rendered.Error}, true
}

// measure sets the report from the samples. Once it has run for timeout, samples without an outcome are lost. publicURL
// returns the URL of a key.
func (c *Canary) measure(samples []CanarySample, publicURL func(key string) string, now time.Time, timeout time.Duration) {
	late := now.Sub(c.StartedAt) >= timeout
	report := Canary{State: c.State, Samples: len(samples), Failures: map[media.Code]int{}, StartedAt: c.StartedAt}
	for _, s := range samples {
		switch {
		case s.State == SampleDone:
			report.addDone(s.SampleOutcome)
		case s.State == SampleChanged:
			report.Changed++
		case s.State == SampleFailed:
			report.Failed++
			report.Failures[s.Code]++
		case late:
			report.Failed++
			report.Failures[SampleLost]++
		}
	}
	if report.Scored > 0 {
		report.ScoreBefore /= float64(report.Scored)
		report.ScoreAfter /= float64(report.Scored)
	}
	report.Examples = examples(samples, publicURL)
	if report.Done+report.Failed+report.Changed == report.Samples {
		report.State, report.EndedAt = CanaryComplete, now
	}
	*c = report
}

// addDone adds the numbers of a sample that is done. ScoreBefore and ScoreAfter are sums until all are added.
func (c *Canary) addDone(o SampleOutcome) {
	c.Done++
	c.BytesBefore += o.BytesBefore
	c.BytesAfter += o.BytesAfter
	c.CPUSeconds += o.CPUSeconds
	if o.Scored {
		c.Scored++
		c.ScoreBefore += o.ScoreBefore
		c.ScoreAfter += o.ScoreAfter
	}
}

// examples returns up to five samples that are done, those whose score has fallen most first.
func examples(samples []CanarySample, publicURL func(key string) string) []CanaryExample {
	var found []CanarySample
	for _, s := range samples {
		if s.State == SampleDone && s.Example.KeyAfter != "" {
			found = append(found, s)
		}
	}
	gain := func(s CanarySample) float64 { return s.Example.ScoreAfter - s.Example.ScoreBefore }
	slices.SortFunc(found, func(a, b CanarySample) int {
		return cmp.Or(cmp.Compare(gain(a), gain(b)), cmp.Compare(a.ImageID, b.ImageID))
	})
	var list []CanaryExample
	for _, s := range found[:min(maxExamples, len(found))] {
		e := CanaryExample{
			ImageID: s.ImageID, After: publicURL(s.Example.KeyAfter),
			BytesBefore: s.Example.BytesBefore, BytesAfter: s.Example.BytesAfter,
			ScoreBefore: s.Example.ScoreBefore, ScoreAfter: s.Example.ScoreAfter,
		}
		if s.Example.KeyBefore != "" {
			e.Before = publicURL(s.Example.KeyBefore)
		}
		list = append(list, e)
	}
	return list
}
