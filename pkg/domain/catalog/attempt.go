package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// Begin starts an attempt for the holder of a job id. budget is how long the attempt may last; after it, the attempt's
// objects are deleted unless Finish has cancelled the deletion. A second Begin of the same job supersedes the first
// attempt. If the pipeline in force keeps originals, the attempt has a prefix for one, too. It returns ErrGivenUp if too
// many attempts ended without an outcome, so that the image has failed as worker_crashed. It returns ErrDone if the job is
// no longer the image's, or if it belongs to a backfill that is suspended or has ended; the latter job it drops.
func (s *Service) Begin(ctx context.Context, job Job, budget time.Duration) (Attempt, error) {
	if err := s.admitBackfill(ctx, job); err != nil {
		return Attempt{}, err
	}
	b := beginning{nonce: s.newNonce(), changedID: s.NewID(), budget: budget}
	if s.Pipeline().Spec().Originals.Keep {
		b.originalNonce = s.newNonce()
	}
	var attempt Attempt
	var givenUp bool
	p, err := s.Store.Edit(ctx, job.ProductID, func(p *Product, now time.Time) (c Change, err error) {
		attempt, c, givenUp, err = p.begin(job, b, now)
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

// newNonce returns a part of a prefix that is impossible to guess.
func (s *Service) newNonce() string { return strings.ReplaceAll(s.NewID(), "-", "") }

// Finish publishes the objects that the attempt has stored. It returns ErrSuperseded if the attempt is no longer the
// image's current one, and ErrDeletionStarted if its objects are being deleted, so that a new attempt has to Begin.
func (s *Service) Finish(ctx context.Context, a Attempt, r Result) error {
	id := s.NewID()
	return s.recordOutcome(ctx, a, "finish", func(p *Product, _ time.Time) (Change, error) {
		return p.finish(a, r, s.cfg.DeletionGrace, id)
	})
}

// Fail ends the request: the image has failed. An image that was ready stays ready. It returns ErrSuperseded under the
// same condition as Finish.
func (s *Service) Fail(ctx context.Context, a Attempt, f *media.Failure) error {
	id := s.NewID()
	return s.recordOutcome(ctx, a, "fail", func(p *Product, _ time.Time) (Change, error) {
		return p.failAttempt(a, f, id)
	})
}

// Retry counts the attempt and queues a new job after a backoff with full jitter. The delay is at least f.RetryAfter, but
// never more than policy.MaxBackoff. It returns ErrGivenUp if the image has failed, because the policy allows no further
// attempt or because f.Content has lost a second codec, and ErrSuperseded under the same condition as Finish.
func (s *Service) Retry(ctx context.Context, a Attempt, f *media.Failure, policy pipeline.Retry) error {
	delay := func(attempts int, _ time.Duration) time.Duration {
		ceiling := backoff.Double(attempts-1, policy.Backoff.D(), policy.MaxBackoff.D())
		return max(s.jitter(ceiling), min(f.RetryAfter, policy.MaxBackoff.D()))
	}
	return s.requeue(ctx, a, f, requeueOptions{policy: policy, countsAttempt: true, delay: delay})
}

// deferAgeDivisor sets the delay of a deferred job: the request's age divided by it.
const deferAgeDivisor = 8

// Defer queues a new job and counts no attempt: the fault was the platform's own, or the host is busy. The delay is minDelay
// at first, grows with the time since the first deferral up to policy.MaxBackoff, and half of it is random. That time does
// not include waits in queues. ErrGivenUp if it is longer than policy.MaxAge, so that the image has failed; ErrSuperseded as
// for Finish. A busy host never fails an image; if f.Host names it, the job counts as that host's from now on.
func (s *Service) Defer(ctx context.Context, a Attempt, f *media.Failure, policy pipeline.Retry, minDelay time.Duration,
) error {
	return s.requeue(ctx, a, f, requeueOptions{policy: policy, delay: func(_ int, age time.Duration) time.Duration {
		return s.deferDelay(policy, minDelay, age)
	}})
}

// Postpone replaces a job that has not begun by a new one, because of f, after a delay as Defer's. It counts no attempt and
// never fails the image. ErrSuperseded if the job is no longer the image's.
func (s *Service) Postpone(ctx context.Context, job Job, f *media.Failure, policy pipeline.Retry, minDelay time.Duration,
) error {
	id := s.NewID()
	_, err := s.Store.Edit(ctx, job.ProductID, func(p *Product, now time.Time) (Change, error) {
		return p.postpone(job, f, id, now, func(age time.Duration) time.Duration {
			return s.deferDelay(policy, minDelay, age)
		})
	})
	if fault.Is(err, fault.NotFound) {
		return ErrSuperseded
	} else if err != nil {
		return fmt.Errorf("postpone: %w", err)
	}
	hitOutcomeCommitted()
	return nil
}

// deferDelay returns the delay of a job whose request has been deferred for that age.
func (s *Service) deferDelay(policy pipeline.Retry, minDelay, age time.Duration) time.Duration {
	delay := max(minDelay, min(age/deferAgeDivisor, policy.MaxBackoff.D()))
	return delay/2 + s.jitter(delay/2)
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

// Release queues the image again under the same job id, as if the attempt had not begun. It is for an attempt that an
// orderly stop interrupts. It returns ErrSuperseded under the same condition as Finish.
func (s *Service) Release(ctx context.Context, a Attempt) error {
	return s.recordOutcome(ctx, a, "release", func(p *Product, now time.Time) (Change, error) {
		return p.release(a, now)
	})
}

// Republish sends the image's job again, under the same job id, if it was released before releasedBefore and is overdue by
// more than timeout. ErrDone if the image has no such job; fault.NotFound if the product never existed.
func (s *Service) Republish(ctx context.Context, product ProductID, image ImageID, releasedBefore time.Time,
	timeout time.Duration,
) error {
	_, err := s.Store.Edit(ctx, product, func(p *Product, now time.Time) (Change, error) {
		return p.republish(image, now, releasedBefore, timeout)
	})
	if err != nil {
		return fmt.Errorf("republish: %w", err)
	}
	failpoint.Hit(failpoint.RepublishCommitted)
	s.Wake()
	return nil
}

// recordOutcome writes an attempt's outcome, then invalidates the cache if the outcome is visible. verb names the outcome in
// errors.
func (s *Service) recordOutcome(ctx context.Context, a Attempt, verb string,
	fn func(*Product, time.Time) (Change, error),
) error {
	var before int64
	p, err := s.Store.Edit(ctx, a.ProductID, func(p *Product, now time.Time) (Change, error) {
		before = p.Version
		return fn(p, now)
	})
	if errors.Is(err, ErrOutcomeUnknown) {
		p, err = s.confirmCommit(ctx, a, err)
	}
	switch {
	case fault.Is(err, fault.NotFound):
		return ErrSuperseded
	case err != nil:
		return fmt.Errorf("%s: %w", verb, err)
	}
	hitOutcomeCommitted()
	if p.Version != before {
		s.invalidate(ctx, p.ID, p.Version)
	}
	failpoint.Hit(failpoint.OutcomeInvalidated)
	s.Wake()
	return nil
}

// confirmTimeout is the longest read of a row after a COMMIT of unknown outcome.
const confirmTimeout = 2 * time.Second

// confirmCommit reads the row after a COMMIT of unknown outcome. If the row still has the attempt's fencing token and
// prefix, and the image is no longer processing, this attempt's outcome was committed. Otherwise it returns unknown.
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

// hitOutcomeCommitted crashes the program in tests after the COMMIT of an outcome, see package failpoint.
func hitOutcomeCommitted() { failpoint.Hit(failpoint.OutcomeCommitted) }
