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

// publishBatch runs one batch and reports whether it was full. An error means that a server is down and that the relay
// has to wait. The end of ctx does not interrupt a batch, because messages that are published but not deleted are
// published a second time.
func (r *Relay) publishBatch(ctx context.Context) (full bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), batchTimeout)
	defer cancel()
	var outage error
	start := time.Now()
	result, err := r.outbox.PublishBatch(ctx, r.config.Batch, func(ctx context.Context, messages []event.Message) []error {
		results := r.publisher.Publish(ctx, messages)
		failpoint.Hit(failpoint.RelayPublished)
		outage = r.logResults(messages, results)
		return results
	})
	if result.Published > 0 {
		failpoint.Hit(failpoint.RelayBatchCommitted)
	}
	if fault.Is(err, fault.Invalid) { // the outbox delays a refused message, and the relay does not pause for it
		err = nil
	}
	err = errors.Join(outage, err)
	r.record(result, time.Since(start), err)
	return result.Claimed >= r.config.Batch, err
}

// record records the result of a batch in the metrics, and logs parked messages.
func (r *Relay) record(result BatchResult, elapsed time.Duration, err error) {
	r.metrics.published.Add(float64(result.Published))
	r.metrics.refused.Add(float64(result.Refused))
	r.metrics.parkedByRefusal.Add(float64(result.Parked))
	if result.Parked > 0 {
		r.log.Error("messages parked: Kafka refused them too often", zap.Int("parked", result.Parked))
	}
	switch {
	case err != nil:
		r.metrics.batches.WithLabelValues("failed").Inc()
	case result.Claimed > 0:
		r.metrics.batches.WithLabelValues("ok").Inc()
	}
	if result.Claimed > 0 {
		r.metrics.seconds.Observe(elapsed.Seconds())
	}
}
