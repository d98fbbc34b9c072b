package catalog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/fault"
	"vitrine.io/pkg/pipeline"
)

// Begin starts an attempt for the holder of a ticket. budget is how long the attempt may take; after it, its objects are
// deleted unless Finish has adopted them. A second Begin on the same ticket takes the work over. ErrDone if there is nothing
// left to do for this request.
func (s *Service) Begin(ctx context.Context, r Request, traceparent string, budget time.Duration) (Attempt, error) {
	nonce := strings.ReplaceAll(s.NewID(), "-", "")
	changedID := s.NewID()
	var attempt Attempt
	p, err := s.Store.Edit(ctx, r.ProductID, func(p *Product, now time.Time) (Change, error) {
		var c Change
		var err error
		attempt, c, err = p.begin(r, nonce, changedID, traceparent, now, budget)
		return c, err
	})
	switch {
	case fault.Is(err, fault.NotFound):
		return Attempt{}, ErrDone
	case err != nil:
		return Attempt{}, fmt.Errorf("begin: %w", err)
	case attempt.Fence == 0: // failed for good: too many died
		s.forget(ctx, p.ID, p.Version)
		s.Wake()
		s.Log.Warn("picture given up", zap.Int64("product_id", int64(r.ProductID)), zap.Int64("image_id", int64(r.ImageID)),
			zap.String("event_id", r.Ticket), zap.String("code", string(WorkerCrashed)))
		return Attempt{}, ErrDone
	}
	return attempt, nil
}

// Finish publishes what the attempt has stored. ErrSuperseded if the attempt no longer holds the picture; ErrDoomed if its
// objects are being deleted, so that it has to start again from Begin.
func (s *Service) Finish(ctx context.Context, a Attempt, r Result) error {
	id := s.NewID()
	return s.settle(ctx, a, "finish", func(p *Product, _ time.Time) (Change, error) {
		return p.finish(a, r, s.cfg.RetireGrace, id)
	})
}

// Fail ends the picture's request for good. A picture that was ready stays ready. ErrSuperseded as for Finish.
func (s *Service) Fail(ctx context.Context, a Attempt, f *Failure) error {
	id := s.NewID()
	return s.settle(ctx, a, "fail", func(p *Product, _ time.Time) (Change, error) {
		return p.giveUp(a, f, id)
	})
}

// Retry spends the attempt and asks again after a backoff with full jitter, not before f.RetryAfter; when the tries or the
// request's time are used up, it fails the picture. ErrSuperseded as for Finish.
func (s *Service) Retry(ctx context.Context, a Attempt, f *Failure, policy pipeline.Retry) error {
	return s.again(ctx, a, f, policy, true, func(tries int) time.Duration {
		ceiling := policy.Backoff.D()
		for range tries - 1 {
			ceiling = min(2*ceiling, policy.MaxBackoff.D())
		}
		return max(s.jitter(ceiling), min(f.RetryAfter, policy.MaxBackoff.D()))
	})
}

// Defer asks again a little later and spends no attempt: the fault was ours. When the request's time is used up, it fails
// the picture. An attempt that has not begun may be deferred, too. ErrSuperseded as for Finish.
func (s *Service) Defer(ctx context.Context, a Attempt, f *Failure, policy pipeline.Retry, wait time.Duration) error {
	return s.again(ctx, a, f, policy, false, func(int) time.Duration { return wait/2 + s.jitter(wait/2) })
}

func (s *Service) again(ctx context.Context, a Attempt, f *Failure, policy pipeline.Retry, spend bool,
	delay func(int) time.Duration,
) error {
	ids := [2]string{s.NewID(), s.NewID()}
	return s.settle(ctx, a, "requeue", func(p *Product, now time.Time) (Change, error) {
		return p.again(a, f, policy, ids, now, delay, spend)
	})
}

// Release hands the picture back under the same ticket, as if it had not begun: the attempt was cut short by an orderly
// stop.
func (s *Service) Release(ctx context.Context, a Attempt) error {
	return s.settle(ctx, a, "release", func(p *Product, now time.Time) (Change, error) {
		return p.release(a, now)
	})
}

// Repeat says the request of a picture in work once more, if its time and patience have passed. Asking again about a picture
// that needs nothing returns ErrDone.
func (s *Service) Repeat(ctx context.Context, product ProductID, image ImageID, patience time.Duration) error {
	_, err := s.Store.Edit(ctx, product, func(p *Product, now time.Time) (Change, error) {
		return p.repeat(image, now, patience)
	})
	if err != nil {
		return fmt.Errorf("repeat: %w", err)
	}
	s.Wake()
	return nil
}

// settle writes an attempt's outcome and tells the cache.
func (s *Service) settle(ctx context.Context, a Attempt, verb string, fn func(*Product, time.Time) (Change, error)) error {
	var before int64
	p, err := s.Store.Edit(ctx, a.ProductID, func(p *Product, now time.Time) (Change, error) {
		before = p.Version
		return fn(p, now)
	})
	if isUnknown(err) {
		p, err = s.happened(ctx, a, err)
	}
	switch {
	case fault.Is(err, fault.NotFound):
		return ErrSuperseded
	case err != nil:
		return fmt.Errorf("%s: %w", verb, err)
	}
	if p.Version != before {
		s.forget(ctx, p.ID, p.Version)
	}
	s.Wake()
	return nil
}

// happened reads the row after a COMMIT of unknown outcome: if the attempt's fence and prefix still stand there and the
// picture is no longer processing, it was this attempt that ended it.
func (s *Service) happened(ctx context.Context, a Attempt, unknown error) (Product, error) {
	p, err := s.Store.Product(ctx, a.ProductID)
	if err != nil {
		return Product{}, fmt.Errorf("read back: %w", err)
	}
	img := p.image(a.ImageID)
	if img == nil || a.Fence == 0 || img.Fence != a.Fence || img.Prefix != a.Prefix || img.Work == Processing {
		return Product{}, unknown
	}
	return p, nil
}

// jitter returns a random duration from 0 up to d.
func (s *Service) jitter(d time.Duration) time.Duration {
	return time.Duration(s.Random() * float64(d))
}
