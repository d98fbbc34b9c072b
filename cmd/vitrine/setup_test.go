package main

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/kafka"
)

// laggingBrokers returns at the first Check that a topic does not exist yet.
type laggingBrokers struct {
	checks int
	later  []kafka.Difference // of all other Checks
}

func (l *laggingBrokers) Check(context.Context) ([]kafka.Difference, error) {
	if l.checks++; l.checks == 1 {
		return []kafka.Difference{{Topic: "images", Setting: "existence", Want: "there", Got: "missing", Danger: true}}, nil
	}
	return l.later, nil
}

func TestSetup(t *testing.T) {
	t.Parallel()
	t.Run("unknown_topic_is_retried", testSetupUnknownTopicIsRetried)
}

func testSetupUnknownTopicIsRetried(t *testing.T) {
	t.Parallel()
	check := func(brokers *laggingBrokers) error {
		return runSteps(t.Context(), zap.NewNop(), []step{
			{"settings", func(ctx context.Context) error { return checkTopics(ctx, brokers, zap.NewNop()) }},
		})
	}
	brokers := &laggingBrokers{}
	if err := check(brokers); err != nil || brokers.checks != 2 {
		t.Errorf("%d checks, got %v; want a second check", brokers.checks, err)
	}
	dangerous := kafka.Difference{Topic: "images", Setting: "replication", Want: "3", Got: "1", Danger: true}
	err := check(&laggingBrokers{later: []kafka.Difference{dangerous}})
	if err == nil || !strings.Contains(err.Error(), "can lose") {
		t.Errorf("got %v, want an error about a topic that can lose messages", err)
	}
}
