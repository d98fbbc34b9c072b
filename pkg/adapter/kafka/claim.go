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
	run context.Context //nolint:containedctx // of Run, for sarama's callbacks: work keeps its values, not its end
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

// ConsumeClaim implements sarama.ConsumerGroupHandler: it works on one partition until the session ends, lets the work in
// flight finish, and comes back when all of it has ended and is marked.
func (h *sessionHandler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	taking, stopTaking := context.WithCancel(session.Context())
	defer stopTaking()
	working, stopWorking := context.WithCancel(context.WithoutCancel(h.run))
	defer stopWorking()
	progress := newTracker(window)
	var inFlight sync.WaitGroup
	for {
		record, ok := h.next(taking.Done(), claim, progress)
		if !ok {
			break
		}
		message := progress.take(record.Offset)
		if !h.enterSlot(taking.Done()) {
			break
		}
		inFlight.Go(func() {
			if !h.work(taking, working, record) {
				return
			}
			failpoint.Hit(failpoint.KafkaHandled)
			if next, grew := progress.finish(message); grew {
				session.MarkOffset(record.Topic, record.Partition, next, "")
				failpoint.Hit(failpoint.KafkaMarked)
			}
		})
	}
	stopTaking()
	h.drain(&inFlight, stopWorking, claim.Partition())
	return nil
}

// next waits for the next record that may be begun. It is false when the partition has to be let go.
func (h *sessionHandler) next(
	stop <-chan struct{}, claim sarama.ConsumerGroupClaim, progress *tracker,
) (*sarama.ConsumerMessage, bool) {
	if !h.gate.wait(stop) || !progress.reserve(stop) {
		return nil, false
	}
	select {
	case record, ok := <-claim.Messages():
		return record, ok
	case <-stop:
		return nil, false
	}
}

// drain waits for the work in flight, and ends its context when the grace is over.
func (h *sessionHandler) drain(inFlight *sync.WaitGroup, stopWorking context.CancelFunc, partition int32) {
	timer := time.AfterFunc(h.grace, func() {
		h.log.Warn("work in flight did not finish in time and is released",
			zap.Int32("partition", partition), zap.Duration("grace", h.grace))
		stopWorking()
	})
	defer timer.Stop()
	inFlight.Wait()
}

// enterSlot waits for one of the process's places for work.
func (c *Consumer) enterSlot(stop <-chan struct{}) bool {
	select {
	case c.slots <- struct{}{}:
		return true
	case <-stop:
		return false
	}
}

func (c *Consumer) leaveSlot() { <-c.slots }
