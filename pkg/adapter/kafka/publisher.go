package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

// The time limits of Publish. The outbox calls Publish inside a transaction of at most five seconds, which also has to
// select the rows and delete them.
const (
	publishTimeout  = 3500 * time.Millisecond // then the connections are closed, and sarama reports all results
	ackTimeout      = 1500 * time.Millisecond // for the brokers to replicate
	replyTimeout    = 2 * time.Second         // above ackTimeout, so that a slow acknowledgement does not break the connection
	produceRetries  = 5                       // enough for a change of leader; batches behind a failed one are retried, too
	metadataTimeout = 1500 * time.Millisecond
	connectBackoff  = 100 * time.Millisecond // doubling; each new client opens connections to the brokers
	connectMax      = 2 * time.Second

	// maxMessage, in bytes, leaves space for the header of the batch below the brokers' default message.max.bytes of 1,048,588.
	maxMessage = 1_000_000
)

// Publisher sends messages. It is safe for concurrent use; concurrent batches share a session.
type Publisher struct {
	config  Config
	base    *sarama.Config
	metrics *publisherMetrics
	log     *zap.Logger
	sending sync.WaitGroup // one for each running Publish

	connecting chan struct{} // holds one token; its owner connects, and owns lastErr, retryAt and backoff
	lastErr    error         // why there is no session
	retryAt    time.Time
	backoff    time.Duration

	mu      sync.Mutex
	session *session // nil before the first use and after a failure
	closed  bool
}

// session is one idempotent producer with its client and connections.
type session struct {
	conns    *connTracker
	client   sarama.Client
	producer sarama.SyncProducer

	// By the publisher's mu:
	users     int
	discarded bool // it gets no new users; its last user closes it
}

// NewPublisher returns a Publisher. It reads the TLS files and does not connect. It fails if a setting is not valid.
func NewPublisher(config Config, reg prometheus.Registerer, log *zap.Logger) (*Publisher, error) {
	base, err := config.saramaConfig("producer", produceSettings)
	if err != nil {
		return nil, err
	}
	p := &Publisher{
		config: config, base: base, metrics: newPublisherMetrics(reg), log: log, connecting: make(chan struct{}, 1),
	}
	p.connecting <- struct{}{}
	return p, nil
}

func produceSettings(s *sarama.Config) {
	s.Net.MaxOpenRequests = 1 // required by idempotence; a consumer could not share this client
	s.Net.DialTimeout = dialTimeout
	s.Net.ReadTimeout = replyTimeout
	s.Net.WriteTimeout = dialTimeout
	s.Metadata.Retry.Max = 1
	s.Metadata.Timeout = metadataTimeout
	s.Producer.Idempotent = true
	s.Producer.RequiredAcks = sarama.WaitForAll
	s.Producer.Timeout = ackTimeout
	s.Producer.Retry.Max = produceRetries
	s.Producer.Transaction.Retry.Max = produceRetries // for the producer id, while its coordinator loads
	s.Producer.MaxMessageBytes = maxMessage
	s.Producer.Partitioner = sarama.NewMurmur2Partitioner // as the Java client: other tools find the same partition
	s.Producer.Return.Successes = true
	s.Producer.Return.Errors = true
}

// Publish implements relay.Publisher. It returns one result per message, within about four seconds, or earlier if ctx
// ends. A result is nil if Kafka has acknowledged the message, fault.Invalid if Kafka will never accept it, else
// fault.Unavailable.
func (p *Publisher) Publish(ctx context.Context, messages []event.Message) []error {
	started := time.Now()
	results := make([]error, len(messages))
	if len(messages) == 0 {
		return results
	}
	batch := p.toRecords(messages, results)
	if len(batch) > 0 {
		p.send(ctx, batch, results)
	}
	p.metrics.batch(results, time.Since(started))
	return results
}

// toRecords converts the messages that are small enough, and sets the results of the others. A record's Metadata is its
// index in results.
func (p *Publisher) toRecords(messages []event.Message, results []error) []*sarama.ProducerMessage {
	batch := make([]*sarama.ProducerMessage, 0, len(messages))
	records := make([]sarama.ProducerMessage, len(messages)) // one allocation for hundreds of records
	headers := make([]sarama.RecordHeader, 0, event.MaxHeaders*len(messages))
	for i, m := range messages {
		record, first := &records[i], len(headers)
		for name, value := range m.EachHeader() {
			headers = append(headers, sarama.RecordHeader{Key: []byte(name), Value: []byte(value)})
		}
		*record = sarama.ProducerMessage{
			Topic: p.config.Name(m.Topic), Key: sarama.StringEncoder(m.Key), Value: sarama.ByteEncoder(m.Body),
			Headers: headers[first:len(headers):len(headers)], Metadata: i,
		}
		if size := record.ByteSize(recordVersion); size > maxMessage {
			results[i] = fault.New(fault.Invalid, codeTooLarge, fmt.Sprintf("%d bytes are more than %d", size, maxMessage))
			continue
		}
		batch = append(batch, record)
	}
	return batch
}

// recordVersion is Kafka's record format since 0.11, the one with headers.
const recordVersion = 2

func (p *Publisher) send(ctx context.Context, batch []*sarama.ProducerMessage, results []error) {
	if !p.begin() {
		fail(batch, results, unavailable(sarama.ErrClosedClient))
		return
	}
	defer p.sending.Done()
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	p.attempt(ctx, batch, results)
	p.resendRefused(ctx, batch, results)
}

// begin adds one to sending, and the caller has to call sending.Done. It returns false if the publisher is closed.
func (p *Publisher) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.sending.Add(1)
	}
	return !p.closed
}

// resendRefused sends the refused messages one by one, over a session of its own. It is necessary because a broker
// refuses all messages that it receives together for a partition if one of them is not valid, and sarama may send
// messages of several Publish calls together.
func (p *Publisher) resendRefused(ctx context.Context, batch []*sarama.ProducerMessage, results []error) {
	var s *session
	for _, record := range batch {
		if !isRefused(results[resultIndex(record)]) {
			continue
		}
		single := []*sarama.ProducerMessage{record}
		if s == nil {
			var err error
			if s, err = p.connect(ctx); err != nil {
				fail(single, results, unavailable(withCause(ctx, err)))
				continue
			}
		}
		if !s.send(ctx, single, results) {
			s.close()
			s = nil
		}
	}
	if s != nil {
		s.close()
	}
}

// attempt sends a batch over the current session. If a message fails, it discards the session, because the failure leaves
// a gap in the sequence numbers, and sarama's circuit breakers would stay open for ten seconds. Concurrent batches in the
// same session may then fail, too.
func (p *Publisher) attempt(ctx context.Context, batch []*sarama.ProducerMessage, results []error) {
	s, err := p.acquireSession(ctx)
	if err != nil {
		fail(batch, results, unavailable(withCause(ctx, err)))
		return
	}
	p.releaseSession(s, s.send(ctx, batch, results))
}

// send sends a batch, sets its results, and reports whether the session is still usable.
func (s *session) send(ctx context.Context, batch []*sarama.ProducerMessage, results []error) bool {
	stop := context.AfterFunc(ctx, s.conns.closeAll)
	err := s.producer.SendMessages(batch)
	intact := stop()
	assignResults(ctx, batch, results, err)
	return err == nil && intact
}

// acquireSession returns the session and adds the caller to its users; the caller passes it to releaseSession later. If
// there is no session, acquireSession connects, but not during the backoff after a failure.
func (p *Publisher) acquireSession(ctx context.Context) (*session, error) {
	if s := p.currentSession(); s != nil {
		return s, nil
	}
	select {
	case <-p.connecting:
		defer func() { p.connecting <- struct{}{} }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s := p.currentSession(); s != nil { // another call has connected during the wait
		return s, nil
	}
	if time.Now().Before(p.retryAt) {
		return nil, p.lastErr
	}
	s, err := p.connect(ctx)
	if err != nil {
		p.lastErr = fmt.Errorf("connect producer: %w", err)
		p.backoff = min(max(2*p.backoff, connectBackoff), connectMax)
		p.retryAt = time.Now().Add(p.backoff)
		return nil, p.lastErr
	}
	p.log.Debug("kafka producer connected")
	p.metrics.clients.Inc()
	p.backoff = 0
	s.users = 1
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = s
	return s, nil
}

// currentSession returns the session with the caller added to its users, or nil if there is none.
func (p *Publisher) currentSession() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != nil {
		p.session.users++
	}
	return p.session
}

// releaseSession removes the caller from the users of s. If s is not intact, it is discarded: it gets no new users, and
// its last user closes it.
func (p *Publisher) releaseSession(s *session, intact bool) {
	p.mu.Lock()
	s.users--
	if !intact {
		s.discarded = true
		if p.session == s {
			p.session = nil
		}
	}
	last := s.discarded && s.users == 0
	p.mu.Unlock()
	if last {
		s.close()
	}
}

func (p *Publisher) connect(ctx context.Context) (*session, error) {
	conns := newConnTracker(nil, dialTimeout)
	stop := context.AfterFunc(ctx, conns.closeAll)
	client, err := sarama.NewClient(p.config.Brokers, withDialer(p.base, conns))
	if err != nil {
		conns.closeAll()
		return nil, err
	}
	producer, err := sarama.NewSyncProducerFromClient(client) // requests a producer id, so it needs a broker
	if err != nil {
		conns.closeAll()
		_ = client.Close()
		return nil, err
	}
	s := &session{conns: conns, client: client, producer: producer}
	if !stop() {
		s.close()
		return nil, context.Cause(ctx)
	}
	return s, nil
}

// close ends the session, which has no users. It closes the connections first: no message is in progress, and sarama then
// does not wait for the brokers.
func (s *session) close() {
	s.conns.closeAll()
	_ = s.producer.Close()
	_ = s.client.Close()
}

// Close waits for running calls of Publish and closes the connections. Later calls of Publish fail. The error is nil.
func (p *Publisher) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.sending.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != nil {
		p.session.close()
		p.session = nil
	}
	return nil
}

// resultIndex returns the index of a record's result. toRecords has set it.
func resultIndex(record *sarama.ProducerMessage) int {
	i, _ := record.Metadata.(int)
	return i
}

// assignResults sets the results of a batch from the error of its send. A message counts as acknowledged only if there is
// no error, or if the error lists the failed messages and not this one. Any other error applies to all messages.
func assignResults(ctx context.Context, batch []*sarama.ProducerMessage, results []error, err error) {
	var failed sarama.ProducerErrors
	if !errors.As(err, &failed) {
		fail(batch, results, classify(withCause(ctx, err)))
		return
	}
	fail(batch, results, nil)
	for _, f := range failed {
		results[resultIndex(f.Msg)] = classify(withCause(ctx, f.Err))
	}
}

// fail sets the result of every record of a batch to err.
func fail(batch []*sarama.ProducerMessage, results []error, err error) {
	for _, record := range batch {
		results[resultIndex(record)] = err
	}
}

func isRefused(err error) bool { return fault.Is(err, fault.Invalid) }

var _ relay.Publisher = (*Publisher)(nil)
