package kafka_test

import (
	"testing"

	"go.uber.org/goleak"

	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) {
	// The timer of sarama's circuit breakers ends only after ten seconds.
	servers.Main(m, goleak.IgnoreAnyFunction("github.com/eapache/go-resiliency/breaker.(*Breaker).timer"))
}
