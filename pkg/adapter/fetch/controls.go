package fetch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/media"
)

const (
	maxControlNames = 8
	controlTimeout  = 2 * time.Second // for all control names, which are looked up at the same time
	controlTTL      = 2 * time.Second // how long a result is used again
)

// noAnswer is the error of a lookup for which the resolver gave no answer: SERVFAIL, a timeout, or no connection to it.
type noAnswer struct {
	began time.Time // of the lookup
	cause error
}

func (e *noAnswer) Error() string { return e.cause.Error() }
func (e *noAnswer) Unwrap() error { return e.cause }

// isNotFound reports whether err is the resolver's answer that a name does not exist or has no address.
func isNotFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// controls tells a fault of the resolver from one of a source's name servers. Both look the same in a lookup. So after a
// failed lookup the control names are looked up, and the resolver is at fault unless it answers for more than half of them.
// That a name does not exist is an answer. Without names the source is always at fault.
type controls struct {
	resolver Resolver
	names    []string
	now      func() time.Time
	metrics  *metrics
	log      *zap.Logger

	mu   sync.Mutex
	last *controlRound // the current one, or the last one that ended
}

// controlRound is one lookup of all control names.
type controlRound struct {
	began time.Time
	done  chan struct{}
	ended time.Time // after done, as err
	err   error     // why the resolver is at fault, or nil
}

// blame returns err, or a ResolverUnavailable in its place if err is a lookup without an answer and the control names have
// none, either. It waits for their lookup, at most until ctx ends.
func (c *controls) blame(ctx context.Context, err error) error {
	var lookup *noAnswer
	if f := media.FailureOf(err); f == nil || f.Code != media.DNSFailed || !errors.As(f.Cause, &lookup) {
		return err
	}
	if fault := c.check(ctx, lookup.began); fault != nil {
		return media.Fail(media.ResolverUnavailable, "the resolver of this installation does not answer",
			fmt.Errorf("%w; %w", lookup, fault))
	}
	return err
}

// answeredSince reports whether err, a result of blame, is a lookup without an answer after which the control names had one.
func (c *controls) answeredSince(err error) bool {
	f := media.FailureOf(err)
	return len(c.names) > 0 && f != nil && f.Code == media.DNSFailed && errors.As(f.Cause, new(*noAnswer))
}

// check returns nil if the resolver answers for the control names, and otherwise why it does not. A result is used again for
// controlTTL. That the resolver answers is not used for a lookup that began later: the outage may have begun in between.
func (c *controls) check(ctx context.Context, since time.Time) error {
	if len(c.names) == 0 {
		return nil
	}
	for {
		round, started := c.join(since)
		if started {
			c.ask(context.WithoutCancel(ctx), round)
		}
		select {
		case <-round.done:
		case <-ctx.Done():
			return nil
		}
		if round.err != nil || !round.began.Before(since) {
			return round.err
		}
	}
}

// join returns the round whose result answers for a lookup that began at since, or a round that may do so, or a new one that
// the caller has to run.
func (c *controls) join(since time.Time) (_ *controlRound, started bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last := c.last; last != nil {
		select {
		case <-last.done:
			fresh := c.now().Sub(last.ended) < controlTTL
			if fresh && (last.err != nil || !last.began.Before(since)) {
				return last, false
			}
		default:
			return last, false
		}
	}
	c.last = &controlRound{began: c.now(), done: make(chan struct{})}
	return c.last, true
}

// ask looks all names up. ctx must not end with one caller, because other lookups wait for the result.
func (c *controls) ask(ctx context.Context, round *controlRound) {
	defer close(round.done)
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	errs := make([]error, len(c.names))
	var lookups sync.WaitGroup
	for i, name := range c.names {
		lookups.Go(func() {
			if _, err := c.resolver.LookupNetIP(ctx, "ip", name); err != nil && !isNotFound(err) {
				errs[i] = err
			}
		})
	}
	lookups.Wait()
	answered := 0
	for i, err := range errs {
		if err == nil {
			answered++
		}
		c.metrics.controls.WithLabelValues(c.names[i], strconv.FormatBool(err == nil)).Inc()
	}
	if 2*answered <= len(c.names) {
		round.err = fmt.Errorf("no answer for %d of %d control names: %w",
			len(c.names)-answered, len(c.names), errors.Join(errs...))
	}
	if round.ended = c.now(); round.err != nil {
		c.log.Warn("the resolver does not answer", zap.Error(round.err))
	}
}

// CheckResolver returns nil if the resolver answers for more than half of the control names, or if there are none.
func (f *Fetcher) CheckResolver(ctx context.Context) error { return f.controls.check(ctx, f.now()) }
