package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/foundation/event"
)

// Readers of each pod, on connections that stay open; how long after a write they are watched.
const (
	staleReaders = 4
	staleQuiet   = 20 // reads of a reader after the last stale one, before a write counts as seen by everybody
)

// pods are two instances of the api that share Postgres, Redis and Kafka. Changes are made at the first, or by one that is
// not asked, and whose cache is never told.
type pods struct {
	first, second *stage
	silent        *stage
	product       catalog.ProductID
	readers       []load // of each pod
	writes        atomic.Int64
}

// newPods starts both with their relays and their consumers of changes, and one product with a ready picture.
func newPods(tb testing.TB) *pods {
	tb.Helper()
	p := &pods{first: newStage(tb), product: 1}
	p.first.plant(tb, crop{users: 1, products: 1, pictures: 1, name: func(int) string { return "Kettle" }})
	outbox, publisher := p.first.toKafka(tb, 3)
	p.first.carry(tb, outbox, publisher)
	p.second = raise(tb, p.first.cfg)
	outbox, publisher = p.second.sameKafka(tb)
	p.second.carry(tb, outbox, publisher)
	p.silent = raise(tb, p.first.cfg)
	p.silent.cache.deaf.Store(true)
	p.silent.mover = p.first.mover
	for _, pod := range []*stage{p.first, p.second} {
		p.readers = append(p.readers, newLoad(tb, pod.server.Addr(), staleReaders))
	}
	p.awaitEvents(tb)
	return p
}

// carry runs what cmd/api runs beside its server: the relay and the consumer that repairs the cache.
func (s *stage) carry(tb testing.TB, outbox *postgres.Outbox, publisher *kafka.Publisher) {
	tb.Helper()
	s.mover = relay.New(outbox, publisher, s.cfg.Relay, s.reg, s.log.Named("relay"))
	tb.Cleanup(running(tb, s.mover.Run))
	changes, err := kafka.NewConsumer(s.cfg.Kafka, kafka.ConsumerConfig{
		Group: "vitrine.cache", Topic: event.TopicChanged, InFlight: 32,
	}, s.service.HandleChanged, publisher, s.reg, s.log.Named("changes"))
	must(tb, err)
	tb.Cleanup(running(tb, changes.Run))
}

// change writes a new price, which nobody has seen before, and returns the version that all reads from now on should have.
func (p *pods) change(writer *stage, price int64) (int64, error) {
	next := decimal.New(price, -catalog.PriceDecimals)
	changed, err := writer.service.Patch(context.Background(), p.product, catalog.ProductPatch{Price: &next}, nil, "")
	return changed.Version, err
}

// awaitEvents waits until changes come back from Kafka: the consumers have joined their group.
func (p *pods) awaitEvents(tb testing.TB) {
	tb.Helper()
	_, err := p.first.service.Get(tb.Context(), p.product) // now it is cached, and only an event can change that
	must(tb, err)
	version, err := p.change(p.silent, 1)
	must(tb, err)
	_, err = p.watch(version, time.Now(), time.Minute)
	must(tb, err)
}

// sighting is what the readers saw of one write.
type sighting struct {
	reads, stale int
	last         time.Duration // from the acknowledgement to the answer of the last stale read; 0: there was none
}

// watch reads at all pods at once until each reader has seen version for a while. Stale is a read that began after the
// write was acknowledged and answered with less.
func (p *pods) watch(version int64, acknowledged time.Time, bound time.Duration) (sighting, error) {
	var (
		mu    sync.Mutex
		all   sighting
		wrong error
		wg    sync.WaitGroup
	)
	for _, pod := range p.readers {
		for _, reader := range pod {
			wg.Go(func() {
				seen, err := p.look(reader, version, acknowledged, bound)
				mu.Lock()
				defer mu.Unlock()
				all.reads += seen.reads
				all.stale += seen.stale
				all.last = max(all.last, seen.last)
				if err != nil {
					wrong = err
				}
			})
		}
	}
	wg.Wait()
	return all, wrong
}

// look is one reader's part of watch.
func (p *pods) look(reader *rawClient, version int64, acknowledged time.Time, bound time.Duration) (sighting, error) {
	var seen sighting
	for fresh := 0; fresh < staleQuiet; {
		body, err := reader.get("/products/" + p.product.String())
		if err != nil {
			return seen, err
		}
		var doc struct{ Version int64 }
		if err := json.Unmarshal(body, &doc); err != nil {
			return seen, err
		}
		seen.reads++
		fresh++
		if doc.Version < version {
			seen.stale++
			seen.last = time.Since(acknowledged)
			fresh = 0
			if seen.last > bound {
				return seen, fmt.Errorf("version %d is still answered %s after the write of %d", doc.Version, bound, version)
			}
		}
	}
	return seen, nil
}

// stalenessBound is far above what a machine in trouble needs: beyond it the cache does not work.
const stalenessBound = 30 * time.Second

// measure makes n changes and watches each.
func (p *pods) measure(tb testing.TB, writer *stage, n int) []sighting {
	tb.Helper()
	seen := make([]sighting, 0, n)
	for range n {
		version, err := p.change(writer, 100+p.writes.Add(1))
		acknowledged := time.Now()
		must(tb, err)
		s, err := p.watch(version, acknowledged, stalenessBound)
		must(tb, err)
		seen = append(seen, s)
	}
	return seen
}

// BenchmarkStaleness is how long after a write was acknowledged any pod still answers with what was before: as it is, and
// with a writer whose word to the cache is always lost, so that only the event corrects it.
func BenchmarkStaleness(b *testing.B) {
	p := newPods(b)
	for _, row := range []struct {
		name   string
		writer *stage
	}{{"as_it_is", p.first}, {"by_event_alone", p.silent}} {
		b.Run(row.name, func(b *testing.B) { reportStaleness(b, p.measure(b, row.writer, b.N)) })
	}
}

func reportStaleness(b *testing.B, seen []sighting) {
	b.Helper()
	var reads, stale int
	var last []time.Duration
	for _, s := range seen {
		reads += s.reads
		stale += s.stale
		last = append(last, s.last)
	}
	slices.Sort(last)
	for unit, q := range map[string]float64{unitP50: 0.50, unitP95: 0.95, unitP99: 0.99, unitMax: 1} {
		b.ReportMetric(float64(quantile(last, q).Nanoseconds())/1e3, unit)
	}
	b.ReportMetric(float64(len(seen)), unitWrites)
	b.ReportMetric(float64(reads), unitReads)
	b.ReportMetric(float64(stale)/math.Max(1, float64(reads)), unitStale)
}

func TestStaleness(t *testing.T) {
	t.Parallel()
	p := newPods(t)
	for i, s := range p.measure(t, p.first, 3) {
		if s.reads < 2*staleReaders*staleQuiet || s.stale != 0 || s.last != 0 {
			t.Errorf("write %d: got %+v, want no stale read of all that both pods answer", i, s)
		}
	}
	for i, s := range p.measure(t, p.silent, 3) {
		if s.stale == 0 || s.last <= 0 {
			t.Errorf("write %d, of which the cache was not told: got %+v, want stale reads until the event comes", i, s)
		}
	}
	if _, err := p.watch(math.MaxInt64, time.Now(), time.Millisecond); err == nil || !strings.Contains(err.Error(), "still") {
		t.Errorf("a version that never comes: got %v, want an error", err)
	}
}
