package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/failpoint"
)

// sessionHandler has the callbacks for one session. A session is the time between two rebalances.
type sessionHandler struct {
	*Consumer
	run context.Context //nolint:containedctx // the context of Run; handlers get its values, but do not end with it
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

// ConsumeClaim implements sarama.ConsumerGroupHandler. It handles the records of one partition until the session ends. It
// returns when all handlers have returned and the records that they finished are marked.
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
		if !h.slots.Acquire(accepting.Done()) {
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

// next waits until a record may be started, and returns the next one. ok is false if the partition has to be released.
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

// drain waits for the running handlers. After the grace period it ends their context.
func (h *sessionHandler) drain(inFlight *sync.WaitGroup, stopHandling context.CancelFunc, partition int32) {
	timer := time.AfterFunc(h.grace, func() {
		h.log.Warn("handlers did not finish within the grace period",
			zap.Int32("partition", partition), zap.Duration("grace", h.grace))
		stopHandling()
	})
	defer timer.Stop()
	inFlight.Wait()
}

// send waits until it can send to tokens and returns true. If stop is closed before, it returns false.
func send(tokens chan<- struct{}, stop <-chan struct{}) bool {
	select {
	case tokens <- struct{}{}:
		return true
	case <-stop:
		return false
	}
}
