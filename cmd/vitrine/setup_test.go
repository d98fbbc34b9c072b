package main

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/kafka"
)

// lagging answers as brokers do of which the first has not heard of a new topic yet.
type lagging struct {
	asked int
	then  []kafka.Difference
}

func (l *lagging) Check(context.Context) ([]kafka.Difference, error) {
	if l.asked++; l.asked == 1 {
		return []kafka.Difference{{Topic: "images", Setting: "existence", Want: "there", Got: "missing", Danger: true}}, nil
	}
	return l.then, nil
}

func TestSetupWaitsForBrokersThatHaveNotHeardOfATopicYet(t *testing.T) {
	t.Parallel()
	check := func(brokers *lagging) error {
		return insistAll(t.Context(), zap.NewNop(), []step{
			{"settings", func(ctx context.Context) error { return checkTopics(ctx, brokers, zap.NewNop()) }},
		})
	}
	brokers := &lagging{}
	if err := check(brokers); err != nil || brokers.asked != 2 {
		t.Errorf("asked %d times, got %v; want that it is asked once more", brokers.asked, err)
	}
	dangerous := kafka.Difference{Topic: "images", Setting: "replication", Want: "3", Got: "1", Danger: true}
	if err := check(&lagging{then: []kafka.Difference{dangerous}}); err == nil || !strings.Contains(err.Error(), "can lose") {
		t.Errorf("got %v, want that a topic that can lose messages is refused", err)
	}
}
