package kafka

import (
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
)

// Handle works on one message. Nil means done, for good: the message is not seen again by this group, unless the process
// dies before the next commit. An error means again, after a backoff. It must return soon after ctx ends, which is when its
// partition has to be let go or the process stops; what it returns then still counts.
type Handle func(ctx context.Context, m event.Message) error

// ConsumerConfig says what a Consumer consumes and how.
type ConsumerConfig struct {
	Group    string // without the prefix
	Topic    string // without the prefix
	InFlight int    // messages worked on at once in this process, over all partitions

	// Exclusive returns what a message works on; two with the same never run at once in this process. Nil means the event
	// id: the same message is not worked on twice at once.
	Exclusive func(event.Message) string
	// Check says why a message cannot be read, so that it goes to the dead topic. Nil means that headers are enough.
	Check func(event.Message) error

	// RebalanceTimeout is how long the group waits for this member when partitions move; half of it is the time that work in
	// flight gets to finish, also when the process stops. 0 means one minute.
	RebalanceTimeout time.Duration
	// SessionTimeout is how long a dead process keeps its partitions. 0 means ten seconds; brokers want at least six.
	SessionTimeout time.Duration
	// Dial opens the connections; nil means the ordinary dialer.
	Dial Dial
}

const (
	defaultRebalance = time.Minute
	defaultSession   = 10 * time.Second
	heartbeats       = 3 // per session timeout

	// window is how many messages of a partition may be taken beyond the oldest unfinished one. One stubborn message so
	// holds its partition up after this many others, and as many are seen again after a crash.
	window = 256
	// prefetch is per partition and small: messages hold ids only, and what is fetched but not begun is fetched again by
	// somebody else after a rebalance.
	prefetch = 16
	// longPoll is how long an empty fetch waits at the broker. Commits and heartbeats wait behind it on the same connection.
	longPoll = 100 * time.Millisecond
	// fetchPatience is how long one busy partition may hold up fetching for the others of its broker. sarama's 100 ms makes it
	// drop and take up the subscription all the time when work takes seconds.
	fetchPatience = time.Second
	// commitEvery is how old a commit may be. Never per message; see the package comment.
	commitEvery = time.Second

	rejoinBackoff = 200 * time.Millisecond // doubling
	rejoinMax     = 10 * time.Second
	settled       = 5 * time.Second // a session that lived this long was a real one: the backoff starts again
	leaveTimeout  = 5 * time.Second // to leave the group at the end; else the session timeout does it
	quietFor      = 10 * time.Second
)

// Consumer receives messages as one member of a group. Run may be called once.
type Consumer struct {
	config  Config
	options ConsumerConfig
	base    *sarama.Config
	handle  Handle
	dead    relay.Publisher
	metrics *consumerMetrics
	log     *zap.Logger

	topic  string
	grace  time.Duration // for work in flight when a session ends
	slots  chan struct{}
	lanes  *keyedMutex
	gate   *pauser
	joined atomic.Bool

	mu    sync.Mutex
	group sarama.ConsumerGroup // nil unless running
}

// NewConsumer returns a consumer. It reads the TLS files and connects to nothing. Records that cannot be read are sent to
// dead, which must not be nil.
func NewConsumer(
	config Config, options ConsumerConfig, handle Handle, dead relay.Publisher, reg prometheus.Registerer, log *zap.Logger,
) (*Consumer, error) {
	if options.Group == "" || options.Topic == "" || options.InFlight < 1 {
		return nil, errors.New("a consumer needs a group, a topic and at least one message in flight")
	}
	options = options.withDefaults()
	base, err := config.saramaConfig()
	if err != nil {
		return nil, err
	}
	options.apply(base)
	if err := base.Validate(); err != nil {
		return nil, fmt.Errorf("check consumer settings: %w", err)
	}
	group := config.Name(options.Group)
	return &Consumer{
		config: config, options: options, base: base, handle: handle, dead: dead,
		metrics: newConsumerMetrics(reg, options.Group), log: log.With(zap.String("group", group)),
		topic: config.Name(options.Topic), grace: options.RebalanceTimeout / 2,
		slots: make(chan struct{}, options.InFlight), lanes: newKeyedMutex(), gate: newPauser(),
	}, nil
}

func (o ConsumerConfig) withDefaults() ConsumerConfig {
	if o.Exclusive == nil {
		o.Exclusive = func(m event.Message) string { return m.ID }
	}
	if o.Check == nil {
		o.Check = func(event.Message) error { return nil }
	}
	if o.RebalanceTimeout == 0 {
		o.RebalanceTimeout = defaultRebalance
	}
	if o.SessionTimeout == 0 {
		o.SessionTimeout = defaultSession
	}
	return o
}

func (o ConsumerConfig) apply(s *sarama.Config) {
	s.ChannelBufferSize = prefetch
	s.Net.DialTimeout = defaultSession
	// A JoinGroup is answered only when the slowest member has let its partitions go.
	s.Net.ReadTimeout = o.RebalanceTimeout + defaultSession
	s.Consumer.Return.Errors = true
	s.Consumer.MaxWaitTime = longPoll
	s.Consumer.MaxProcessingTime = fetchPatience
	s.Consumer.Offsets.Initial = sarama.OffsetOldest // a new group must not skip what is already queued
	s.Consumer.Offsets.AutoCommit.Enable = true      // of marked offsets only
	s.Consumer.Offsets.AutoCommit.Interval = commitEvery
	s.Consumer.Group.Session.Timeout = o.SessionTimeout
	s.Consumer.Group.Heartbeat.Interval = o.SessionTimeout / heartbeats
	s.Consumer.Group.Rebalance.Timeout = o.RebalanceTimeout
	// Range is eager: a rebalance ends the session, and the session's context tells work on moved partitions to stop. Under
	// the cooperative strategy nothing tells it.
	s.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
}

// Run consumes until ctx ends, through rebalances and outages. It returns nil after everything in flight has ended, what is
// done is committed, and the group was told that this member leaves.
func (c *Consumer) Run(ctx context.Context) error {
	w := newConnTracker(c.options.Dial, c.base.Net.DialTimeout)
	// The orderly end: the grace for work in flight, then time to commit and leave. Only a broker that does not answer takes
	// longer than that, and it is not waited for.
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(c.grace+leaveTimeout, w.cut)
	})()
	settings := *c.base
	settings.Net.Proxy.Enable, settings.Net.Proxy.Dialer = true, w
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
	w.cut()
	draining.Wait()
	return nil
}

// consume joins the group again and again until ctx ends.
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
		// Also a session that ended at once without an error counts: a partition that cannot be opened ends it like that.
		if err == nil && time.Since(started) >= settled {
			failures = 0
			continue
		}
		if !backoff.Sleep(ctx, backoff.Delay(failures, rejoinBackoff, rejoinMax)) {
			return
		}
		failures++
	}
}

// drainErrors logs what goes wrong in sarama's background: the same thing at most once in a while, since every partition
// reports a broker that is down every two seconds.
func (c *Consumer) drainErrors(errs <-chan error) {
	var last time.Time
	var text string
	for err := range errs {
		reason := err
		if inner := errors.Unwrap(err); inner != nil {
			reason = inner // without the partition
		}
		if reason.Error() == text && time.Since(last) < quietFor {
			continue
		}
		text, last = reason.Error(), time.Now()
		c.log.Warn("consuming is disturbed", zap.Error(err))
	}
}

func (c *Consumer) setGroup(group sarama.ConsumerGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.group = group
}

// Pause stops taking messages and repeating failed ones, without giving partitions up. What is in flight goes on.
func (c *Consumer) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gate.pause()
	c.metrics.paused.Set(1)
	if c.group != nil {
		c.group.PauseAll()
	}
}

// Resume undoes Pause.
func (c *Consumer) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gate.resume()
	c.metrics.paused.Set(0)
	if c.group != nil {
		c.group.ResumeAll()
	}
}

// Ready returns nil while this consumer is a member of its group. A rebalance does not make it unready, an outage does.
func (c *Consumer) Ready() error {
	if !c.joined.Load() {
		return fault.New(fault.Unavailable, codeNotJoined, "the consumer has not joined its group")
	}
	return nil
}
