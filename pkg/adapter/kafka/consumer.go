package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/backoff"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/slots"
)

// Handle handles one message. If it returns nil, the message is done, and the group does not receive it again unless the
// process crashes before the next commit. If it returns an error, it is called again after a backoff. ctx ends when the
// partition has to be released or the process stops. Handle must return soon after that; its result is still used.
type Handle func(ctx context.Context, m event.Message) error

// ConsumerConfig configures a Consumer.
type ConsumerConfig struct {
	Group    string // without the prefix
	Topic    string // without the prefix
	InFlight int    // messages handled at the same time in this process, over all partitions
	// Slots are acquired for handlers instead of InFlight slots of this consumer's own; nil means those.
	Slots Slots

	// OrderingKey returns the key of a message. This consumer never handles two messages with the same key at the same
	// time. If OrderingKey is nil, the key is the event id.
	OrderingKey func(event.Message) string
	// Check returns an error if a message cannot be decoded, and the message is then sent to the dead-letter topic. If
	// Check is nil, only the headers are checked.
	Check func(event.Message) error

	// RebalanceTimeout is how long the group waits for this member when partitions move. Half of it is the grace period
	// of running handlers, during a rebalance and when the process stops. 0 means one minute.
	RebalanceTimeout time.Duration
	// SessionTimeout is how long a crashed process keeps its partitions. 0 means ten seconds. Brokers accept six seconds or
	// more by default.
	SessionTimeout time.Duration
	// Dial opens the connections; nil means a net.Dialer.
	Dial Dial
}

// Slots limit the handlers that run at the same time. *slots.Part implements it.
type Slots interface {
	// Acquire waits for a slot and returns true, or returns false if stop is closed before.
	Acquire(stop <-chan struct{}) bool
	Release()
}

const (
	defaultRebalance = time.Minute
	defaultSession   = 10 * time.Second
	heartbeats       = 3 // per session timeout, as Kafka recommends

	// window is the maximum number of messages of a partition from the oldest unfinished one on. If a message fails again
	// and again, its partition stops after that many messages. After a crash, up to that many messages are delivered
	// again.
	window = 256
	// prefetch is the number of fetched messages per partition. It is small, because after a rebalance another member
	// fetches the messages that were not started a second time. A fetch is cheap, because messages contain little more
	// than ids.
	prefetch = 16
	// longPoll is how long an empty fetch waits at the broker. Commits and heartbeats wait behind it on the same connection.
	longPoll = 100 * time.Millisecond
	// maxProcessing is how long a busy partition may delay fetches for the other partitions of its broker. With the
	// default of 100 ms and handlers that need seconds, sarama would unsubscribe and subscribe again all the time.
	maxProcessing = time.Second
	// commitInterval is the time between commits. See the package comment for why there is none per message.
	commitInterval = time.Second

	rejoinBackoff    = 200 * time.Millisecond // doubling
	rejoinMax        = 10 * time.Second
	stableSession    = 5 * time.Second // a session of this length resets the rejoin backoff
	leaveTimeout     = 5 * time.Second // to commit and leave the group; else the partitions move after the session timeout
	errorLogInterval = 10 * time.Second
)

// Consumer receives messages as one member of a group. Run may be called only once.
type Consumer struct {
	config  Config
	options ConsumerConfig
	base    *sarama.Config
	handle  Handle
	dead    relay.Publisher
	metrics *consumerMetrics
	log     *zap.Logger

	topic  string
	grace  time.Duration        // for running handlers when a session ends
	slots  Slots                // one for each running handler
	keys   *slots.Slots[string] // by ordering key, one each
	pauser *pauser
	joined atomic.Bool

	mu    sync.Mutex
	group sarama.ConsumerGroup // nil unless running
}

// NewConsumer returns a Consumer. It reads the TLS files and does not connect. dead sends undecodable records to the
// dead-letter topic; it must not be nil. NewConsumer fails if a setting is not valid.
func NewConsumer(
	config Config, options ConsumerConfig, handle Handle, dead relay.Publisher, reg prometheus.Registerer, log *zap.Logger,
) (*Consumer, error) {
	if options.Group == "" || options.Topic == "" || options.InFlight < 1 {
		return nil, errors.New("a consumer needs a group, a topic and at least one message in flight")
	}
	options = options.withDefaults()
	base, err := config.saramaConfig("consumer", options.apply)
	if err != nil {
		return nil, err
	}
	group := config.Name(options.Group)
	return &Consumer{
		config: config, options: options, base: base, handle: handle, dead: dead,
		metrics: newConsumerMetrics(reg, options.Group), log: log.With(zap.String("group", group)),
		topic: config.Name(options.Topic), grace: options.RebalanceTimeout / 2,
		slots: options.Slots, keys: slots.New[string](), pauser: newPauser(),
	}, nil
}

func (o ConsumerConfig) withDefaults() ConsumerConfig {
	if o.OrderingKey == nil {
		o.OrderingKey = func(m event.Message) string { return m.ID }
	}
	if o.Slots == nil {
		o.Slots = slots.NewShared(o.InFlight, 0).Preferred()
	}
	if o.Check == nil {
		o.Check = func(event.Message) error { return nil }
	}
	o.RebalanceTimeout = cmp.Or(o.RebalanceTimeout, defaultRebalance)
	o.SessionTimeout = cmp.Or(o.SessionTimeout, defaultSession)
	return o
}

func (o ConsumerConfig) apply(s *sarama.Config) {
	s.ChannelBufferSize = prefetch
	s.Net.DialTimeout = defaultSession
	// A JoinGroup is answered only after the slowest member has released its partitions.
	s.Net.ReadTimeout = o.RebalanceTimeout + defaultSession
	s.Consumer.Return.Errors = true
	s.Consumer.MaxWaitTime = longPoll
	s.Consumer.MaxProcessingTime = maxProcessing
	s.Consumer.Offsets.Initial = sarama.OffsetOldest // a new group must not skip queued messages
	s.Consumer.Offsets.AutoCommit.Enable = true      // of marked offsets only
	s.Consumer.Offsets.AutoCommit.Interval = commitInterval
	s.Consumer.Group.Session.Timeout = o.SessionTimeout
	s.Consumer.Group.Heartbeat.Interval = o.SessionTimeout / heartbeats
	s.Consumer.Group.Rebalance.Timeout = o.RebalanceTimeout
	// The range strategy is eager: a rebalance ends the session, and the end of the session's context ends the handlers
	// of partitions that move. With the cooperative strategy that context would not end.
	s.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
}

// Run consumes until ctx ends, through rebalances and outages. It returns nil after all handlers have returned, finished
// messages are committed, and this member has left the group. It fails only if a setting is not valid.
func (c *Consumer) Run(ctx context.Context) error {
	conns := newConnTracker(c.options.Dial, c.base.Net.DialTimeout)
	// An orderly stop needs the grace period for handlers, and leaveTimeout to commit and leave. It takes longer only if
	// a broker does not answer. The connections are then closed, which ends the stop.
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(c.grace+leaveTimeout, conns.closeAll)
	})()
	settings := *c.base
	settings.Net.Proxy.Enable, settings.Net.Proxy.Dialer = true, conns
	group, err := sarama.NewConsumerGroup(c.config.Brokers, c.config.Name(c.options.Group), &settings)
	if err != nil {
		return fmt.Errorf("make consumer group: %w", err)
	}
	c.setGroup(group)
	var draining sync.WaitGroup
	draining.Go(func() { c.drainErrors(group.Errors()) })

	c.consume(ctx, group)

	c.joined.Store(false)
	c.setGroup(nil)
	if err := group.Close(); err != nil {
		c.log.Warn("leaving the consumer group failed", zap.Error(err))
	}
	conns.closeAll()
	draining.Wait()
	return nil
}

// consume joins the group, again after each session, until ctx ends.
func (c *Consumer) consume(ctx context.Context, group sarama.ConsumerGroup) {
	for failures := 0; ctx.Err() == nil; {
		started := time.Now()
		err := group.Consume(ctx, []string{c.topic}, &sessionHandler{Consumer: c, run: ctx})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.joined.Store(false)
			c.log.Warn("consuming failed", zap.String("topic", c.topic), zap.Error(err))
		}
		// A short session without an error counts as a failure too: a partition that cannot be opened ends it this way.
		if err == nil && time.Since(started) >= stableSession {
			failures = 0
			continue
		}
		if !backoff.Sleep(ctx, backoff.Delay(failures, rejoinBackoff, rejoinMax)) {
			return
		}
		failures++
	}
}

// drainErrors logs the errors of sarama's background goroutines. It logs the same error at most once per errorLogInterval,
// because every partition reports a broker that is down every two seconds.
func (c *Consumer) drainErrors(errs <-chan error) {
	var lastTime time.Time
	var lastText string
	for err := range errs {
		reason := err
		if inner := errors.Unwrap(err); inner != nil {
			reason = inner // without the partition
		}
		if reason.Error() == lastText && time.Since(lastTime) < errorLogInterval {
			continue
		}
		lastText, lastTime = reason.Error(), time.Now()
		c.log.Warn("error while consuming", zap.Error(err))
	}
}

func (c *Consumer) setGroup(group sarama.ConsumerGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.group = group
}

// Pause stops starting and retrying messages, without releasing partitions. Running handlers continue.
func (c *Consumer) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pauser.pause()
	c.metrics.paused.Set(1)
	if c.group != nil {
		c.group.PauseAll()
	}
}

// Resume undoes Pause.
func (c *Consumer) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pauser.resume()
	c.metrics.paused.Set(0)
	if c.group != nil {
		c.group.ResumeAll()
	}
}

// Ready returns nil while this consumer is a member of its group, else fault.Unavailable. A consumer stays ready during a
// rebalance, but not during an outage.
func (c *Consumer) Ready() error {
	if !c.joined.Load() {
		return fault.New(fault.Unavailable, codeNotJoined, "the consumer has not joined its group")
	}
	return nil
}
