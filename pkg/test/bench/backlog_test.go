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
	backlogReaders = 8    // clients at a time
	backlogList    = 10   // one read in so many is a list, which always goes to Postgres; the others are hits
	backlogParts   = 10   // the drain's rate is compared over tenths
	backlogRounds  = 8    // pairs of windows with and without the relay
	backlogProduct = 1000 // that are read
)

// backlogWindow is how long reads are counted at a time.
const backlogWindow = 2 * time.Second

// backlogBound is far above what draining a million takes.
const backlogBound = 10 * time.Minute

// backlog is a full outbox beside an api that answers.
type backlog struct {
	*stage
	outbox    *meteredOutbox
	publisher *kafka.Publisher
	readers   load
}

// meteredOutbox counts what was published.
type meteredOutbox struct {
	*postgres.Outbox
	published atomic.Int64
}

// Drain implements relay.Outbox.
func (o *meteredOutbox) Drain(
	ctx context.Context, limit int, publish func(context.Context, []event.Message) []error,
) (relay.Drained, error) {
	drained, err := o.Outbox.Drain(ctx, limit, publish)
	o.published.Add(int64(drained.Published))
	return drained, err
}

func newBacklog(tb testing.TB, products int) *backlog {
	tb.Helper()
	b := &backlog{stage: newStage(tb)}
	b.plant(tb, crop{users: 10, products: products, pictures: 3, name: func(i int) string { return fmt.Sprint("Kettle ", i) }})
	outbox, publisher := b.toKafka(tb, 24)
	b.outbox, b.publisher = &meteredOutbox{Outbox: outbox}, publisher
	b.readers = newLoad(tb, b.server.Addr(), backlogReaders)
	_, err := b.readers.run(products, func(i int) string { return fmt.Sprint("/products/", i+1) })
	must(tb, err)
	return b
}

// manyMessages are requests as products leave them, with an hour's worth of due times.
const manyMessages = `
INSERT INTO outbox (event_id, topic, key, type, payload, headers, available_at)
SELECT id, $1, n::text, $2, json_build_object('product_id', n, 'image_id', n, 'source_url',
        'https://origin.example/catalogue/photo-' || n || '.jpg', 'pipeline_hash', $3::text),
    jsonb_build_object('event-id', id, 'event-type', $2::text, 'event-version', '1'), at
FROM (SELECT n, gen_random_uuid() AS id, now() - interval '1 hour' * (1 - n::float8 / $4::bigint) AS at
    FROM generate_series(1, $4::bigint) n) m`

// fill makes the outbox hold n messages. It is not vacuumed and not analysed: an outage does not do that either.
func (b *backlog) fill(tb testing.TB, n int) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), b.cfg.Postgres.DSN)
	must(tb, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(tb.Context(), "TRUNCATE outbox")
	must(tb, err)
	_, err = conn.Exec(tb.Context(), manyMessages, event.TopicRequested, event.TypeImageRequested, pipeline.Default().Hash(), n)
	must(tb, err)
}

// relay runs a relay until the returned function is called.
func (b *backlog) relay(tb testing.TB, rate int) (stop func()) {
	tb.Helper()
	cfg := b.cfg.Relay
	cfg.Rate = rate
	return running(tb, relay.New(b.outbox, b.publisher, cfg, prometheus.NewRegistry(), b.log.Named("relay")).Run)
}

// heap is what the process keeps.
func heap() float64 {
	runtime.GC()
	runtime.GC() // what the first has only marked for its pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// drainage is how a full outbox became empty.
type drainage struct {
	rates []float64 // messages a second, of each part
	heaps []float64 // bytes after a collection, after each part
}

// drain empties the outbox as fast as it goes.
func (b *backlog) drain(tb testing.TB, n int) (drainage, error) {
	tb.Helper()
	var d drainage
	defer b.relay(tb, 0)()
	before, part := b.outbox.published.Load(), int64(n/backlogParts)
	bound := time.Now().Add(backlogBound)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	done, began := before, time.Now()
	for len(d.rates) < backlogParts {
		<-tick.C
		now, at := b.outbox.published.Load(), time.Now()
		if now-done >= part || now-before >= int64(n) {
			d.rates = append(d.rates, float64(now-done)/at.Sub(began).Seconds())
			d.heaps = append(d.heaps, heap())
			done, began = b.outbox.published.Load(), time.Now()
		}
		if at.After(bound) {
			return d, errors.New("the outbox does not become empty")
		}
	}
	return d, nil
}

// during reads for d and returns how many reads a second were answered.
func (b *backlog) during(d time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var (
		wg     sync.WaitGroup
		reads  atomic.Int64
		failed atomic.Pointer[error]
	)
	began := time.Now()
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
	return float64(reads.Load()) / time.Since(began).Seconds(), nil
}

// settle waits until n more messages are out: what an idle relay has saved up goes at full speed, and is not the matter.
func (b *backlog) settle(tb testing.TB, n int64) {
	tb.Helper()
	bound, tick := time.After(time.Minute), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for want := b.outbox.published.Load() + n; b.outbox.published.Load() < want; {
		select {
		case <-tick.C:
		case <-bound:
			tb.Fatal("the relay does nothing")
		}
	}
}

// beside reads with the relay at work and without it, in turns, and returns a ratio for each round and how many messages a
// second went out meanwhile.
func (b *backlog) beside(tb testing.TB, rounds int, window time.Duration) (ratios []float64, rate float64) {
	tb.Helper()
	var working time.Duration
	var counted int64
	with := func() float64 {
		defer b.relay(tb, b.cfg.Relay.Rate)()
		b.settle(tb, int64(3*b.cfg.Relay.Rate))
		counted -= b.outbox.published.Load()
		defer func() { counted += b.outbox.published.Load() }()
		began := time.Now()
		reads, err := b.during(window)
		must(tb, err)
		working += time.Since(began)
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
	return ratios, float64(counted) / working.Seconds()
}

// BenchmarkBacklog is what an hour without Kafka leaves behind: a million messages. It is done once, whatever b.N.
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
			began := time.Now()
			d, err := log.drain(b, backlogRows)
			must(b, err)
			b.ReportMetric(backlogRows/time.Since(began).Seconds(), unitRate)
			b.ReportMetric(d.rates[len(d.rates)-1]/d.rates[0], unitSteady)
			b.ReportMetric(slices.Min(d.rates)/slices.Max(d.rates), unitSlowest)
			b.ReportMetric(slices.Max(d.heaps)/d.heaps[0], unitHeap)
			b.ReportMetric(d.heaps[0]/(1<<20), unitHeapMB)
		})
	}
}

// pin holds a transaction open that sees what was before: nothing that dies from now on can be vacuumed.
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
	ratios, rate := b.beside(t, 1, 300*time.Millisecond)
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
