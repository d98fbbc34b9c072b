package relay_test

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// outbox is an Outbox in memory, for one batch at a time. It follows the rules of the real one: acknowledged messages are
// removed, refused messages are parked, and messages that fail because of an outage stay.
type outbox struct {
	mu       sync.Mutex
	due      []event.Message
	added    int
	refused  int
	fail     error              // the error of PublishBatch
	depth    func() relay.Depth // nil: depth is computed from due
	depthErr error

	rate    int // rate of the relay
	batches []time.Time
	inside  func() // called in each batch after the claim
}

func (o *outbox) add(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for range n {
		o.due = append(o.due, event.Message{ID: strconv.Itoa(o.added), Topic: event.TopicChanged, Key: "1"})
		o.added++
	}
}

func (o *outbox) claim(limit int) []event.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.batches = append(o.batches, time.Now())
	return slices.Clone(o.due[:min(limit, len(o.due))])
}

func (o *outbox) PublishBatch(
	ctx context.Context, limit int, publish func(context.Context, []event.Message) []error,
) (relay.BatchResult, error) {
	claimed := o.claim(limit)
	o.mu.Lock()
	failure, inside := o.fail, o.inside
	o.mu.Unlock()
	if failure != nil {
		return relay.BatchResult{}, failure
	}
	if inside != nil {
		inside()
	}
	if len(claimed) == 0 {
		return relay.BatchResult{}, nil
	}
	results := publish(ctx, claimed)
	return o.apply(claimed, results)
}

func (o *outbox) apply(claimed []event.Message, results []error) (relay.BatchResult, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	drained := relay.BatchResult{Claimed: len(claimed)}
	removed := map[string]bool{}
	var first error
	for i, err := range results {
		switch {
		case err == nil:
			drained.Published++
			removed[claimed[i].ID] = true
		case fault.Is(err, fault.Invalid):
			drained.Refused++
			drained.Parked++
			removed[claimed[i].ID] = true
			first = err
		}
	}
	o.refused += drained.Refused
	o.due = slices.DeleteFunc(slices.Clone(o.due), func(m event.Message) bool { return removed[m.ID] })
	return drained, first
}

func (o *outbox) Depth(context.Context) (relay.Depth, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.depth != nil {
		return o.depth(), o.depthErr
	}
	return relay.Depth{Due: int64(len(o.due))}, o.depthErr
}

func (o *outbox) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

// waiting returns the number of messages in the outbox.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.due)
}

// starts returns the start time of each batch.
func (o *outbox) starts() []time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.batches)
}

func (o *outbox) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.batches)
}

// publisher is a Publisher with a latency and configured results.
type publisher struct {
	mu      sync.Mutex
	latency time.Duration
	result  func(event.Message) error // nil: every message is acknowledged
	sent    []int                     // the sizes of the batches
	ended   []error
}

func (p *publisher) Publish(ctx context.Context, messages []event.Message) []error {
	if p.latency > 0 {
		<-time.After(p.latency) // in fake time
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = append(p.sent, len(messages))
	p.ended = append(p.ended, ctx.Err())
	results := make([]error, len(messages))
	for i, m := range messages {
		if p.result != nil {
			results[i] = p.result(m)
		}
	}
	return results
}

// fixture is a relay that runs in fake time.
type fixture struct {
	*relay.Relay
	outbox    *outbox
	publisher *publisher
	reg       *prometheus.Registry
	logs      *observer.ObservedLogs
	stop      context.CancelFunc
	done      chan struct{}
}

// advance advances the fake time by d and waits until all goroutines are blocked.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func start(t *testing.T, box *outbox, pub *publisher) *fixture {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	r := &fixture{outbox: box, publisher: pub, reg: prometheus.NewRegistry(), logs: logs, done: make(chan struct{})}
	config := relay.Config{Batch: 10, Rate: box.rate, Poll: 150 * time.Millisecond, Sample: 5 * time.Second}
	r.Relay = relay.New(box, pub, config, r.reg, zap.New(core))
	var ctx context.Context
	ctx, r.stop = context.WithCancel(t.Context())
	go func() {
		defer close(r.done)
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	return r
}

func (r *fixture) end() {
	r.stop()
	<-r.done
}

func TestRun(t *testing.T) {
	t.Parallel()
	t.Run("full_batches_follow_without_a_pause", testRunFullBatchesFollowWithoutAPause)
	t.Run("outbox_is_polled", testRunOutboxIsPolled)
	t.Run("unavailable_partition_delays_no_other", testRunUnavailablePartitionDelaysNoOther)
	t.Run("refused_message_delays_no_other", testRunRefusedMessageDelaysNoOther)
	t.Run("panic_of_a_batch_reaches_the_caller", testRunPanicOfABatchReachesTheCaller)
}

func testRunFullBatchesFollowWithoutAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box, pub := &outbox{}, &publisher{}
		box.add(25)
		r := start(t, box, pub)
		synctest.Wait()
		if got, want := fmt.Sprint(pub.sent), "[10 10 5]"; got != want {
			t.Errorf("batches at the start: got %s, want %s", got, want)
		}
		r.end()
	})
}

func testRunOutboxIsPolled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := &outbox{}
		r := start(t, box, &publisher{})
		advance(10 * time.Second)
		if got := box.count(); got < 50 || got > 101 {
			t.Errorf("batches in 10 s: got %d, want 50 to 101 (every 100 to 200 ms)", got)
		}
		starts := box.starts()
		for i, at := range starts[1:] {
			if gap := at.Sub(starts[i]); gap < 100*time.Millisecond || gap > 200*time.Millisecond {
				t.Errorf("pause %d: got %s, want 100 to 200 ms", i, gap)
			}
		}
		r.end()
	})
}

func TestWake(t *testing.T) {
	t.Parallel()
	t.Run("starts_a_batch", testWakeStartsABatch)
	t.Run("during_a_round_starts_another", testWakeDuringARoundStartsAnother)
}

func testWakeStartsABatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := &outbox{}
		r := start(t, box, &publisher{})
		synctest.Wait()
		before := box.count()
		for range 5 { // these count as one
			r.Wake()
		}
		synctest.Wait()
		if got := box.count(); got != before+1 && got != before+2 {
			t.Errorf("batches after five wakes: got %d more, want 1 or 2", got-before)
		}
		if at := box.starts()[before]; !at.Equal(time.Now()) {
			t.Errorf("the batch started %s after the wake", time.Until(at))
		}
		r.end()
	})
}

func testWakeDuringARoundStartsAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := &outbox{}
		pub := &publisher{latency: 50 * time.Millisecond}
		box.add(1)
		r := start(t, box, pub)
		advance(10 * time.Millisecond) // the first batch is publishing
		box.add(1)
		r.Wake()
		advance(41 * time.Millisecond) // it is over
		synctest.Wait()
		if got := box.count(); got != 2 {
			t.Errorf("batches right after the first one: got %d, want 2", got)
		}
		r.end()
	})
}

func TestRate(t *testing.T) {
	t.Parallel()
	t.Run("backlog_is_limited_after_the_burst", testRateBacklogIsLimitedAfterTheBurst)
	t.Run("batch_larger_than_the_burst", testRateBatchLargerThanTheBurst)
}

func testRateBacklogIsLimitedAfterTheBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := &outbox{rate: 100}
		box.add(190)
		r := start(t, box, &publisher{})
		synctest.Wait()
		if got := box.waiting(); got != 0 {
			t.Errorf("waiting after a burst: got %d, want 0: the burst is two seconds of the rate", got)
		}
		advance(10 * time.Second) // the burst is available again
		box.add(1200)
		r.Wake()
		synctest.Wait()
		for second := range 10 {
			if got, want := box.waiting(), 1000-100*second; got > want || got < want-20 {
				t.Errorf("waiting of a backlog after %d s: got %d, want %d or up to two batches less", second, got, want)
			}
			advance(time.Second)
		}
		if got := box.waiting(); got != 0 {
			t.Errorf("waiting at the end: got %d, want 0", got)
		}
		r.end()
	})
}

func testRateBatchLargerThanTheBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := &outbox{rate: 1} // the burst is a batch of ten instead of two messages
		box.add(35)
		r := start(t, box, &publisher{})
		for _, want := range []int{15, 15, 5, 5, 0} {
			synctest.Wait()
			if got := box.waiting(); got != want {
				t.Errorf("waiting: got %d, want %d", got, want)
			}
			advance(5 * time.Second)
		}
		r.end()
	})
}

func TestStop(t *testing.T) {
	t.Parallel()
	t.Run("does_not_wait_for_the_rate", testStopDoesNotWaitForTheRate)
	t.Run("finishes_the_batch", testStopFinishesTheBatch)
	t.Run("hanging_round_times_out", testStopHangingRoundTimesOut)
}

func testStopDoesNotWaitForTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := &outbox{rate: 1}
		box.add(1000)
		r := start(t, box, &publisher{})
		advance(time.Second)
		start := time.Now()
		r.end()
		if elapsed := time.Since(start); elapsed != 0 {
			t.Errorf("stopped after %s, want no delay", elapsed)
		}
	})
}

func testRunPanicOfABatchReachesTheCaller(t *testing.T) {
	t.Parallel()
	box := &outbox{inside: func() { panic("test panic") }}
	r := relay.New(box, &publisher{}, relay.Config{Batch: 1, Poll: time.Second, Sample: time.Second}, prometheus.NewRegistry(),
		zap.NewNop())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	defer func() {
		p, stack := fmt.Sprint(recover()), string(debug.Stack())
		if p != "test panic" || !strings.Contains(stack, "relay.(*Relay).publishBatch") {
			t.Errorf("got %s, want the panic with its stack:\n%s", p, stack)
		}
	}()
	box.depth = func() relay.Depth { stop(); return relay.Depth{} } // else Run waits for the measurement
	_ = r.Run(ctx)
}

func TestOutage(t *testing.T) {
	t.Parallel()
	t.Run("kafka_is_down", testOutageKafkaIsDown)
	t.Run("database_is_down", testOutageDatabaseIsDown)
}

func testOutageKafkaIsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box, pub := &outbox{}, &publisher{}
		box.add(3)
		pub.result = func(event.Message) error { return fault.New(fault.Unavailable, "kafka_unavailable", "down") }
		r := start(t, box, pub)
		for range 600 { // Wake does not shorten the pause
			advance(100 * time.Millisecond)
			r.Wake()
		}
		if got := box.count(); got < 12 || got > 32 {
			t.Errorf("batches in a minute without Kafka: got %d, want 12 to 32", got)
		}
		starts := box.starts()
		last := starts[len(starts)-1].Sub(starts[len(starts)-2])
		if last < 2500*time.Millisecond || last > 5*time.Second {
			t.Errorf("pause late in the outage: got %s, want 2.5 to 5 s", last)
		}
		if got := r.logs.FilterMessage("relaying failed and will be retried").Len(); got != 1 {
			t.Errorf("lines about the outage: got %d, want 1", got)
		}
		pub.mu.Lock()
		pub.result = nil
		pub.mu.Unlock()
		advance(6 * time.Second)
		if got := box.waiting(); got != 0 {
			t.Errorf("waiting after the outage: got %d, want 0", got)
		}
		if got := r.logs.FilterMessage("relaying recovered").Len(); got != 1 {
			t.Errorf("lines about its end: got %d, want 1", got)
		}
		r.end()
	})
}

func testRunUnavailablePartitionDelaysNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box, pub := &outbox{}, &publisher{}
		box.add(46)
		pub.result = func(m event.Message) error {
			if m.ID == "3" {
				return fault.New(fault.Unavailable, "kafka_unavailable", "no leader")
			}
			return nil
		}
		r := start(t, box, pub)
		synctest.Wait()
		pub.mu.Lock()
		got, want := fmt.Sprint(pub.sent), "[10 10 10 10 10 1]"
		pub.mu.Unlock()
		if got != want {
			t.Errorf("batches: got %s, want %s without a pause", got, want)
		}
		advance(10 * time.Second)
		if got := box.waiting(); got != 1 {
			t.Errorf("waiting: got %d, want the one", got)
		}
		if got := r.logs.FilterMessageSnippet("some messages cannot be sent").Len(); got != 1 {
			t.Errorf("lines about unsent messages: got %d, want 1 a minute", got)
		}
		r.end()
	})
}

func testOutageDatabaseIsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := &outbox{fail: errors.New("connection refused")}
		box.add(1)
		r := start(t, box, &publisher{})
		advance(time.Minute)
		if got := box.count(); got > 32 {
			t.Errorf("batches in a minute without the database: got %d, want at most 32", got)
		}
		box.set(func() { box.fail = nil })
		advance(6 * time.Second)
		if got := box.waiting(); got != 0 {
			t.Errorf("waiting after the outage: got %d, want 0", got)
		}
		r.end()
	})
}

func testRunRefusedMessageDelaysNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box, pub := &outbox{}, &publisher{}
		box.add(25)
		pub.result = func(m event.Message) error {
			if m.ID == "3" {
				return fault.New(fault.Invalid, "message_too_large", "too large")
			}
			return nil
		}
		r := start(t, box, pub)
		synctest.Wait()
		if got, want := fmt.Sprint(pub.sent), "[10 10 5]"; got != want {
			t.Errorf("batches: got %s, want %s without a pause", got, want)
		}
		if got := r.logs.FilterMessage("Kafka refuses a message").FilterField(zap.String("event_id", "3")).Len(); got != 1 {
			t.Errorf("lines about the refused message: got %d, want 1", got)
		}
		if got := r.logs.FilterMessageSnippet("parked").Len(); got != 1 {
			t.Errorf("lines about the parked message: got %d, want 1", got)
		}
		expect(t, r, `
# HELP vitrine_relay_published_total Messages that Kafka acknowledged.
# TYPE vitrine_relay_published_total counter
vitrine_relay_published_total 24
# HELP vitrine_relay_refused_total Refusals of messages by Kafka.
# TYPE vitrine_relay_refused_total counter
vitrine_relay_refused_total 1
# HELP vitrine_relay_parked_total Messages that were parked after their last try.
# TYPE vitrine_relay_parked_total counter
vitrine_relay_parked_total 1
# HELP vitrine_relay_batches_total Batches that claimed messages or failed, by result: ok, failed.
# TYPE vitrine_relay_batches_total counter
vitrine_relay_batches_total{result="ok"} 3
`, "vitrine_relay_published_total", "vitrine_relay_refused_total", "vitrine_relay_parked_total",
			"vitrine_relay_batches_total")
		r.end()
	})
}

func testStopFinishesTheBatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := &outbox{}
		pub := &publisher{latency: 300 * time.Millisecond}
		box.add(30)
		r := start(t, box, pub)
		advance(100 * time.Millisecond)
		r.stop()
		<-r.done
		if got, want := fmt.Sprint(pub.sent, pub.ended), "[10] [<nil>]"; got != want {
			t.Errorf("batches and their contexts: got %s, want %s: the batch completes and no other starts", got, want)
		}
	})
}

func testStopHangingRoundTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hanging := &hangingOutbox{}
		r := relay.New(hanging, &publisher{}, relay.Config{Batch: 1, Poll: time.Second, Sample: time.Second},
			prometheus.NewRegistry(), zap.NewNop())
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = r.Run(ctx) }()
		advance(time.Second)
		stop()
		start := time.Now()
		<-done
		if elapsed := time.Since(start); elapsed > 8*time.Second {
			t.Errorf("stopped after %s while the database hangs, want at most 8 s", elapsed)
		}
	})
}

// hangingOutbox is an Outbox that returns only when its context ends.
type hangingOutbox struct{}

func (*hangingOutbox) PublishBatch(
	ctx context.Context, _ int, _ func(context.Context, []event.Message) []error,
) (relay.BatchResult, error) {
	<-ctx.Done()
	return relay.BatchResult{}, ctx.Err()
}

func (*hangingOutbox) Depth(ctx context.Context) (relay.Depth, error) {
	<-ctx.Done()
	return relay.Depth{}, ctx.Err()
}

func TestDepth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box := &outbox{depth: func() relay.Depth {
			return relay.Depth{Due: 4, Delayed: 3, Parked: 2, Oldest: 90 * time.Second}
		}}
		r := start(t, box, &publisher{})
		synctest.Wait()
		want := `
# HELP vitrine_relay_outbox_due Messages that could be published now; counted up to 10000.
# TYPE vitrine_relay_outbox_due gauge
vitrine_relay_outbox_due 4
# HELP vitrine_relay_outbox_delayed Messages that are not due yet; counted up to 10000.
# TYPE vitrine_relay_outbox_delayed gauge
vitrine_relay_outbox_delayed 3
# HELP vitrine_relay_outbox_parked Messages that Kafka refused too often; an operator has to decide.
# TYPE vitrine_relay_outbox_parked gauge
vitrine_relay_outbox_parked 2
# HELP vitrine_relay_outbox_oldest_age_seconds Time since the oldest due message became due.
# TYPE vitrine_relay_outbox_oldest_age_seconds gauge
vitrine_relay_outbox_oldest_age_seconds 90
`
		names := []string{"vitrine_relay_outbox_due", "vitrine_relay_outbox_delayed", "vitrine_relay_outbox_parked",
			"vitrine_relay_outbox_oldest_age_seconds"}
		expect(t, r, want, names...)
		box.set(func() { box.depthErr = errors.New("down"); box.depth = func() relay.Depth { return relay.Depth{} } })
		advance(time.Minute)
		expect(t, r, want, names...) // a failed measurement changes no gauge
		if got := r.logs.FilterMessage("measuring the outbox failed and will be retried").Len(); got != 1 {
			t.Errorf("lines about it: got %d, want 1", got)
		}
		r.end()
	})
}

func expect(t *testing.T, r *fixture, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	if wrong := (relay.Config{Batch: 500, Poll: 150 * time.Millisecond, Sample: 5 * time.Second}).Validate(); wrong != nil {
		t.Errorf("the defaults: got %v", wrong)
	}
	var got []string
	for _, f := range (relay.Config{Batch: 0, Rate: -1, Poll: 2 * time.Minute, Sample: time.Millisecond}).Validate() {
		got = append(got, f.Path)
	}
	if want := "[BATCH RATE POLL SAMPLE]"; fmt.Sprint(got) != want {
		t.Errorf("wrong settings: got %v, want %s", got, want)
	}
}
