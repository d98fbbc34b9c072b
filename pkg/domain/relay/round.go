package relay

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
)

// drain runs one round and reports whether it claimed a full batch. An error means that a server is down and that the relay
// has to wait. The round does not end with ctx, because messages that are published but not deleted are published again.
func (r *Relay) drain(ctx context.Context) (full bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), roundTimeout)
	defer cancel()
	var outage error
	start := time.Now()
	drained, err := r.outbox.Drain(ctx, r.config.Batch, func(ctx context.Context, messages []event.Message) []error {
		results := r.publisher.Publish(ctx, messages)
		failpoint.Hit(failpoint.RelayPublished)
		outage = r.logResults(messages, results)
		return results
	})
	if drained.Published > 0 {
		failpoint.Hit(failpoint.RelayDrained)
	}
	if fault.Is(err, fault.Invalid) { // the outbox delays a refused message, and the relay does not pause for it
		err = nil
	}
	err = errors.Join(outage, err)
	r.record(drained, time.Since(start), err)
	return drained.Claimed >= r.config.Batch, err
}

// record records the result of a round in the metrics, and logs parked messages.
func (r *Relay) record(drained Drained, elapsed time.Duration, err error) {
	r.metrics.published.Add(float64(drained.Published))
	r.metrics.refused.Add(float64(drained.Refused))
	r.metrics.parkedByRefusal.Add(float64(drained.Parked))
	if drained.Parked > 0 {
		r.log.Error("messages parked: Kafka refused them too often", zap.Int("parked", drained.Parked))
	}
	switch {
	case err != nil:
		r.metrics.rounds.WithLabelValues("failed").Inc()
	case drained.Claimed > 0:
		r.metrics.rounds.WithLabelValues("ok").Inc()
	}
	if drained.Claimed > 0 {
		r.metrics.seconds.Observe(elapsed.Seconds())
	}
}
