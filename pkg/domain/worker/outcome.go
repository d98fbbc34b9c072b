package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
)

// outcome is how the handling of a job ended.
type outcome string

// The outcomes.
const (
	ready      outcome = "ready"      // the renditions are published
	retried    outcome = "retried"    // a new job is queued; the attempt counts
	deferred   outcome = "deferred"   // a new job is queued; the attempt does not count
	failed     outcome = "failed"     // the image failed
	released   outcome = "released"   // the process stopped during the attempt
	superseded outcome = "superseded" // another attempt has begun, or the image was changed
	skipped    outcome = "skipped"    // the backfill skips images without an original
	done       outcome = "done"       // the job was complete before
	changed    outcome = "changed"    // of a sample of a canary: the source is not the one of the present renditions
)

// outcomes maps the class of a failure to its outcome.
var outcomes = map[media.Class]outcome{
	media.Permanent:  failed,
	media.Transient:  retried,
	media.Deferrable: deferred,
}

// postpone handles the error of admit. If it is a *media.Failure, postpone replaces the job by a later one; else it
// returns the error.
func (w *Worker) postpone(ctx context.Context, t *task, err error) error {
	f := media.FailureOf(err)
	if f == nil {
		return err
	}
	ctx, cancel := w.outcomeContext(ctx)
	defer cancel()
	return w.logOutcome(t, deferred, f, w.Catalog.Postpone(ctx, t.Job, f, w.Pipeline().Spec().Retry, w.delay(f.Code)))
}

// report records the outcome that follows from err, the result of process. ctx ends when the process stops.
func (w *Worker) report(ctx context.Context, t *task, err error) error {
	switch f := media.FailureOf(err); {
	case err == nil:
		return nil
	case errors.Is(err, catalog.ErrSuperseded):
		return w.logOutcome(t, superseded, &media.Failure{}, catalog.ErrSuperseded)
	case errors.Is(err, errSkipped):
		return w.skip(ctx, t)
	case errors.Is(err, errNotIsolated):
		return w.release(ctx, t, err)
	case f != nil && (ctx.Err() == nil || f.Code.Class() == media.Permanent):
		return w.recordFailure(ctx, t, f)
	case ctx.Err() != nil: // the failure may be a consequence of the stop
		return w.release(ctx, t, fmt.Errorf("stopped: %w", ctx.Err()))
	default: // the outcome could not be recorded, or the objects are being deleted: the message is delivered again
		return err
	}
}

// recordFailure records the outcome of a failed attempt. It returns nil if the outcome is recorded or the attempt is
// superseded.
func (w *Worker) recordFailure(ctx context.Context, t *task, f *media.Failure) (err error) {
	ctx, cancel := w.outcomeContext(ctx)
	defer cancel()
	policy := w.Pipeline().Spec().Retry
	then := outcomes[f.Code.Class()]
	switch then {
	case failed:
		err = w.Catalog.Fail(ctx, t.attempt, f)
	case retried:
		err = w.Catalog.Retry(ctx, t.attempt, f, policy)
	default:
		err = w.Catalog.Defer(ctx, t.attempt, f, policy, w.delay(f.Code))
	}
	return w.logOutcome(t, then, f, err)
}

func (w *Worker) delay(code media.Code) time.Duration {
	if code == media.HostBusy {
		return w.cfg.BusyDelay
	}
	return w.cfg.DeferDelay
}

// release ends the attempt without counting it. It returns cause, so that the message is delivered again.
func (w *Worker) release(ctx context.Context, t *task, cause error) error {
	ctx, cancel := w.outcomeContext(ctx)
	defer cancel()
	return errors.Join(cause, w.logOutcome(t, released, &media.Failure{}, w.Catalog.Release(ctx, t.attempt)))
}

// outcomeContext returns a context for recording an outcome. It does not end with ctx, which may have ended already.
func (w *Worker) outcomeContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), w.cfg.OutcomeTimeout)
}

// logOutcome counts and logs an outcome; err is the result of recording it. logOutcome returns an error if the message has
// to be delivered again.
func (w *Worker) logOutcome(t *task, then outcome, f *media.Failure, err error) error {
	log := t.log.With(zap.Duration("duration", w.Now().Sub(t.start)))
	w.Breakers.observe(DependencyPostgres, err)
	switch {
	case errors.Is(err, catalog.ErrSuperseded):
		w.metrics.outcome(t, superseded, "")
		log.Info("attempt superseded")
		return nil
	case errors.Is(err, catalog.ErrGivenUp):
		then = failed
	case err != nil:
		return fmt.Errorf("record %s: %w", then, err)
	}
	w.metrics.outcome(t, then, f.Code)
	switch then {
	case released, skipped:
		log.Info("image " + string(then))
	case failed:
		log.Warn("image failed", zap.String("code", string(f.Code)), zap.Error(f))
	default:
		log.Info("image "+string(then), zap.String("code", string(f.Code)), zap.Error(f))
	}
	return nil
}
