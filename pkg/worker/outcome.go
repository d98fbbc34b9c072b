package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/media"
)

// outcome is how a request ended.
type outcome string

// The outcomes.
const (
	ready      outcome = "ready"      // the renditions are published
	retried    outcome = "retried"    // an attempt is spent; a new request is on its way
	deferred   outcome = "deferred"   // a new request is on its way, no attempt spent
	failed     outcome = "failed"     // the picture is given up
	released   outcome = "released"   // handed back by an orderly stop
	superseded outcome = "superseded" // another attempt holds the picture
	done       outcome = "done"       // the request was dealt with before
)

// outcomes is the one table of what follows from a failure's class.
var outcomes = map[media.Class]outcome{
	media.Permanent: failed,
	media.Transient: retried,
	media.Ours:      deferred,
}

// settle writes what follows from the attempt's failure. It has a context of its own, because an attempt that ran out of
// time has none left. nil: it is written, or nothing was left to write.
func (w *Worker) settle(ctx context.Context, a catalog.Attempt, f *media.Failure, began time.Time) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.Settle)
	defer cancel()
	policy := w.current().Spec().Retry
	then := outcomes[f.Code.Class()]
	var err error
	switch then {
	case failed:
		err = w.catalog.Fail(ctx, a, f)
	case retried:
		err = w.catalog.Retry(ctx, a, f, policy)
	default:
		err = w.catalog.Defer(ctx, a, f, policy, w.wait(f.Code))
	}
	return w.settled(a, then, f, began, err)
}

func (w *Worker) wait(code media.Code) time.Duration {
	if code == media.HostBusy {
		return w.cfg.BusyWait
	}
	return w.cfg.DeferWait
}

// handBack releases the attempt, which has done nothing wrong, and returns why: a released request is not dealt with, so it
// has to come again.
func (w *Worker) handBack(ctx context.Context, a catalog.Attempt, began time.Time, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.Settle)
	defer cancel()
	return errors.Join(why, w.settled(a, released, &media.Failure{}, began, w.catalog.Release(ctx, a)))
}

// settled tells what was written, and whether the request has to come again.
func (w *Worker) settled(a catalog.Attempt, then outcome, f *media.Failure, began time.Time, err error) error {
	log := w.picture(a.Request, a.Traceparent).With(zap.Int("attempt", a.Number), zap.Int64("fence", a.Fence),
		zap.Duration("duration", w.now().Sub(began)))
	switch {
	case errors.Is(err, catalog.ErrSuperseded):
		w.metrics.outcome(superseded, "")
		log.Info("attempt superseded")
		return nil
	case errors.Is(err, catalog.ErrGivenUp):
		then = failed
	case err != nil:
		return fmt.Errorf("settle %s: %w", then, err)
	}
	w.metrics.outcome(then, f.Code)
	switch then {
	case released:
		log.Info("picture released")
	case failed:
		log.Warn("picture failed", zap.String("code", string(f.Code)), zap.Error(f))
	default:
		log.Info("picture "+string(then), zap.String("code", string(f.Code)), zap.Error(f))
	}
	return nil
}
