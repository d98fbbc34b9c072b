package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/failpoint"
)

// Repeater says a picture's request once more; *catalog.Service does.
type Repeater interface {
	Repeat(ctx context.Context, product catalog.ProductID, image catalog.ImageID, patience time.Duration) error
}

// Sweeper repeats requests whose work should long be done, and purges the rows of products deleted long ago and idempotency
// keys that nobody repeats any more. Several may run: a repetition has the same ticket, so it is never doubled in the outbox
// and never worked twice.
type Sweeper struct {
	overdue  Overdue
	catalog  Repeater
	cfg      SweepConfig
	log      *zap.Logger
	repeated prometheus.Counter
	purged   prometheus.Counter
	keys     prometheus.Counter
	errors   prometheus.Counter
}

// NewSweeper returns a Sweeper.
func NewSweeper(overdue Overdue, repeater Repeater, cfg SweepConfig, reg prometheus.Registerer, log *zap.Logger) *Sweeper {
	s := &Sweeper{
		overdue: overdue, catalog: repeater, cfg: cfg, log: log,
		repeated: counter("vitrine_worker_sweeper_repeated_total", "Requests said again because their work was overdue."),
		purged:   counter("vitrine_worker_sweeper_purged_total", "Deleted products whose rows were removed."),
		keys:     counter("vitrine_worker_sweeper_keys_purged_total", "Idempotency keys that were forgotten."),
		errors:   counter("vitrine_worker_sweeper_errors_total", "Looks that failed."),
	}
	reg.MustRegister(s.repeated, s.purged, s.keys, s.errors)
	return s
}

// Run looks every interval until ctx ends.
func (s *Sweeper) Run(ctx context.Context) error {
	every(ctx, s.cfg.Interval, s.log, s.errors, s.sweep)
	return nil
}

// sweep is one look. more says that a batch was full, so that another look is worth it at once.
func (s *Sweeper) sweep(ctx context.Context) (more bool, err error) {
	overdue, err := s.overdue.OverdueImages(ctx, s.cfg.Batch, s.cfg.Patience)
	if err != nil {
		return false, fmt.Errorf("find overdue pictures: %w", err)
	}
	var failed []error // one that fails must not hold up the others
	for _, o := range overdue {
		err := s.catalog.Repeat(ctx, o.ProductID, o.ImageID, s.cfg.Patience)
		if errors.Is(err, catalog.ErrDone) {
			continue
		} else if err != nil {
			failed = append(failed, err)
			continue
		}
		s.repeated.Inc()
		s.log.Warn("overdue picture requested again",
			zap.Int64("product_id", int64(o.ProductID)), zap.Int64("image_id", int64(o.ImageID)))
	}
	purged, err := s.overdue.PurgeDeleted(ctx, s.cfg.Batch, s.cfg.PurgeAfter)
	if err != nil {
		failed = append(failed, fmt.Errorf("purge deleted products: %w", err))
	}
	s.purged.Add(float64(purged))
	keys, err := s.overdue.PurgeKeys(ctx, s.cfg.Batch, s.cfg.KeysAfter)
	if err != nil {
		failed = append(failed, fmt.Errorf("purge idempotency keys: %w", err))
	}
	s.keys.Add(float64(keys))
	return max(len(overdue), purged, keys) == s.cfg.Batch, errors.Join(failed...)
}

// Compensator deletes the objects that due intents name: those of attempts that died, and those that were replaced. It dooms
// an intent before it deletes anything, so that no attempt can adopt what is being deleted, and deletes once more later, for
// an upload that was still on its way. Several may run.
type Compensator struct {
	intents Intents
	objects Objects
	cfg     SweepConfig
	log     *zap.Logger
	deleted prometheus.Counter
	errors  prometheus.Counter
}

// NewCompensator returns a Compensator.
func NewCompensator(
	intents Intents, objects Objects, cfg SweepConfig, reg prometheus.Registerer, log *zap.Logger,
) *Compensator {
	c := &Compensator{
		intents: intents, objects: objects, cfg: cfg, log: log,
		deleted: counter("vitrine_worker_compensator_deleted_total", "Prefixes whose objects were deleted, each twice."),
		errors:  counter("vitrine_worker_compensator_errors_total", "Looks that failed."),
	}
	reg.MustRegister(c.deleted, c.errors)
	return c
}

// Run looks every interval until ctx ends.
func (c *Compensator) Run(ctx context.Context) error {
	every(ctx, c.cfg.Interval, c.log, c.errors, c.compensate)
	return nil
}

// compensate is one look. An intent that was doomed by a look that died is deleted at its second time.
func (c *Compensator) compensate(ctx context.Context) (more bool, err error) {
	doomed, err := c.intents.DoomDue(ctx, c.cfg.Batch, c.cfg.Again)
	if err != nil {
		return false, fmt.Errorf("doom intents: %w", err)
	}
	var failed []error // one that fails must not hold up the others; its second time will come
	for _, prefix := range doomed {
		failpoint.Hit(failpoint.IntentDoomed)
		if err := c.delete(ctx, prefix); err != nil {
			failed = append(failed, err)
		}
	}
	again, err := c.intents.DoomedDue(ctx, c.cfg.Batch)
	if err != nil {
		return false, errors.Join(append(failed, fmt.Errorf("find doomed intents: %w", err))...)
	}
	for _, prefix := range again {
		if err := c.delete(ctx, prefix); err != nil {
			failed = append(failed, err)
		} else if err := c.intents.RemoveIntent(ctx, prefix); err != nil {
			failed = append(failed, fmt.Errorf("remove intent %s: %w", prefix, err))
		}
	}
	return len(doomed) == c.cfg.Batch || len(again) == c.cfg.Batch, errors.Join(failed...)
}

func (c *Compensator) delete(ctx context.Context, prefix string) error {
	if err := c.objects.DeletePrefix(ctx, prefix); err != nil {
		return fmt.Errorf("delete %s: %w", prefix, err)
	}
	failpoint.Hit(failpoint.PrefixDeleted)
	c.deleted.Inc()
	c.log.Info("objects deleted", zap.String("prefix", prefix))
	return nil
}

// every calls look until ctx ends: at once again while there is more, else after interval. An error is told and the next
// look is after interval: what is down will be looked at again.
func every(ctx context.Context, interval time.Duration, log *zap.Logger, failures prometheus.Counter,
	look func(context.Context) (bool, error),
) {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		more, err := look(ctx)
		if err != nil && ctx.Err() == nil {
			failures.Inc()
			log.Warn("look failed", zap.Error(err))
		}
		if more && err == nil {
			timer.Reset(0)
		} else {
			timer.Reset(interval)
		}
	}
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}
