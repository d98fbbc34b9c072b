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
	"vitrine.io/pkg/fault"
)

// turnBound is how long a round that has claimed waits for its turn to publish. Its transaction is open meanwhile, and of
// its five seconds enough has to be left.
const turnBound = time.Second

// ErrGaveWay is the answer for messages of a round that did not get its turn. To the outbox it is as if Kafka were not
// there, and the rows stay as they are; but nothing is known against their partitions.
var ErrGaveWay = fault.New(fault.Unavailable, "gave_way", "the round before has not been answered by Kafka")

// round is one Drain under way.
type round struct {
	full   chan struct{} // closed once the claim has shown that there may be more
	sent   chan struct{} // closed when Kafka has answered, or will not be asked; then outage may be read
	outage error
	over   chan struct{} // closed at the end; then what follows may be read
	err    error
	panic  string // what Drain panicked with, and where
}

// nobody is the round before the first.
func nobody() *round {
	n := &round{sent: make(chan struct{}), over: make(chan struct{})}
	close(n.sent)
	close(n.over)
	return n
}

// begin starts a round, which publishes after the last one has.
func (r *Relay) begin(ctx context.Context, last *round) *round {
	this := &round{full: make(chan struct{}), sent: make(chan struct{}), over: make(chan struct{})}
	go func() {
		defer close(this.over)
		defer func() {
			if p := recover(); p != nil {
				this.panic = fmt.Sprintf("%v\n%s", p, debug.Stack())
			}
		}()
		this.err = r.drain(ctx, this, last)
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

// drain does a round. Once it publishes it is not interrupted by ctx: what was begun is finished, or its messages are
// published twice.
func (r *Relay) drain(ctx context.Context, this, last *round) error {
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), roundBound)
	defer cancel()
	var once sync.Once
	asked, showFull := false, func() { once.Do(func() { close(this.full) }) }
	started := time.Now()
	drained, err := r.outbox.Drain(bound, r.config.Batch, func(bound context.Context, messages []event.Message) []error {
		if len(messages) >= r.config.Batch {
			showFull()
		}
		if asked = last.gives(ctx, bound); !asked {
			return gaveWay(messages)
		}
		results := r.publisher.Publish(bound, messages)
		failpoint.Hit(failpoint.RelayPublished)
		this.outage = r.judge(messages, results)
		close(this.sent)
		return results
	})
	if !asked {
		close(this.sent)
	}
	if drained.Published > 0 {
		failpoint.Hit(failpoint.RelayDrained)
	}
	if drained.Claimed >= r.config.Batch { // rows that cannot be read are no messages
		showFull()
	}
	err = errors.Join(this.outage, withoutRefusal(err))
	r.account(drained, asked, time.Since(started), err)
	return err
}

// gives reports whether the round after n may publish: as soon as n has. It may not where Kafka did not answer n, when ctx
// or bound has ended, or when there is too little time left.
func (n *round) gives(ctx, bound context.Context) bool {
	patience := time.NewTimer(turnBound)
	defer patience.Stop()
	select {
	case <-n.sent:
		return n.outage == nil && ctx.Err() == nil
	case <-patience.C:
	case <-ctx.Done():
	case <-bound.Done():
	}
	return false
}

// gaveWay answers for messages that were not handed to Kafka.
func gaveWay(messages []event.Message) []error {
	results := make([]error, len(messages))
	for i := range results {
		results[i] = ErrGaveWay
	}
	return results
}

// account counts what a round did, and tells what a person has to look at.
func (r *Relay) account(drained Drained, asked bool, took time.Duration, err error) {
	r.metrics.drained(drained)
	if drained.Parked > 0 {
		r.log.Error("messages were parked: Kafka refused them too often", zap.Int("parked", drained.Parked))
	}
	switch {
	case err != nil:
		r.metrics.rounds.WithLabelValues("failed").Inc()
	case asked:
		r.metrics.rounds.WithLabelValues("ok").Inc()
	}
	if asked {
		r.metrics.seconds.Observe(took.Seconds())
	}
}
