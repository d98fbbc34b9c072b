package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

// The bounds of a Publish. The outbox publishes inside a transaction of at most five seconds, so all must fit below that
// with room for the claim before and the deletion after.
const (
	publishBound   = 3500 * time.Millisecond // then the connections are cut and sarama answers at once
	ackTimeout     = 1500 * time.Millisecond // for the brokers to replicate
	replyTimeout   = 2 * time.Second         // above ackTimeout, or a slow acknowledgement looks like a dead broker
	produceRetries = 5                       // covers a leader's move; what waits behind a failed batch spends them too
	metadataBound  = 1500 * time.Millisecond
	connectBackoff = 100 * time.Millisecond // doubling; a new client costs every broker a connection
	connectMax     = 2 * time.Second

	// maxMessage leaves room for the batch's own header below the brokers' default message.max.bytes of 1,048,588.
	maxMessage = 1_000_000
)

// Publisher sends messages. It is safe for concurrent use; batches that are sent at a time share a session.
type Publisher struct {
	config  Config
	base    *sarama.Config
	metrics *publisherMetrics
	log     *zap.Logger
	sending sync.WaitGroup // one for each Publish under way

	connecting chan struct{} // holds one token: whoever has taken it connects, and owns these:
	lastErr    error         // why there is no session
	retryAt    time.Time
	backoff    time.Duration

	mu      sync.Mutex
	session *session // nil before the first use and after a failure
	closed  bool
}

// session is one idempotent producer with its client and connections.
type session struct {
	wire     *connTracker
	client   sarama.Client
	producer sarama.SyncProducer

	users int  // by the publisher's mu
	over  bool // the last user closes it
}

// NewPublisher returns a publisher. It reads the TLS files and connects to nothing.
func NewPublisher(config Config, reg prometheus.Registerer, log *zap.Logger) (*Publisher, error) {
	base, err := config.saramaConfig()
	if err != nil {
		return nil, err
	}
	base.Net.MaxOpenRequests = 1 // demanded by idempotence, and why no consumer may share this client
	base.Net.DialTimeout = dialTimeout
	base.Net.ReadTimeout = replyTimeout
	base.Net.WriteTimeout = dialTimeout
	base.Metadata.Retry.Max = 1
	base.Metadata.Timeout = metadataBound
	base.Producer.Idempotent = true
	base.Producer.RequiredAcks = sarama.WaitForAll
	base.Producer.Timeout = ackTimeout
	base.Producer.Retry.Max = produceRetries
	base.Producer.Transaction.Retry.Max = produceRetries // for the producer id, while its coordinator still loads
	base.Producer.MaxMessageBytes = maxMessage
	base.Producer.Partitioner = sarama.NewMurmur2Partitioner // as Java does: other tools find the same partition for a key
	base.Producer.Return.Successes = true
	base.Producer.Return.Errors = true
	if err := base.Validate(); err != nil {
		return nil, fmt.Errorf("check producer settings: %w", err)
	}
	p := &Publisher{config: config, base: base, metrics: newPublisherMetrics(reg), log: log, connecting: make(chan struct{}, 1)}
	p.connecting <- struct{}{}
	return p, nil
}

// Publish implements relay.Publisher. It comes back when every message is answered for, at most about four seconds after
// the call, earlier if ctx ends.
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

// toRecords converts what is small enough, and refuses the rest in results. A record carries its place in results.
func (p *Publisher) toRecords(messages []event.Message, results []error) []*sarama.ProducerMessage {
	batch := make([]*sarama.ProducerMessage, 0, len(messages))
	records := make([]sarama.ProducerMessage, len(messages)) // one piece of memory each for hundreds of records
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
	if !p.acquire() {
		fail(batch, results, unavailable(sarama.ErrClosedClient))
		return
	}
	defer p.sending.Done()
	ctx, cancel := context.WithTimeout(ctx, publishBound)
	defer cancel()
	p.attempt(ctx, batch, results)
	p.resendRefused(ctx, batch, results)
}

// acquire keeps the publisher open until Done is called on sending. It is false when the publisher is closed.
func (p *Publisher) acquire() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.sending.Add(1)
	}
	return !p.closed
}

// resendRefused sends those that were refused one by one, over a session that nobody else uses: a broker refuses a partition's whole
// batch because of one message, too large for it or not to its rules, and sarama makes one of what several Publish.
func (p *Publisher) resendRefused(ctx context.Context, batch []*sarama.ProducerMessage, results []error) {
	refused := slices.DeleteFunc(slices.Clone(batch), func(record *sarama.ProducerMessage) bool {
		return !isRefused(results[resultIndex(record)])
	})
	var s *session
	for _, record := range refused {
		alone := []*sarama.ProducerMessage{record}
		if s == nil {
			var err error
			if s, err = p.connect(ctx); err != nil {
				fail(alone, results, unavailable(withCause(ctx, err)))
				continue
			}
		}
		if !s.send(ctx, alone, results) {
			s.close()
			s = nil
		}
	}
	if s != nil {
		s.close()
	}
}

// attempt sends a batch over the current session, and no other batch after it if anything in it failed: it leaves a gap in
// the sequence numbers, and sarama's breakers stay open for ten seconds. What shares the session may fail with it.
func (p *Publisher) attempt(ctx context.Context, batch []*sarama.ProducerMessage, results []error) {
	s, err := p.enter(ctx)
	if err != nil {
		fail(batch, results, unavailable(withCause(ctx, err)))
		return
	}
	p.leave(s, s.send(ctx, batch, results))
}

// send sends a batch, and reports whether the session is as good as before.
func (s *session) send(ctx context.Context, batch []*sarama.ProducerMessage, results []error) bool {
	stop := context.AfterFunc(ctx, s.wire.cut)
	err := s.producer.SendMessages(batch)
	intact := stop()
	assignResults(ctx, batch, results, err)
	return err == nil && intact
}

// enter returns the session, made if there is none and the last failure is long enough ago. Its user has to leave it.
func (p *Publisher) enter(ctx context.Context) (*session, error) {
	if s := p.current(); s != nil {
		return s, nil
	}
	select {
	case <-p.connecting:
		defer func() { p.connecting <- struct{}{} }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s := p.current(); s != nil { // made meanwhile
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

// current enters the session that there is, and returns nil if there is none.
func (p *Publisher) current() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != nil {
		p.session.users++
	}
	return p.session
}

// leave ends a use of s. One that is not intact gets no other user, and its last one closes it.
func (p *Publisher) leave(s *session, intact bool) {
	p.mu.Lock()
	s.users--
	if !intact {
		s.over = true
		if p.session == s {
			p.session = nil
		}
	}
	last := s.over && s.users == 0
	p.mu.Unlock()
	if last {
		s.close()
	}
}

func (p *Publisher) connect(ctx context.Context) (*session, error) {
	w := newConnTracker(nil, dialTimeout)
	stop := context.AfterFunc(ctx, w.cut)
	client, err := sarama.NewClient(p.config.Brokers, withDialer(p.base, w))
	if err != nil {
		w.cut()
		return nil, err
	}
	producer, err := sarama.NewSyncProducerFromClient(client) // asks for a producer id, so it needs a broker
	if err != nil {
		w.cut()
		_ = client.Close()
		return nil, err
	}
	s := &session{wire: w, client: client, producer: producer}
	if !stop() {
		s.close()
		return nil, context.Cause(ctx)
	}
	return s, nil
}

// close ends the session. Nothing is in flight on it, so nothing is lost by cutting first, and nothing can hang.
func (s *session) close() {
	s.wire.cut()
	_ = s.producer.Close()
	_ = s.client.Close()
}

// Close ends the publisher after what is being sent. Later calls of Publish fail.
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

// resultIndex returns where the result of a record belongs, as toRecords has noted it.
func resultIndex(record *sarama.ProducerMessage) int {
	i, _ := record.Metadata.(int)
	return i
}

// assignResults notes what became of a batch that was sent. A message counts as acknowledged only if nothing went wrong or if
// sarama names the others: any other error is everybody's.
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

// fail sets the results of a whole batch.
func fail(batch []*sarama.ProducerMessage, results []error, err error) {
	for _, record := range batch {
		results[resultIndex(record)] = err
	}
}

func isRefused(err error) bool { return fault.Is(err, fault.Invalid) }

var _ relay.Publisher = (*Publisher)(nil)
