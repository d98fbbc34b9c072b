package kafka_test

import (
	"testing"
	"time"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/test/port"
)

func TestProgress(t *testing.T) {
	t.Parallel()
	_, withoutTopics := cluster(t)
	for name, config := range map[string]kafka.Config{
		"no_listener": local([]string{port.Addr(t)}, ""), "missing_topic": withoutTopics,
	} {
		p, err := kafka.NewProgress(config)
		if err != nil {
			t.Fatalf("make progress: %v", err)
		}
		if _, err := p.Passed(t.Context(), time.Time{}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: got %v, want unavailable", name, err)
		}
	}
}
