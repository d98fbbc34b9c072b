package kafka

import (
	"errors"
	"testing"

	"github.com/IBM/sarama"

	"vitrine.io/pkg/foundation/fault"
)

// The outbox deletes acknowledged messages, so a message without a known result must not count as acknowledged.
func TestAssignResults(t *testing.T) {
	t.Parallel()
	batch := []*sarama.ProducerMessage{{Metadata: 0}, {Metadata: 1}}
	second := sarama.ProducerErrors{{Msg: batch[1], Err: sarama.ErrNotEnoughReplicas}}
	for name, c := range map[string]struct {
		err    error
		failed [2]bool
	}{
		"no_error":                  {nil, [2]bool{}},
		"one_of_two":                {second, [2]bool{false, true}},
		"one_of_two_wrapped":        {errors.Join(errors.New("send"), second), [2]bool{false, true}},
		"error_without_messages":    {errors.New("the producer is closed"), [2]bool{true, true}},
		"error_of_a_single_message": {second[0], [2]bool{true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := []error{errors.New("before"), errors.New("before")}
			assignResults(t.Context(), batch, results, c.err)
			for i, want := range c.failed {
				if want != fault.Is(results[i], fault.Unavailable) || !want && results[i] != nil {
					t.Errorf("message %d: got %v, want failed %t", i, results[i], want)
				}
			}
		})
	}
}
