package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/pipeline"
)

const (
	backlogRows    = 1_000_000
	backlogReaders = 8    // concurrent clients
	backlogList    = 10   // one of 10 reads is a list, which always queries Postgres; the others are cache hits
	backlogParts   = 10   // the drain's rate is compared over tenths
	backlogRounds  = 8    // pairs of windows with and without the relay
	backlogProduct = 1000 // number of products that are read
)

// backlogWindow is the duration of one count of reads.
const backlogWindow = 2 * time.Second

// backlogBound is far above the time for draining a million messages.
const backlogBound = 10 * time.Minute

// backlog is an api with a full outbox, and clients that read.
type backlog struct {
	*instance
	outbox    *meteredOutbox
	publisher *kafka.Publisher
	readers   load
}

// meteredOutbox counts published messages.
type meteredOutbox struct {
	*postgres.Outbox
	published atomic.Int64
}

// Drain implements relay.Outbox.
func (o *meteredOutbox) PublishBatch(
	ctx context.Context, limit int, publish func(context.Context, []event.Message) []error,
) (relay.BatchResult, error) {
	drained, err := o.Outbox.PublishBatch(ctx, limit, publish)
	o.published.Add(int64(drained.Published))
	return drained, err
}

func newBacklog(tb testing.TB, products int) *backlog {
	tb.Helper()
	b := &backlog{instance: newInstance(tb)}
	b.seed(tb, dataset{users: 10, products: products, images: 3, name: func(i int) string { return fmt.Sprint("Kettle ", i) }})
	outbox, publisher := b.createTopics(tb, 24)
	b.outbox, b.publisher = &meteredOutbox{Outbox: outbox}, publisher
	b.readers = newLoad(tb, b.server.Addr(), backlogReaders)
	_, err := b.readers.run(products, func(i int) string { return fmt.Sprint("/products/", i+1) })
	must(tb, err)
	return b
}

// insertMessages inserts jobs as the api writes them, with due times over one hour.
const insertMessages = `
INSERT INTO outbox (event_id, topic, key, type, payload, headers, available_at)
SELECT id, $1, n::text, $2, json_build_object('product_id', n, 'image_id', n, 'source_url',
        'https://origin.example/catalogue/photo-' || n || '.jpg', 'pipeline_hash', $3::text),
    jsonb_build_object('event-id', id, 'event-type', $2::text, 'event-version', '1'), at
FROM (SELECT n, gen_random_uuid() AS id, now() - interval '1 hour' * (1 - n::float8 / $4::bigint) AS at
    FROM generate_series(1, $4::bigint) n) m`

// fill replaces the outbox with n messages. It does not vacuum or analyse the table, as after a real outage.
func (b *backlog) fill(tb testing.TB, n int) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), b.cfg.Postgres.DSN)
	must(tb, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(tb.Context(), "TRUNCATE outbox")
	must(tb, err)
	hash := pipeline.Default().Hash()
	_, err = conn.Exec(tb.Context(), insertMessages, event.TopicRequested, event.TypeImageRequested, hash, n)
	must(tb, err)
}

// relay starts a relay. The returned function stops it.
func (b *backlog) relay(tb testing.TB, rate int) (stop func()) {
	tb.Helper()
	cfg := b.cfg.Relay
	cfg.Rate = rate
	return running(tb, relay.New(b.outbox, b.publisher, cfg, prometheus.NewRegistry(), b.log.Named("relay")).Run)
}

// heap returns the heap in use after a collection, in bytes.
func heap() float64 {
	runtime.GC()
	runtime.GC() // a sync.Pool keeps its content over one collection
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// drainResult is the course of draining a full outbox.
type drainResult struct {
	rates []float64 // messages per second, for each part
	heaps []float64 // heap after each part, in bytes
}

// drain empties the outbox without a rate limit.
func (b *backlog) drain(tb testing.TB, n int) (drainResult, error) {
	tb.Helper()
	var d drainResult
	defer b.relay(tb, 0)()
	before, part := b.outbox.published.Load(), int64(n/backlogParts)
	bound := time.Now().Add(backlogBound)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	done, start := before, time.Now()
	for len(d.rates) < backlogParts {
		<-tick.C
		now, at := b.outbox.published.Load(), time.Now()
		if now-done >= part || now-before >= int64(n) {
			d.rates = append(d.rates, float64(now-done)/at.Sub(start).Seconds())
			d.heaps = append(d.heaps, heap())
			done, start = b.outbox.published.Load(), time.Now()
		}
		if at.After(bound) {
			return d, errors.New("the outbox does not become empty")
		}
	}
	return d, nil
}

// during reads for d and returns the number of reads per second.
func (b *backlog) during(d time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var (
		wg     sync.WaitGroup
		reads  atomic.Int64
		failed atomic.Pointer[error]
	)
	start := time.Now()
	for _, reader := range b.readers {
		wg.Go(func() {
			for ctx.Err() == nil && failed.Load() == nil {
				i := reads.Add(1)
				path := fmt.Sprint("/products/", i*7919%backlogProduct+1)
				if i%backlogList == 0 {
					path = fmt.Sprint("/products?user_id=", i%10+1)
				}
				if _, err := reader.get(path); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(reads.Load()) / time.Since(start).Seconds(), nil
}

// skipBurst waits until n messages are published: an idle relay has saved tokens, so it starts above its rate.
func (b *backlog) skipBurst(tb testing.TB, n int64) {
	tb.Helper()
	bound, tick := time.After(time.Minute), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for want := b.outbox.published.Load() + n; b.outbox.published.Load() < want; {
		select {
		case <-tick.C:
		case <-bound:
			tb.Fatal("the relay does not publish")
		}
	}
}

// beside reads alternately with and without a running relay. It returns the ratio of each round, and the number of published
// messages per second.
func (b *backlog) beside(tb testing.TB, rounds int, window time.Duration) (ratios []float64, rate float64) {
	tb.Helper()
	var relayTime time.Duration
	var counted int64
	with := func() float64 {
		defer b.relay(tb, b.cfg.Relay.Rate)()
		b.skipBurst(tb, int64(3*b.cfg.Relay.Rate))
		counted -= b.outbox.published.Load()
		defer func() { counted += b.outbox.published.Load() }()
		start := time.Now()
		reads, err := b.during(window)
		must(tb, err)
		relayTime += time.Since(start)
		return reads
	}
	without := func() float64 {
		reads, err := b.during(window)
		must(tb, err)
		return reads
	}
	for round := range rounds {
		var draining, quiet float64
		if round%2 == 0 {
			draining, quiet = with(), without()
		} else {
			quiet, draining = without(), with()
		}
		ratios = append(ratios, draining/quiet)
	}
	return ratios, float64(counted) / relayTime.Seconds()
}

// BenchmarkBacklog drains a million messages, the backlog of about an hour without Kafka. It runs once for any b.N.
func BenchmarkBacklog(b *testing.B) {
	log := newBacklog(b, backlogProduct)
	b.Run("beside_reads", func(b *testing.B) {
		log.fill(b, backlogRows)
		b.ResetTimer()
		ratios, rate := log.beside(b, backlogRounds, backlogWindow)
		slices.Sort(ratios)
		b.ReportMetric(quantile(ratios, 0.5), unitRatio)
		b.ReportMetric(quantile(ratios, 0.25), unitRatioLow)
		b.ReportMetric(quantile(ratios, 0.75), unitRatioHigh)
		b.ReportMetric(float64(len(ratios)), unitRounds)
		b.ReportMetric(rate, unitRate)
	})
	for _, row := range []struct {
		name   string
		pinned bool
	}{{"alone", false}, {"beside_an_old_transaction", true}} {
		b.Run(row.name, func(b *testing.B) {
			log.fill(b, backlogRows)
			if row.pinned {
				defer log.pin(b)()
			}
			b.ResetTimer()
			start := time.Now()
			d, err := log.drain(b, backlogRows)
			must(b, err)
			b.ReportMetric(backlogRows/time.Since(start).Seconds(), unitRate)
			b.ReportMetric(d.rates[len(d.rates)-1]/d.rates[0], unitSteady)
			b.ReportMetric(slices.Min(d.rates)/slices.Max(d.rates), unitSlowest)
			b.ReportMetric(slices.Max(d.heaps)/d.heaps[0], unitHeap)
			b.ReportMetric(d.heaps[0]/(1<<20), unitHeapMB)
		})
	}
}

// pin opens a transaction with a snapshot, so that vacuum cannot remove rows that are deleted later.
func (b *backlog) pin(tb testing.TB) (release func()) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), b.cfg.Postgres.DSN)
	must(tb, err)
	_, err = conn.Exec(tb.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM users")
	must(tb, err)
	return func() { must(tb, conn.Close(context.Background())) }
}

func TestBacklog(t *testing.T) {
	t.Parallel()
	const rows = 20_000
	b := newBacklog(t, backlogProduct)
	b.cfg.Relay.Rate = 2000
	b.fill(t, rows)
	ratios, rate := b.beside(t, 1, 3*time.Second) // several rounds of the relay at its rate
	if len(ratios) != 1 || ratios[0] <= 0 || rate <= 0 {
		t.Errorf("beside reads: got %v at %g a second", ratios, rate)
	}
	b.fill(t, rows)
	defer b.pin(t)()
	d, err := b.drain(t, rows)
	must(t, err)
	if len(d.rates) != backlogParts || len(d.heaps) != backlogParts {
		t.Errorf("got %+v, want %d parts", d, backlogParts)
	}
	var left int
	must(t, b.pool.QueryRow(t.Context(), "SELECT count(*) FROM outbox").Scan(&left))
	if left != 0 {
		t.Errorf("%d messages are left", left)
	}
}
