package backfill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
)

const (
	maxCandidates = 500 // of one search
	maxDropped    = 500 // jobs that one step drops

	// The rows of a search: few at first, because a step may want few images of many that are selected.
	minRows = 200
	maxRows = 6000

	measureInterval = 15 * time.Second
)

// WalkerDeps are the dependencies of a Walker.
type WalkerDeps struct {
	Walks     Walks
	List      func(context.Context) ([]Backfill, error) // as Backfills.ListBackfills
	Images    Images
	Catalog   Catalog
	Canaries  Canaries
	PublicURL func(key string) string // of an object in the bucket
	Now       func() time.Time        // for durations only
	Log       *zap.Logger
}

// Walker carries out backfills. Any number of processes may run one.
type Walker struct {
	WalkerDeps
	cfg     Config
	metrics *metrics
}

// NewWalker returns a Walker and registers its metrics with reg. cfg must be valid.
func NewWalker(deps WalkerDeps, cfg Config, reg prometheus.Registerer) *Walker {
	return &Walker{WalkerDeps: deps, cfg: cfg, metrics: newMetrics(reg)}
}

// Run makes a step every interval until ctx ends. Before each it saves the pipeline in force, unless that is saved, so that
// a backfill to it can be planned before any image was requested with it. It counts and logs errors, and returns nil.
func (w *Walker) Run(ctx context.Context) error {
	var measured time.Time
	for backoff.Sleep(ctx, w.cfg.Interval) {
		_, err := w.Catalog.RecordPipeline(ctx)
		if err == nil {
			err = w.Step(ctx)
		}
		if now := w.Now(); err == nil && now.Sub(measured) >= measureInterval {
			measured = now
			err = w.measure(ctx)
		}
		if err != nil && ctx.Err() == nil {
			w.metrics.errors.Inc()
			w.Log.Warn("step of a backfill failed", zap.Error(err))
		}
	}
	return nil
}

// Step makes one step of each backfill that has work and is due. After an error the step is due again at the end of its
// lease.
func (w *Walker) Step(ctx context.Context) error {
	for {
		walk, acquired, err := w.Walks.AcquireWalk(ctx, w.cfg.Lease)
		if err != nil || !acquired {
			return err
		}
		if err := w.step(ctx, walk); err != nil {
			return fmt.Errorf("%s: %w", walk.Name(), err)
		}
	}
}

// step makes one step of a backfill and saves it. It begins nothing in the second half of its lease.
func (w *Walker) step(ctx context.Context, walk Walk) error {
	until := w.Now().Add(w.cfg.Lease / 2)
	inForce, err := w.Walks.InForce(ctx)
	if err != nil {
		return fmt.Errorf("read pipelines in force: %w", err)
	}
	before := walk.Backfill
	walk.decide(inForce)
	walk.earn()
	if !walk.Open || !before.Open { // before jobs are requested, or dropped
		if saved, err := w.Walks.SaveWalk(ctx, walk, w.cfg.Lease); err != nil || !saved {
			return err
		}
	}
	if before.State == Approved && walk.State == Running {
		failpoint.Hit(failpoint.BackfillStarted)
	}
	var worked error
	if walk.Open {
		if worked = w.drop(ctx, walk.ID, w.cfg.LostAfter, until); worked == nil {
			worked = w.request(ctx, &walk, until)
		}
		walk.turn(w.cfg.Settle)
	} else {
		worked = w.drop(ctx, walk.ID, 0, until)
	}
	worked = errors.Join(worked, w.stepCanary(ctx, &walk, before.SteppedAt))
	w.report(before, walk)
	if _, err := w.Walks.SaveWalk(ctx, walk, w.cfg.Interval); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	failpoint.Hit(failpoint.BackfillSaved)
	return worked
}

// drop removes jobs of a backfill that no attempt works on, until a time. If lost is above 0, only those that were lost.
func (w *Walker) drop(ctx context.Context, id int64, lost time.Duration, until time.Time) error {
	jobs, err := w.Images.LooseJobs(ctx, id, lost, maxDropped)
	if err != nil {
		return fmt.Errorf("find jobs: %w", err)
	}
	for _, job := range jobs {
		if !w.Now().Before(until) {
			return nil
		}
		if err := w.Catalog.DropBackfill(ctx, job.ProductID, job.ImageID, id); err != nil && !isGone(err) {
			return fmt.Errorf("drop the job of image %d: %w", job.ImageID, err)
		}
	}
	return nil
}

// request requests as many images as are allowed until a time, and moves the cursor.
func (w *Walker) request(ctx context.Context, walk *Walk, until time.Time) error {
	allowed := walk.allowance()
	if allowed <= 0 {
		return nil
	}
	outputs, err := w.Images.Outputs(ctx)
	if err != nil {
		return fmt.Errorf("read pipelines: %w", err)
	}
	limit := Limit{Rows: minRows}
	for allowed > 0 && !walk.Resting && w.Now().Before(until) {
		limit.Images = min(allowed, maxCandidates)
		found, err := w.Images.Candidates(ctx, walk.Backfill, outputs, limit)
		if err != nil {
			return fmt.Errorf("find images: %w", err)
		}
		walk.Found += int64(found.Busy)
		for _, img := range found.Images {
			if !w.Now().Before(until) {
				return nil
			}
			requested, err := w.requestImage(ctx, walk, img, outputs)
			if err != nil {
				return err
			}
			if walk.Cursor = img.ImageID; requested {
				allowed--
			}
		}
		if walk.Cursor = found.Next; found.Next == 0 {
			walk.Resting = true
		}
		if len(found.Images) < limit.Images { // candidates are rare here
			limit.Rows = min(4*limit.Rows, maxRows)
		}
	}
	return nil
}

// requestImage requests one image. An image that has changed since the search is looked at again by the next pass; so is one
// that cannot be requested for a reason of its own, which must not keep the others from being made.
func (w *Walker) requestImage(ctx context.Context, walk *Walk, img ImageRef, outputs map[string]string) (bool, error) {
	err := w.Catalog.RequestBackfill(ctx, img.ProductID, img.ImageID, catalog.BackfillRequest{
		BackfillID: walk.ID, PipelineHash: walk.TargetHash, SkipMissing: walk.OnMissing == SkipMissing,
		Selected: func(user catalog.UserID, img catalog.Image) bool { return walk.Selects(user, img, outputs) },
	})
	switch {
	case isGone(err):
		walk.Found++
		return false, nil
	case fault.Is(err, fault.Unavailable) || ctx.Err() != nil:
		return false, fmt.Errorf("request image %d: %w", img.ImageID, err)
	case err != nil:
		walk.Found++
		w.metrics.errors.Inc()
		w.Log.Error("image of a backfill cannot be requested", zap.String("backfill", walk.Name()),
			zap.Int64("image", int64(img.ImageID)), zap.Error(err))
		return false, nil
	}
	walk.Found++
	walk.Outstanding++
	walk.Credit--
	w.metrics.requested.Inc()
	return true, nil
}

// stepCanary sends samples and sets the report. It drops the samples of a canary that has ended in a later step, when the
// report is saved. last is the time of the step before, or zero.
func (w *Walker) stepCanary(ctx context.Context, walk *Walk, last time.Time) error {
	if walk.Canary.State != CanaryRunning {
		if !walk.Sampled {
			return nil
		}
		if err := w.Canaries.DropSamples(ctx, walk.ID); err != nil {
			return fmt.Errorf("drop samples: %w", err)
		}
		return nil
	}
	if !walk.State.mayTry() {
		walk.Canary.stop(walk.Now)
		return nil
	}
	if walk.Suspended != NotSuspended {
		walk.Canary.pause(last, walk.Now)
	} else {
		if _, err := w.Canaries.SendSamples(ctx, walk.ID, min(walk.MaxInFlight, samplesInFlight), w.cfg.LostAfter); err != nil {
			return fmt.Errorf("send samples: %w", err)
		}
	}
	samples, err := w.Canaries.Samples(ctx, walk.ID)
	if err != nil {
		return fmt.Errorf("read samples: %w", err)
	}
	walk.Canary.measure(samples, w.PublicURL, walk.Now, w.cfg.CanaryTimeout)
	if c := walk.Canary; c.State == CanaryComplete {
		w.Log.Info("canary complete", zap.String("backfill", walk.Name()), zap.Int("done", c.Done), zap.Int("failed", c.Failed),
			zap.Int("changed", c.Changed), zap.Float64("score_before", c.ScoreBefore), zap.Float64("score_after", c.ScoreAfter))
	}
	return nil
}

// measure sets the gauges, which are the same in all processes.
func (w *Walker) measure(ctx context.Context) error {
	list, err := w.List(ctx)
	if err != nil {
		return fmt.Errorf("list backfills: %w", err)
	}
	w.metrics.measure(list, w.Now())
	return nil
}

// report logs a change of the state.
func (w *Walker) report(before Backfill, walk Walk) {
	if before.State == walk.State && before.Suspended == walk.Suspended {
		return
	}
	fields := []zap.Field{
		zap.String("backfill", walk.Name()), zap.String("state", string(walk.State)), zap.String("reason", walk.Reason),
		zap.Int64("done", walk.Done), zap.Int64("skipped", walk.Skipped), zap.Int64("failed", walk.Failed),
	}
	if walk.Suspended == ByFailures {
		w.Log.Error("backfill suspended: more images failed than its threshold allows", fields...)
		return
	}
	w.Log.Info("backfill changed", fields...)
}
