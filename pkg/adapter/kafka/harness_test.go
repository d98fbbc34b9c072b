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

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

// cluster starts an in-process broker that can be told to misbehave.
func cluster(t *testing.T, options ...kfake.Opt) (*kfake.Cluster, kafka.Config) {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, options...)...)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(c.Close)
	return c, local(c.ListenAddrs(), "")
}

// seeded starts one that has the topics, with one partition each.
func seeded(t *testing.T, options ...kfake.Opt) (*kfake.Cluster, kafka.Config) {
	t.Helper()
	return cluster(t, append(options, kfake.SeedTopics(1, event.Topics()...))...)
}

// count returns how many records the requests' only partition has.
func count(c *kfake.Cluster) int64 { return c.PartitionInfo(event.TopicRequested, 0).HighWatermark }

// messages returns n requests.
func messages(n int) []event.Message {
	made := make([]event.Message, n)
	for i := range made {
		id := int64(i + 1)
		made[i] = event.New(uuid.NewString(), event.Key(id), event.ImageRequested{
			ProductID: id, ImageID: id, SourceURL: "https://example.com/" + strconv.Itoa(i), PipelineHash: "hash",
		})
	}
	return made
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

// requested is a consumer of requests with bounds that suit a test.
func requested(group string) kafka.ConsumerConfig {
	return kafka.ConsumerConfig{
		Group: group, Topic: event.TopicRequested, InFlight: 4,
		RebalanceTimeout: 4 * time.Second, SessionTimeout: 6 * time.Second,
	}
}

// running is a consumer that runs.
type running struct {
	*kafka.Consumer
	reg  *prometheus.Registry
	logs *observer.ObservedLogs
	stop func()
}

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
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("did not happen within %s: %s", patience, what)
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

func (a *tally) add(m event.Message) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen[m.ID]++
	return a.seen[m.ID]
}

// size is the number of different messages.
func (a *tally) size() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seen)
}

func (a *tally) take(_ context.Context, m event.Message) error {
	a.add(m)
	return nil
}

// mute starts a broker that answers nothing more from the first request of a kind on.
func mute(t *testing.T, key kmsg.Key) kafka.Config {
	t.Helper()
	m := &muteListener{release: make(chan struct{})}
	c, config := seeded(t, kfake.ListenFn(func(network, address string) (_ net.Listener, err error) {
		m.Listener, err = net.Listen(network, address)
		return m, err
	}))
	t.Cleanup(func() { close(m.release) })
	c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		m.silent.Store(true)
		return nil, nil, false
	})
	return config
}

type muteListener struct {
	net.Listener
	silent  atomic.Bool
	release chan struct{}
}

func (l *muteListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &muteConn{conn, l}, nil
}

type muteConn struct {
	net.Conn
	listener *muteListener
}

// Write holds the answer back until the test is over.
func (c *muteConn) Write(b []byte) (int, error) {
	if c.listener.silent.Load() {
		<-c.listener.release
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}
