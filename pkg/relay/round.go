package relay

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/event"
	"vitrine.io/pkg/failpoint"
)

// round is one Drain under way.
type round struct {
	full  chan struct{} // closed once the claim has shown that there may be more
	over  chan struct{} // closed at the end; then what follows may be read
	err   error
	panic string // what Drain panicked with, and where
}

// nobody is the round before the first.
func nobody() *round {
	n := &round{over: make(chan struct{})}
	close(n.over)
	return n
}

// begin starts a round.
func (r *Relay) begin(ctx context.Context) *round {
	this := &round{full: make(chan struct{}), over: make(chan struct{})}
	go func() {
		defer close(this.over)
		defer func() {
			if p := recover(); p != nil {
				this.panic = fmt.Sprintf("%v\n%s", p, debug.Stack())
			}
		}()
		this.err = r.drain(ctx, this)
	}()
	return this
}

// claimed waits until the claim is known, and says whether there may be more at once.
func (n *round) claimed() bool {
	select {
	case <-n.full:
		return true
	case <-n.over:
	}
	select {
	case <-n.full:
		return true
	default:
		return false
	}
}

// wait returns how the round has ended. An error says that something is down and waiting is better. A panic goes on here,
// where those who run the relay see it.
func (n *round) wait() error {
	<-n.over
	if n.panic != "" {
		panic(n.panic)
	}
	return n.err
}

// drain does a round. It is not interrupted by ctx once it publishes: what was begun is finished, or its messages are
// published twice.
func (r *Relay) drain(ctx context.Context, this *round) error {
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), roundBound)
	defer cancel()
	var once sync.Once
	showFull := func() { once.Do(func() { close(this.full) }) }
	var outage error
	started := time.Now()
	drained, err := r.outbox.Drain(bound, r.config.Batch, func(bound context.Context, messages []event.Message) []error {
		if len(messages) >= r.config.Batch {
			showFull()
		}
		results := r.publisher.Publish(bound, messages)
		failpoint.Hit(failpoint.RelayPublished)
		outage = r.judge(messages, results)
		return results
	})
	if drained.Published > 0 {
		failpoint.Hit(failpoint.RelayDrained)
	}
	if drained.Claimed >= r.config.Batch { // rows that cannot be read are no messages
		showFull()
	}
	err = errors.Join(outage, withoutRefusal(err))
	r.account(drained, time.Since(started), err)
	return err
}

// account counts what a round did, and tells what a person has to look at.
func (r *Relay) account(drained Drained, took time.Duration, err error) {
	r.metrics.drained(drained)
	if drained.Parked > 0 {
		r.log.Error("messages were parked: Kafka refused them too often", zap.Int("parked", drained.Parked))
	}
	switch {
	case err != nil:
		r.metrics.rounds.WithLabelValues("failed").Inc()
	case drained.Claimed > 0:
		r.metrics.rounds.WithLabelValues("ok").Inc()
	}
	if drained.Claimed > 0 {
		r.metrics.seconds.Observe(took.Seconds())
	}
}
