package kafka_test

import (
	"context"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/event"
)

// waitLimit is how long a test waits for an event that must happen.
const waitLimit = 60 * time.Second

// cluster starts an in-process broker that can simulate errors.
func cluster(t *testing.T, options ...kfake.Opt) (*kfake.Cluster, kafka.Config) {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, options...)...)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(c.Close)
	return c, local(c.ListenAddrs(), "")
}

// seeded starts a cluster that has the topics, with one partition each.
func seeded(t *testing.T, options ...kfake.Opt) (*kfake.Cluster, kafka.Config) {
	t.Helper()
	return cluster(t, append(options, kfake.SeedTopics(1, event.Topics()...))...)
}

// count returns the number of records in the only partition of images.requested.
func count(c *kfake.Cluster) int64 { return c.PartitionInfo(event.TopicRequested, 0).HighWatermark }

// messages returns n jobs.
func messages(n int) []event.Message {
	requests := make([]event.Message, n)
	for i := range requests {
		id := int64(i + 1)
		requests[i] = event.New(uuid.NewString(), event.Key(id), event.ImageRequested{
			ProductID: id, ImageID: id, SourceURL: "https://example.com/" + strconv.Itoa(i), PipelineHash: "hash",
		})
	}
	return requests
}

func newPublisher(t *testing.T, config kafka.Config) (*kafka.Publisher, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	p, err := kafka.NewPublisher(config, reg, zap.NewNop())
	if err != nil {
		t.Fatalf("make publisher: %v", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p, reg
}

// requested returns the options of a consumer of images.requested, with short timeouts.
func requested(group string) kafka.ConsumerConfig {
	return kafka.ConsumerConfig{
		Group: group, Topic: event.TopicRequested, InFlight: 4,
		RebalanceTimeout: 4 * time.Second, SessionTimeout: 6 * time.Second,
	}
}

// running is a running consumer.
type running struct {
	*kafka.Consumer
	reg  *prometheus.Registry
	logs *observer.ObservedLogs
	stop func()
}

// run starts a consumer that is stopped when the test ends.
func run(
	t *testing.T, config kafka.Config, options kafka.ConsumerConfig, handle kafka.Handle, dead relay.Publisher,
) *running {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	r := &running{reg: prometheus.NewRegistry(), logs: logs}
	var err error
	if r.Consumer, err = kafka.NewConsumer(config, options, handle, dead, r.reg, zap.New(core)); err != nil {
		t.Fatalf("make consumer: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(waitLimit)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("did not happen within %s: %s", waitLimit, what)
		}
	}
}

// blackHole returns the address of a server that accepts connections and never answers.
func blackHole(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		var held []net.Conn
		for {
			conn, err := listener.Accept()
			if err != nil {
				for _, c := range held {
					_ = c.Close()
				}
				return
			}
			held = append(held, conn)
		}
	})
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	return listener.Addr().String()
}

// tally counts messages by id.
type tally struct {
	mu   sync.Mutex
	seen map[string]int
}

func newTally() *tally { return &tally{seen: make(map[string]int)} }

// add counts a message and returns how often it was counted, this time included.
func (a *tally) add(m event.Message) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen[m.ID]++
	return a.seen[m.ID]
}

// size returns the number of different messages.
func (a *tally) size() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seen)
}

// handle is a kafka.Handle that only counts.
func (a *tally) handle(_ context.Context, m event.Message) error {
	a.add(m)
	return nil
}

// silenced starts a broker that sends no answer from the first request with the key on.
func silenced(t *testing.T, key kmsg.Key) kafka.Config {
	t.Helper()
	l := &silencedListener{release: make(chan struct{})}
	c, config := seeded(t, kfake.ListenFn(func(network, address string) (_ net.Listener, err error) {
		l.Listener, err = net.Listen(network, address)
		return l, err
	}))
	t.Cleanup(func() { close(l.release) })
	c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		l.silent.Store(true)
		return nil, nil, false
	})
	return config
}

type silencedListener struct {
	net.Listener
	silent  atomic.Bool
	release chan struct{}
}

func (l *silencedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &silencedConn{conn, l}, nil
}

type silencedConn struct {
	net.Conn
	listener *silencedListener
}

// Write blocks until the test ends once the listener is silent.
func (c *silencedConn) Write(b []byte) (int, error) {
	if c.listener.silent.Load() {
		<-c.listener.release
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}
