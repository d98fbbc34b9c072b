package kafka_test

import (
	"testing"

	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/platform/devstack"
	"vitrine.io/pkg/test/kafkatest"
	"vitrine.io/pkg/test/servers"
)

// local returns a configuration without login, TLS and replicas.
func local(brokers []string, prefix string) kafka.Config {
	return kafka.Config{
		Brokers: brokers, TopicPrefix: prefix, Version: "2.8.0", ClientID: "vitrine-test",
		Partitions: 1, Replication: 1, MinISR: 1,
	}
}

func TestConformanceBroker(t *testing.T) {
	t.Parallel()
	kafkatest.Run(t, func(t testing.TB) kafka.Config {
		t.Helper()
		brokers, prefix := servers.Kafka(t)
		return local(brokers, prefix)
	})
}

func TestConformanceStandIn(t *testing.T) {
	t.Parallel()
	kafkatest.Run(t, func(t testing.TB) kafka.Config {
		t.Helper()
		broker, err := devstack.StartKafka(devstack.KafkaConfig{}, zap.NewNop())
		if err != nil {
			t.Fatalf("start: %v", err)
		}
		t.Cleanup(broker.Close)
		return local(broker.Addrs(), "t.")
	})
}
