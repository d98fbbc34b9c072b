package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/IBM/sarama"

	"vitrine.io/pkg/foundation/fault"
)

// The codes of this package's errors.
const (
	codeUnavailable = "kafka_unavailable"
	codeTooLarge    = "message_too_large"
	codeRefused     = "message_refused"
	codeNotJoined   = "kafka_not_joined"
	codeNoTopic     = "topic_missing"
)

// classify adds an error kind to the error of a send: Invalid if Kafka will never accept the message, else Unavailable. A
// missing topic, a missing permission or a wrong clock is Unavailable too, because the message is not the cause.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case fault.From(err) != nil:
		return err
	case errors.Is(err, sarama.ErrMessageSizeTooLarge):
		return fault.Wrap(err, fault.Invalid, codeTooLarge, "the message is larger than Kafka accepts")
	case errors.Is(err, sarama.ErrInvalidRecord):
		return fault.Wrap(err, fault.Invalid, codeRefused, "Kafka refuses the message")
	default:
		return unavailable(err)
	}
}

func unavailable(err error) error {
	return fault.Wrap(err, fault.Unavailable, codeUnavailable, "Kafka cannot be reached or does not answer")
}

// withCause returns err. If ctx has ended, it adds the cause of that end.
func withCause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}
