package devstack_test

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/platform/devstack"
)

func startKafka(t *testing.T, cfg devstack.KafkaConfig) *devstack.Kafka {
	t.Helper()
	broker, err := devstack.StartKafka(cfg, zap.NewNop())
	if err != nil {
		t.Fatalf("start kafka: %v", err)
	}
	t.Cleanup(broker.Close)
	return broker
}

func TestKafka(t *testing.T) {
	t.Parallel()
	t.Run("restart_keeps_messages_and_offsets", testKafkaRestartKeepsMessagesAndOffsets)
	t.Run("port_in_use", testKafkaPortInUse)
	t.Run("failed_write_is_logged", testKafkaFailedWriteIsLogged)
	t.Run("malformed_request_is_logged", testKafkaMalformedRequestIsLogged)
}

// This test uses Vitrine's own clients. The complete suite is in test/kafkatest.
func testKafkaRestartKeepsMessagesAndOffsets(t *testing.T) {
	t.Parallel()
	cfg := devstack.KafkaConfig{DataDir: t.TempDir()}
	first := startKafka(t, cfg)
	config := kafka.Config{
		Brokers: first.Addrs(), Version: "2.8.0", ClientID: "test", Partitions: 1, Replication: 1, MinISR: 1,
	}
	produce(t, config, "a", "b")
	if got := consume(t, config, 2); got != "a b" {
		t.Errorf("before the restart: got %q, want %q", got, "a b")
	}
	produce(t, config, "c")
	first.Close()
	cfg.Addr = first.Addrs()[0]
	first.Close() // a second call does nothing
	second := startKafka(t, cfg)
	config.Brokers = second.Addrs()
	if got := consume(t, config, 1); got != "c" {
		t.Errorf("after the restart: got %q, want only what was not consumed before", got)
	}
}

func produce(t *testing.T, config kafka.Config, ids ...string) {
	t.Helper()
	admin, err := kafka.NewAdmin(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := kafka.NewPublisher(config, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	for _, id := range ids {
		m := event.New(id, "1", event.ProductChanged{ProductID: 1, Version: 1})
		if err := p.Publish(t.Context(), []event.Message{m})[0]; err != nil {
			t.Fatal(err)
		}
	}
}

// consume returns the ids of n messages.
func consume(t *testing.T, config kafka.Config, n int) string {
	t.Helper()
	found := make(chan string, 10)
	options := kafka.ConsumerConfig{Group: "g", Topic: event.TopicChanged, InFlight: 1}
	c, err := kafka.NewConsumer(config, options, func(_ context.Context, m event.Message) error {
		found <- m.ID
		return nil
	}, nil, prometheus.NewRegistry(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	var got []string
	for range n {
		select {
		case id := <-found:
			got = append(got, id)
		case <-time.After(time.Minute):
			t.Fatalf("got %v within a minute, want %d messages", got, n)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
	return strings.Join(got, " ")
}

func testKafkaPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	if _, err := devstack.StartKafka(devstack.KafkaConfig{Addr: addr}, zap.NewNop()); err == nil ||
		!strings.Contains(err.Error(), addr) {
		t.Errorf("got %v, want an error that names %s", err, addr)
	}
}

func testKafkaFailedWriteIsLogged(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.WarnLevel)
	dir := filepath.Join(t.TempDir(), "kafka")
	broker, err := devstack.StartKafka(devstack.KafkaConfig{DataDir: dir}, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file at the path of the directory
		t.Fatal(err)
	}
	broker.Close()
	if got := logs.FilterMessageSnippet("persist").FilterLoggerName("kfake").Len(); got == 0 {
		t.Errorf("the failed write is not logged: %v", logs.All())
	}
}

func testKafkaMalformedRequestIsLogged(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.DebugLevel)
	broker, err := devstack.StartKafka(devstack.KafkaConfig{}, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	conn, err := net.Dial("tcp", broker.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// A produce request, version 3, without a body.
	if _, err := conn.Write([]byte{0, 0, 0, 10, 0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil { // it closes the connection
		t.Fatal(err)
	}
	if got := logs.FilterLevelExact(zap.DebugLevel).Len(); got == 0 {
		t.Error("nothing was logged")
	}
}
