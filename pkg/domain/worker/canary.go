package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// maxSampleTries is how many attempts at a sample may end with failures that count.
const maxSampleTries = 3

// handleSample handles one sample of a canary as Handle does a job. It touches neither the image nor a job of it.
func (w *Worker) handleSample(ctx context.Context, m event.Message) error {
	t, err := w.newTask(m)
	if err != nil {
		return err
	}
	t.canary, t.log = true, t.log.With(zap.Int64("canary_of_backfill_id", t.BackfillID))
	defer func() { w.isolation.Release(t.shares); t.releaseHost() }()
	if err := w.admit(ctx, t); err != nil {
		f := media.FailureOf(err)
		if f == nil {
			return err
		}
		return w.postponeSample(ctx, t, backfill.SampleAttempt{ID: t.JobID}, f)
	}
	t.timeout *= 2 // half of it for the comparison
	a, err := w.Samples.BeginSample(ctx, t.JobID, t.timeout, w.cfg.CanaryKeep)
	w.Breakers.observe(DependencyPostgres, err)
	if errors.Is(err, catalog.ErrDone) {
		w.metrics.outcome(t, done, "")
		return nil
	} else if err != nil {
		return fmt.Errorf("begin sample: %w", err)
	}
	t.attempt = catalog.Attempt{
		Job: t.Job, UserID: a.UserID, Prefix: a.Prefix, SourceURL: a.SourceURL, Number: a.Number, Original: a.Original,
	}
	w.metrics.inFlight.Inc()
	defer w.metrics.inFlight.Dec()
	work, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	state, o, err := w.trySample(work, t, a)
	if err != nil && ctx.Err() == nil && media.FailureOf(err) == nil && errors.Is(err, work.Err()) {
		err = media.Fail(media.CodecUnavailable, "the time for this sample ended before it was compared", err)
	}
	return w.reportSample(ctx, t, a, state, o, err)
}

// trySample reads the source, renders it, stores the renditions, and compares them with the present ones.
func (w *Worker) trySample(ctx context.Context, t *task, a backfill.SampleAttempt,
) (state backfill.SampleState, o backfill.SampleOutcome, err error) {
	src, err := w.readSource(ctx, t)
	if err != nil {
		return "", o, fmt.Errorf("fetch: %w", err)
	}
	defer src.Discard()
	if a.SourceSHA256 != "" && src.SHA256 != a.SourceSHA256 {
		return backfill.SampleChanged, o, nil
	}
	out, err := w.render(ctx, t, src)
	if err != nil {
		return "", o, fmt.Errorf("render: %w", err)
	}
	renditions, stored, err := w.store(ctx, w.Objects.PutNoStore, a.Prefix, out.Files)
	if err != nil {
		return "", o, fmt.Errorf("store: %w", err)
	}
	t.stored = true
	failpoint.Hit(failpoint.SampleStored)
	w.metrics.bytesOut.Add(float64(stored))
	c := comparison{w: w, t: t, source: src.Body, attempt: a}
	for i, r := range renditions {
		o.BytesAfter += r.Bytes
		c.after = append(c.after, renditionFile{r, out.Files[i].Body})
	}
	for _, r := range a.Renditions {
		o.BytesBefore += r.Bytes
	}
	o.CPUSeconds = out.CPU.Seconds()
	return backfill.SampleDone, o, c.run(ctx, &o)
}

// comparison compares the renditions of a sample with the present ones.
type comparison struct {
	w       *Worker
	t       *task
	source  []byte
	attempt backfill.SampleAttempt
	after   []renditionFile
	madeBy  pipeline.Spec // of the present renditions; zero if it is not known

	scored              int     // pairs of files
	sumBefore, sumAfter float64 // of their scores
}

// renditionFile is a rendition with its body.
type renditionFile struct {
	catalog.Rendition
	body []byte
}

// run scores the renditions and formats that exist before and after, and sets the scores and the example of o. The codec
// gets one rendition at a time, so that each has a deadline of its own, and others get their turns in between.
func (c *comparison) run(ctx context.Context, o *backfill.SampleOutcome) (err error) {
	if c.madeBy, err = c.w.specs.get(ctx, c.attempt.MadeBy); err != nil && media.FailureOf(err) == nil {
		return fmt.Errorf("load the pipeline of the present renditions: %w", err)
	}
	var all []backfill.SampleFiles
	for _, r := range c.t.spec.Renditions {
		pairs, err := c.compare(ctx, r)
		if err != nil {
			return err
		}
		all = append(all, pairs...)
	}
	if n := float64(c.scored); c.scored > 0 {
		o.Scored, o.ScoreBefore, o.ScoreAfter = true, c.sumBefore/n, c.sumAfter/n
	}
	o.Example = c.example(all)
	return nil
}

// compare returns the files of a rendition that exist before and after, with their scores. They have none if they are not
// comparable, or if the codec is lost.
func (c *comparison) compare(ctx context.Context, r pipeline.Rendition) ([]backfill.SampleFiles, error) {
	var pairs []backfill.SampleFiles
	var before, after []media.Comparison // in this order, because files of one size share what the codec computes
	for _, now := range c.after {
		was, ok := c.present(now)
		if now.Name != r.Name || !ok {
			continue
		}
		body, err := c.w.Objects.Read(ctx, was.Key, was.Bytes)
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict) { // it was replaced since the attempt began, or is lost
			continue
		}
		c.w.Breakers.observe(DependencyS3, err)
		if err != nil {
			return nil, media.Fail(media.StorageFailed, "a present rendition could not be read", err)
		}
		before = append(before, media.Comparison{Rendition: c.framedBy(was), Format: was.Format, Body: body})
		after = append(after, media.Comparison{Rendition: r, Format: now.Format, Body: now.body})
		pairs = append(pairs, backfill.SampleFiles{
			KeyBefore: was.Key, KeyAfter: now.Key, BytesBefore: was.Bytes, BytesAfter: now.Bytes,
		})
	}
	if len(pairs) == 0 {
		return nil, nil
	}
	scores, err := c.w.Codec.Compare(ctx, c.source, c.t.spec, append(before, after...))
	c.w.Breakers.observeCodec(err)
	if f := media.FailureOf(err); f.CodecLost() {
		c.t.log.Warn("renditions could not be compared", zap.String("rendition", r.Name), zap.Error(err))
		return pairs, nil
	}
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", r.Name, err)
	}
	for i := range pairs {
		if was, now := scores[i], scores[len(pairs)+i]; was.OK && now.OK {
			pairs[i].ScoreBefore, pairs[i].ScoreAfter = was.Value, now.Value
			c.scored, c.sumBefore, c.sumAfter = c.scored+1, c.sumBefore+was.Value, c.sumAfter+now.Value
		}
	}
	return pairs, nil
}

// present returns the present rendition with the name and format of a new one.
func (c *comparison) present(now renditionFile) (catalog.Rendition, bool) {
	for _, r := range c.attempt.Renditions {
		if r.Name == now.Name && r.Format == now.Format {
			return r, true
		}
	}
	return catalog.Rendition{}, false
}

// framedBy returns the rendition by which a present one was made; one of its size if that is not known.
func (c *comparison) framedBy(was catalog.Rendition) pipeline.Rendition {
	for _, r := range c.madeBy.Renditions {
		if r.Name == was.Name {
			return r
		}
	}
	return pipeline.Rendition{Name: was.Name, Width: was.Width, Height: was.Height, Fit: pipeline.Inside}
}

// example returns the files of the default rendition, if it exists before and after; else the first that do; else the
// default rendition alone.
func (c *comparison) example(pairs []backfill.SampleFiles) backfill.SampleFiles {
	var found backfill.SampleFiles
	for _, now := range c.after {
		if now.Default {
			found = backfill.SampleFiles{KeyAfter: now.Key, BytesAfter: now.Bytes}
		}
	}
	for _, p := range pairs {
		if p.KeyAfter == found.KeyAfter {
			return p
		}
	}
	if len(pairs) > 0 {
		return pairs[0]
	}
	return found
}

// reportSample records what follows from err, the result of trySample. ctx ends when the process stops.
func (w *Worker) reportSample(ctx context.Context, t *task, a backfill.SampleAttempt, state backfill.SampleState,
	o backfill.SampleOutcome, err error,
) error {
	f := media.FailureOf(err)
	stopped := ctx.Err() != nil
	recording, cancel := w.outcomeContext(ctx)
	defer cancel()
	switch {
	case err == nil:
		then := ready
		if state == backfill.SampleChanged {
			then = changed
		}
		return w.logOutcome(t, then, &media.Failure{}, w.Samples.EndSample(recording, a, state, o))
	case f != nil && f.Code.Class() == media.Permanent, f != nil && t.countsSample(f) && a.Number >= maxSampleTries && !stopped:
		o = backfill.SampleOutcome{Code: f.Code}
		return w.logOutcome(t, failed, f, w.Samples.EndSample(recording, a, backfill.SampleFailed, o))
	case stopped:
		return w.logOutcome(t, released, &media.Failure{}, w.Samples.PostponeSample(recording, a, 0, false))
	case f != nil:
		return w.postponeSample(ctx, t, a, f)
	default: // the message is delivered again
		return err
	}
}

// countsSample reports whether an attempt that ended with a failure counts. One that has stored objects does with any
// failure: each further attempt stores them again.
func (t *task) countsSample(f *media.Failure) bool {
	return f.Code.Class() == media.Transient || t.stored
}

// postponeSample makes a sample wait after a failure.
func (w *Worker) postponeSample(ctx context.Context, t *task, a backfill.SampleAttempt, f *media.Failure) error {
	ctx, cancel := w.outcomeContext(ctx)
	defer cancel()
	policy := w.Pipeline().Spec().Retry
	then, delay, counts := deferred, w.delay(f.Code), t.countsSample(f)
	if counts {
		then, delay = retried, max(policy.Backoff.D(), min(f.RetryAfter, policy.MaxBackoff.D()))
	}
	return w.logOutcome(t, then, f, w.Samples.PostponeSample(ctx, a, max(delay, time.Millisecond), counts))
}
