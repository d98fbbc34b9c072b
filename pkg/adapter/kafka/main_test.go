package kafka_test

import (
	"testing"

	"go.uber.org/goleak"

	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) {
	// The clock of sarama's circuit breakers, which nothing ends but its ten seconds.
	servers.Main(m, goleak.IgnoreAnyFunction("github.com/eapache/go-resiliency/breaker.(*Breaker).timer"))
}
