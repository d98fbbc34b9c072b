package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/IBM/sarama"

	"vitrine.io/pkg/foundation/fault"
)

// The codes of this room's faults.
const (
	codeUnavailable = "kafka_unavailable"
	codeTooLarge    = "message_too_large"
	codeRefused     = "message_refused"
	codeNotJoined   = "kafka_not_joined"
	codeNoTopic     = "topic_missing"
)

// classify says what a failed send means for the message: Invalid when Kafka will never take it, Unavailable for everything
// else. A missing topic, a missing right or a clock that is far off is Unavailable too: the installation is wrong, not the
// message.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case fault.From(err) != nil:
		return err
	case errors.Is(err, sarama.ErrMessageSizeTooLarge):
		return fault.Wrap(err, fault.Invalid, codeTooLarge, "the message is larger than Kafka takes")
	case errors.Is(err, sarama.ErrInvalidRecord):
		return fault.Wrap(err, fault.Invalid, codeRefused, "Kafka refuses the message")
	default:
		return unavailable(err)
	}
}

func unavailable(err error) error {
	return fault.Wrap(err, fault.Unavailable, codeUnavailable, "Kafka cannot be reached or does not answer")
}

// withCause returns err, or the reason why ctx ended if that is what made err happen.
func withCause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}
