package kafka

import (
	"errors"
	"testing"

	"github.com/IBM/sarama"

	"vitrine.io/pkg/foundation/fault"
)

// What nobody said was written is not written: the outbox deletes what counts as acknowledged.
func TestOnlyWhatIsKnownToBeWrittenIsAcknowledged(t *testing.T) {
	t.Parallel()
	batch := []*sarama.ProducerMessage{{Metadata: 0}, {Metadata: 1}}
	second := sarama.ProducerErrors{{Msg: batch[1], Err: sarama.ErrNotEnoughReplicas}}
	for name, c := range map[string]struct {
		err  error
		lost [2]bool
	}{
		"no error":            {nil, [2]bool{}},
		"one of two":          {second, [2]bool{false, true}},
		"one of two, wrapped": {errors.Join(errors.New("send"), second), [2]bool{false, true}},
		"an error of its own": {errors.New("the producer is closed"), [2]bool{true, true}},
		"a single one":        {second[0], [2]bool{true, true}},
	} {
		results := []error{errors.New("before"), errors.New("before")}
		assignResults(t.Context(), batch, results, c.err)
		for i, want := range c.lost {
			if want != fault.Is(results[i], fault.Unavailable) || !want && results[i] != nil {
				t.Errorf("%s: message %d: got %v, want lost %t", name, i, results[i], want)
			}
		}
	}
}
