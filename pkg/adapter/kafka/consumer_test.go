package kafka_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/platform/devstack"
	"vitrine.io/pkg/test/port"
)

// send publishes messages, all of which must be taken.
func send(t *testing.T, config kafka.Config, batch []event.Message) {
	t.Helper()
	p, _ := newPublisher(t, config)
	if results := p.Publish(t.Context(), batch); !taken(results) {
		t.Fatalf("publish: %v", results)
	}
}

// committedOffset returns a group's committed offset of the requests' only partition, or 0.
func committedOffset(c *kfake.Cluster, group string) int64 {
	info := c.GroupInfo(group)
	if info == nil {
		return 0
	}
	return info.Commits[event.TopicRequested][0].Offset
}

// grave is a dead topic that answers what it is told to.
type grave struct {
	mu     sync.Mutex
	answer func(attempt int) error
	got    []event.Message
}

func (g *grave) Publish(_ context.Context, messages []event.Message) []error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.got = append(g.got, messages...)
	return []error{g.answer(len(g.got))}
}

func (g *grave) attempts() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.got)
}

func unreadable(t *testing.T, config kafka.Config) {
	t.Helper()
	settings := sarama.NewConfig()
	settings.Producer.Return.Successes = true
	producer, err := sarama.NewSyncProducer(config.Brokers, settings)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = producer.Close() }()
	if _, _, err := producer.SendMessage(&sarama.ProducerMessage{
		Topic: config.Name(event.TopicRequested), Value: sarama.StringEncoder("?"),
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAnUnreadableRecordIsMarkedOnlyAfterItIsBuried(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	unreadable(t, config)
	send(t, config, messages(1))
	var open atomic.Bool
	dead := &grave{answer: func(int) error {
		if !open.Load() {
			return fault.New(fault.Unavailable, "kafka_unavailable", "down")
		}
		return nil
	}}
	seen := newTally()
	r := run(t, config, requested("g"), seen.take, dead)
	eventually(t, "the burial is tried again, and the next message is done meanwhile", func() bool {
		return dead.attempts() >= 3 && seen.size() == 1
	})
	r.stop()
	if got := committedOffset(c, "g"); got != 0 {
		t.Fatalf("committed offset: got %d, want 0: nobody has the record", got)
	}
	open.Store(true)
	r = run(t, config, requested("g"), seen.take, dead)
	eventually(t, "all is committed once the burial is acknowledged", func() bool { return committedOffset(c, "g") == 2 })
	for _, m := range dead.got {
		if m.ID != dead.got[0].ID {
			t.Errorf("event ids of one record's burials: got %s and %s, want the same", m.ID, dead.got[0].ID)
		}
	}
	if got := testutil.CollectAndCount(r.reg, "vitrine_kafka_undecodable_total"); got != 1 {
		t.Errorf("undecodable counters: got %d, want 1", got)
	}
}

// Check and Exclusive are given whatever is on the topic, so a panic in them is one more way of being unreadable.
func TestAPanicWhileReadingIsAnUnreadableRecord(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*kafka.ConsumerConfig){
		"Check":     func(o *kafka.ConsumerConfig) { o.Check = func(event.Message) error { panic("a defect") } },
		"Exclusive": func(o *kafka.ConsumerConfig) { o.Exclusive = func(event.Message) string { panic("a defect") } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, config := seeded(t)
			send(t, config, messages(2))
			options := requested("g")
			change(&options)
			dead := &grave{answer: func(int) error { return nil }}
			run(t, config, options, newTally().take, dead)
			eventually(t, "both are buried", func() bool { return committedOffset(c, "g") == 2 })
			if got := dead.attempts(); got != 2 {
				t.Errorf("burials: got %d, want 2", got)
			}
		})
	}
}

func TestAMissingTopicIsWaitedForWithoutASpin(t *testing.T) {
	t.Parallel()
	_, config := cluster(t)
	seen := newTally()
	r := run(t, config, requested("g"), seen.take, nil)
	eventually(t, "the trouble is logged", func() bool { return r.logs.FilterMessage("consuming failed").Len() >= 2 })
	if r.Ready() == nil {
		t.Error("a consumer without a topic says that it is ready")
	}
	if got := r.logs.Len(); got > 20 {
		t.Errorf("lines: got %d within a few seconds, want few", got)
	}
	admin, err := kafka.NewAdmin(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	send(t, config, messages(1))
	eventually(t, "the message arrives once there is a topic", func() bool { return seen.size() == 1 })
}

func TestAGroupThatLetsNobodyInIsNotHammered(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	send(t, config, messages(1))
	closed := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.GroupAuthorizationFailed, Count: -1})
	seen := newTally()
	r := run(t, config, requested("g"), seen.take, nil)
	<-time.After(2 * time.Second)
	if got := closed.Hits(); got < 2 || got > 8 {
		t.Errorf("attempts within two seconds: got %d, want 2 to 8, with growing pauses", got)
	}
	if r.Ready() == nil {
		t.Error("a consumer outside its group says that it is ready")
	}
	closed.Remove()
	eventually(t, "the message arrives once the group is open", func() bool { return seen.size() == 1 })
}

func TestAConsumerSurvivesARestartOfTheBroker(t *testing.T) {
	t.Parallel()
	addr, dir := port.Addr(t), t.TempDir()
	config := local([]string{addr}, "")
	start := func() *devstack.Kafka {
		broker, err := devstack.StartKafka(devstack.KafkaConfig{Addr: addr, DataDir: dir}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		return broker
	}
	seen := newTally()
	r := run(t, config, requested("g"), seen.take, nil) // started before Kafka is
	eventually(t, "the trouble is logged", func() bool { return r.logs.FilterMessage("consuming failed").Len() >= 1 })
	broker := start()
	admin, err := kafka.NewAdmin(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	send(t, config, messages(3))
	eventually(t, "the first messages arrive", func() bool { return seen.size() == 3 })
	broker.Close()
	broker = start()
	t.Cleanup(broker.Close)
	send(t, config, messages(3))
	eventually(t, "the others arrive after the restart", func() bool { return seen.size() == 6 })
	if got := r.logs.FilterMessage("consuming is disturbed").Len(); got > 10 {
		t.Errorf("lines about it: got %d, want few", got)
	}
}

// One stubborn message holds its partition up at last, or what is finished behind it would grow without end.
func TestAStubbornMessageHoldsItsPartitionUpAfterAWindow(t *testing.T) {
	t.Parallel()
	_, config := seeded(t)
	batch := messages(400)
	send(t, config, batch)
	seen := newTally()
	var yield atomic.Bool
	run(t, config, requested("g"), func(_ context.Context, m event.Message) error {
		if m.ID == batch[0].ID && !yield.Load() {
			return errors.New("not now")
		}
		seen.add(m)
		return nil
	}, nil)
	eventually(t, "what the window allows is done", func() bool { return seen.size() == 255 })
	<-time.After(300 * time.Millisecond) // several fetches
	if got := seen.size(); got != 255 {
		t.Errorf("done beside the stubborn message: got %d, want 255", got)
	}
	yield.Store(true)
	eventually(t, "the rest is done", func() bool { return seen.size() == len(batch) })
}

// A message that waits for another one of its kind holds no place: or a few of one product would starve the rest.
func TestAMessageThatWaitsForItsTurnHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	_, config := seeded(t)
	batch := messages(10)
	send(t, config, batch)
	options := requested("g")
	options.InFlight = 2
	options.Exclusive = func(m event.Message) string {
		if m.ID == batch[9].ID {
			return "another"
		}
		return "the same"
	}
	release, done := make(chan struct{}), make(chan struct{})
	seen := newTally()
	run(t, config, options, func(ctx context.Context, m event.Message) error {
		if m.ID == batch[9].ID {
			close(done)
			return nil
		}
		select {
		case <-release:
		case <-ctx.Done():
			return ctx.Err()
		}
		seen.add(m)
		return nil
	}, nil)
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the message of another kind was held up")
	}
	close(release)
	eventually(t, "the others are done one by one", func() bool { return seen.size() == 9 })
}

func TestWorkThatDoesNotFinishInTimeIsReleased(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	send(t, config, messages(1))
	options := requested("g")
	options.RebalanceTimeout = 2 * time.Second
	begun := make(chan struct{})
	r := run(t, config, options, func(ctx context.Context, _ event.Message) error {
		close(begun)
		<-ctx.Done()
		return nil // it made it in the last moment
	}, nil)
	<-begun
	started := time.Now()
	r.stop()
	if took := time.Since(started); took < time.Second || took > 5*time.Second {
		t.Errorf("stopping took %s, want a little more than the grace of 1 s", took)
	}
	if got := r.logs.FilterMessage("work in flight did not finish in time and is released").Len(); got != 1 {
		t.Errorf("lines about it: got %d, want 1", got)
	}
	if got := committedOffset(c, "g"); got != 1 {
		t.Errorf("committed offset: got %d, want 1: what it returned counts", got)
	}
}

func TestAStopBesideABrokerThatHangsIsBound(t *testing.T) {
	t.Parallel()
	config := mute(t, kmsg.LeaveGroup)
	options := requested("g")
	options.RebalanceTimeout = 2 * time.Second
	r := run(t, config, options, newTally().take, nil)
	eventually(t, "the consumer has joined", func() bool { return r.Ready() == nil })
	started := time.Now()
	r.stop()
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("stopping took %s, want the grace of 1 s and 5 s to leave", took)
	}
	if got := r.logs.FilterMessage("leaving the consumer group failed").Len(); got != 1 {
		t.Errorf("lines about it: got %d, want 1", got)
	}
}

// A commit that fails must not be taken for a commit: sarama repeats it, and nothing is lost meanwhile.
func TestAFailedCommitIsRepeated(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	send(t, config, messages(3))
	failing := c.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Err: kerr.CoordinatorNotAvailable, Count: 2,
	})
	seen := newTally()
	run(t, config, requested("g"), seen.take, nil)
	eventually(t, "all is committed", func() bool { return committedOffset(c, "g") == 3 })
	if failing.Hits() != 2 {
		t.Errorf("failed commits: got %d, want 2", failing.Hits())
	}
}

// Each commit waits behind the long-poll fetch, so one per message makes a consumer slow: it was 12 a second.
func TestThereIsNoCommitPerMessage(t *testing.T) {
	t.Parallel()
	c, config := seeded(t)
	send(t, config, messages(1000))
	commits := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Observe: true, Count: -1})
	seen := newTally()
	started := time.Now()
	r := run(t, config, requested("g"), seen.take, nil)
	eventually(t, "every message is done", func() bool { return seen.size() == 1000 })
	r.stop()
	if got, most := commits.Hits(), int(time.Since(started)/time.Second)+3; got > most {
		t.Errorf("commits: got %d, want at most %d, one a second", got, most)
	}
}

func TestAPausedConsumerRepeatsNothing(t *testing.T) {
	t.Parallel()
	_, config := seeded(t)
	send(t, config, messages(1))
	tried := newTally()
	var calls atomic.Int64
	r := run(t, config, requested("g"), func(_ context.Context, m event.Message) error {
		calls.Add(1)
		if tried.add(m) < 6 {
			return errors.New("the database is down")
		}
		return nil
	}, nil)
	eventually(t, "the first attempt failed", func() bool { return calls.Load() >= 1 })
	r.Pause()
	before := calls.Load()
	<-time.After(time.Second)
	if got := calls.Load(); got > before+1 { // one may have been on its way
		t.Errorf("attempts during the pause: got %d more", got-before)
	}
	r.Resume()
	eventually(t, "the message is done after the pause", func() bool { return calls.Load() == 6 })
	want := map[string]float64{"vitrine_kafka_paused": 0, "vitrine_kafka_in_flight": 0}
	for name, value := range want {
		if got := gauge(t, r.reg, name); got != value {
			t.Errorf("%s: got %v, want %v", name, got, value)
		}
	}
}

func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestTwoConsumersShareARegistry(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	for _, group := range []string{"a", "b"} {
		if _, err := kafka.NewConsumer(valid(), requested(group), newTally().take, nil, reg, zap.NewNop()); err != nil {
			t.Errorf("group %s: %v", group, err)
		}
	}
}
