package catalog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// Begin starts an attempt for the holder of a ticket. budget is how long the attempt may take; after it, its objects are
// deleted unless Finish has adopted them. A second Begin on the same ticket takes the work over. ErrDone if there is nothing
// left to do for this request; ErrGivenUp if too many attempts have died, so that the picture has failed as worker_crashed.
func (s *Service) Begin(ctx context.Context, r Job, budget time.Duration) (Attempt, error) {
	nonce := strings.ReplaceAll(s.NewID(), "-", "")
	changedID := s.NewID()
	var attempt Attempt
	var givenUp bool
	p, err := s.Store.Edit(ctx, r.ProductID, func(p *Product, now time.Time) (c Change, err error) {
		attempt, c, givenUp, err = p.begin(r, nonce, changedID, now, budget)
		return c, err
	})
	switch {
	case fault.Is(err, fault.NotFound):
		return Attempt{}, ErrDone
	case err != nil:
		return Attempt{}, fmt.Errorf("begin: %w", err)
	case givenUp:
		s.invalidate(ctx, p.ID, p.Version)
		s.Wake()
		return Attempt{}, ErrGivenUp
	}
	return attempt, nil
}

// Finish publishes what the attempt has stored. ErrSuperseded if the attempt no longer holds the picture; ErrDoomed if its
// objects are being deleted, so that it has to start again from Begin.
func (s *Service) Finish(ctx context.Context, a Attempt, r Result) error {
	id := s.NewID()
	return s.recordOutcome(ctx, a, "finish", func(p *Product, _ time.Time) (Change, error) {
		return p.finish(a, r, s.cfg.DeletionGrace, id)
	})
}

// Fail ends the picture's request for good. A picture that was ready stays ready. ErrSuperseded as for Finish.
func (s *Service) Fail(ctx context.Context, a Attempt, f *media.Failure) error {
	id := s.NewID()
	return s.recordOutcome(ctx, a, "fail", func(p *Product, _ time.Time) (Change, error) {
		return p.giveUp(a, f, id)
	})
}

// Retry spends the attempt and asks again after a backoff with full jitter, not before f.RetryAfter. ErrGivenUp if that was
// the last try, or the second time that a codec did not survive f.Content, so that the picture has failed; ErrSuperseded as
// for Finish.
func (s *Service) Retry(ctx context.Context, a Attempt, f *media.Failure, policy pipeline.Retry) error {
	return s.requeue(ctx, a, f, requeueOptions{policy: policy, countsAttempt: true, wait: func(tries int, _ time.Duration) time.Duration {
		ceiling := backoff.Double(tries-1, policy.Backoff.D(), policy.MaxBackoff.D())
		return max(s.jitter(ceiling), min(f.RetryAfter, policy.MaxBackoff.D()))
	}})
}

// postponeShare is which part of a request's age it waits before it comes again, when faults of our own last.
const postponeShare = 8

// Defer queues the image again a little later and spends no attempt: the fault was the platform's own. The pause is wait at
// first and grows with the request's age, up to the policy's longest backoff; half of it is random. ErrGivenUp if such
// faults have deferred the image for longer than the policy allows, so that it has failed; ErrSuperseded as for Finish.
func (s *Service) Defer(ctx context.Context, a Attempt, f *media.Failure, policy pipeline.Retry, wait time.Duration) error {
	return s.requeue(ctx, a, f, requeueOptions{policy: policy, wait: func(_ int, age time.Duration) time.Duration {
		return s.deferral(policy, wait, age)
	}})
}

// Postpone queues a request again that no attempt has begun, after a pause as Defer's. It spends no attempt and never fails
// the image. ErrSuperseded if the request has been dealt with.
func (s *Service) Postpone(ctx context.Context, r Job, policy pipeline.Retry, wait time.Duration) error {
	ticket := s.NewID()
	_, err := s.Store.Edit(ctx, r.ProductID, func(p *Product, now time.Time) (Change, error) {
		return p.postpone(r, ticket, now, func(age time.Duration) time.Duration { return s.deferral(policy, wait, age) })
	})
	if fault.Is(err, fault.NotFound) {
		return ErrSuperseded
	} else if err != nil {
		return fmt.Errorf("postpone: %w", err)
	}
	failpoint.Hit(failpoint.OutcomeCommitted)
	s.Wake()
	return nil
}

// deferral is the pause before a request of that age comes again.
func (s *Service) deferral(policy pipeline.Retry, wait, age time.Duration) time.Duration {
	pause := max(wait, min(age/postponeShare, policy.MaxBackoff.D()))
	return pause/2 + s.jitter(pause/2)
}

func (s *Service) requeue(ctx context.Context, a Attempt, f *media.Failure, q requeueOptions) error {
	q.ids = [2]string{s.NewID(), s.NewID()}
	var givenUp bool
	err := s.recordOutcome(ctx, a, "requeue", func(p *Product, now time.Time) (c Change, err error) {
		c, givenUp, err = p.requeue(a, f, q, now)
		return c, err
	})
	if err == nil && givenUp {
		return ErrGivenUp
	}
	return err
}

// Release hands the picture back under the same ticket, as if it had not begun: the attempt was cut short by an orderly
// stop.
func (s *Service) Release(ctx context.Context, a Attempt) error {
	return s.recordOutcome(ctx, a, "release", func(p *Product, now time.Time) (Change, error) {
		return p.release(a, now)
	})
}

// Republish says the request of a picture in work once more, if its time and patience have passed. Asking again about a picture
// that needs nothing returns ErrDone.
func (s *Service) Republish(ctx context.Context, product ProductID, image ImageID, patience time.Duration) error {
	_, err := s.Store.Edit(ctx, product, func(p *Product, now time.Time) (Change, error) {
		return p.republish(image, now, patience)
	})
	if err != nil {
		return fmt.Errorf("repeat: %w", err)
	}
	failpoint.Hit(failpoint.RepeatCommitted)
	s.Wake()
	return nil
}

// recordOutcome writes an attempt's outcome and tells the cache.
func (s *Service) recordOutcome(ctx context.Context, a Attempt, verb string, fn func(*Product, time.Time) (Change, error)) error {
	var before int64
	p, err := s.Store.Edit(ctx, a.ProductID, func(p *Product, now time.Time) (Change, error) {
		before = p.Version
		return fn(p, now)
	})
	if isUnknown(err) {
		p, err = s.confirmCommit(ctx, a, err)
	}
	switch {
	case fault.Is(err, fault.NotFound):
		return ErrSuperseded
	case err != nil:
		return fmt.Errorf("%s: %w", verb, err)
	}
	failpoint.Hit(failpoint.OutcomeCommitted)
	if p.Version != before {
		s.invalidate(ctx, p.ID, p.Version)
	}
	failpoint.Hit(failpoint.OutcomeTold)
	s.Wake()
	return nil
}

// confirmTimeout is the longest wait for the row that tells what happened.
const confirmTimeout = 2 * time.Second

// confirmCommit reads the row after a COMMIT of unknown outcome: if the attempt's fence and prefix still stand there and the
// picture is no longer processing, it was this attempt that ended it.
func (s *Service) confirmCommit(ctx context.Context, a Attempt, unknown error) (Product, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmTimeout) // the COMMIT may have hung until ctx's end
	defer cancel()
	p, err := s.Store.Product(ctx, a.ProductID)
	if err != nil {
		return Product{}, fmt.Errorf("read back: %w", err)
	}
	img := p.image(a.ImageID)
	if img == nil || img.FencingToken != a.FencingToken || img.Prefix != a.Prefix || img.JobState == Processing {
		return Product{}, unknown
	}
	return p, nil
}

// jitter returns a random duration from 0 up to d.
func (s *Service) jitter(d time.Duration) time.Duration {
	return time.Duration(s.Random() * float64(d))
}
