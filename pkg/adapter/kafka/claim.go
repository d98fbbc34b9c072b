package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/failpoint"
)

// sessionHandler is what sarama calls during one session: the time between two rebalances.
type sessionHandler struct {
	*Consumer
	run context.Context //nolint:containedctx // of Run, for sarama's callbacks: handlers get its values, not its end
}

// Setup implements sarama.ConsumerGroupHandler.
func (h *sessionHandler) Setup(session sarama.ConsumerGroupSession) error {
	h.metrics.sessions.Inc()
	h.joined.Store(true)
	h.log.Info("joined the consumer group", zap.Int32("generation", session.GenerationID()),
		zap.Int32s("partitions", session.Claims()[h.topic]))
	return nil
}

// Cleanup implements sarama.ConsumerGroupHandler.
func (h *sessionHandler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim implements sarama.ConsumerGroupHandler. It handles one partition until the session ends, and returns when
// all handlers have returned and what they finished is marked.
func (h *sessionHandler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	accepting, stopAccepting := context.WithCancel(session.Context())
	defer stopAccepting()
	handling, stopHandling := context.WithCancel(context.WithoutCancel(h.run))
	defer stopHandling()
	progress := newTracker(window)
	var inFlight sync.WaitGroup
	for {
		record, ok := h.next(accepting.Done(), claim, progress)
		if !ok {
			break
		}
		tracked := progress.add(record.Offset)
		if !send(h.slots, accepting.Done()) {
			break
		}
		inFlight.Go(func() {
			if !h.process(accepting, handling, record) {
				return
			}
			failpoint.Hit(failpoint.KafkaHandled)
			if next, grew := progress.finish(tracked); grew {
				session.MarkOffset(record.Topic, record.Partition, next, "")
				failpoint.Hit(failpoint.KafkaMarked)
			}
		})
	}
	stopAccepting()
	h.drain(&inFlight, stopHandling, claim.Partition())
	return nil
}

// next waits for the next record that may be started. ok is false when the partition has to be released.
func (h *sessionHandler) next(
	stop <-chan struct{}, claim sarama.ConsumerGroupClaim, progress *tracker,
) (record *sarama.ConsumerMessage, ok bool) {
	if !h.pauser.wait(stop) || !progress.reserve(stop) {
		return nil, false
	}
	select {
	case record, ok = <-claim.Messages():
		return record, ok
	case <-stop:
		return nil, false
	}
}

// drain waits for the running handlers, and ends their context after the grace period.
func (h *sessionHandler) drain(inFlight *sync.WaitGroup, stopHandling context.CancelFunc, partition int32) {
	timer := time.AfterFunc(h.grace, func() {
		h.log.Warn("handlers did not finish within the grace period",
			zap.Int32("partition", partition), zap.Duration("grace", h.grace))
		stopHandling()
	})
	defer timer.Stop()
	inFlight.Wait()
}

// send waits until it can send to tokens and returns true, or false once stop is closed.
func send(tokens chan<- struct{}, stop <-chan struct{}) bool {
	select {
	case tokens <- struct{}{}:
		return true
	case <-stop:
		return false
	}
}
