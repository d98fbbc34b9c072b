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

// Readers of each pod, on persistent connections, and the end of their observation after a write.
const (
	staleReaders = 4
	staleQuiet   = 20 // current reads in a row after which a reader stops
)

// pods are two instances of the api that share Postgres, Redis and Kafka. The first one writes, or a third one that is not
// read and drops the invalidations of its cache.
type pods struct {
	first, second *instance
	lossy         *instance
	product       catalog.ProductID
	readers       []load // of each pod
	writes        atomic.Int64
}

// newPods starts them with their relays and consumers of changes, and one product with a ready image.
func newPods(tb testing.TB) *pods {
	tb.Helper()
	p := &pods{first: newInstance(tb), product: 1}
	p.first.seed(tb, dataset{users: 1, products: 1, images: 1, name: func(int) string { return "Kettle" }})
	outbox, publisher := p.first.createTopics(tb, 3)
	p.first.runBackground(tb, outbox, publisher)
	p.second = startInstance(tb, p.first.cfg)
	outbox, publisher = p.second.connectKafka(tb)
	p.second.runBackground(tb, outbox, publisher)
	p.lossy = startInstance(tb, p.first.cfg)
	p.lossy.cache.drop.Store(true)
	p.lossy.relay = p.first.relay
	for _, pod := range []*instance{p.first, p.second} {
		p.readers = append(p.readers, newLoad(tb, pod.server.Addr(), staleReaders))
	}
	p.awaitEvents(tb)
	return p
}

// runBackground starts the parts that cmd/api runs beside its server: the relay and the consumer that repairs the cache.
func (s *instance) runBackground(tb testing.TB, outbox *postgres.Outbox, publisher *kafka.Publisher) {
	tb.Helper()
	s.relay = relay.New(outbox, publisher, s.cfg.Relay, s.reg, s.log.Named("relay"))
	tb.Cleanup(running(tb, s.relay.Run))
	changes, err := kafka.NewConsumer(s.cfg.Kafka, kafka.ConsumerConfig{
		Group: "vitrine.cache", Topic: event.TopicChanged, InFlight: 32,
	}, s.service.HandleChanged, publisher, s.reg, s.log.Named("changes"))
	must(tb, err)
	tb.Cleanup(running(tb, changes.Run))
}

// change writes a new price, and returns the version that all later reads should have.
func (p *pods) change(writer *instance, price int64) (int64, error) {
	next := decimal.New(price, -catalog.PriceDecimals)
	changed, err := writer.service.Patch(context.Background(), p.product, catalog.ProductPatch{Price: &next}, nil, "")
	return changed.Version, err
}

// awaitEvents waits until changes arrive from Kafka, which means that the consumers have joined their group.
func (p *pods) awaitEvents(tb testing.TB) {
	tb.Helper()
	_, err := p.first.service.Get(tb.Context(), p.product) // fills the cache, which only an event can correct
	must(tb, err)
	version, err := p.change(p.lossy, 1)
	must(tb, err)
	_, err = p.watch(version, time.Now(), time.Minute)
	must(tb, err)
}

// observation is the result of reading after one write.
type observation struct {
	reads, stale int
	last         time.Duration // from the acknowledgement to the response of the last stale read; 0 if there was none
}

// watch reads from all pods concurrently until each reader has read version staleQuiet times in a row. A stale read is one
// that started after the acknowledgement of the write and returned an older version.
func (p *pods) watch(version int64, acknowledged time.Time, bound time.Duration) (observation, error) {
	var (
		mu    sync.Mutex
		all   observation
		wrong error
		wg    sync.WaitGroup
	)
	for _, pod := range p.readers {
		for _, reader := range pod {
			wg.Go(func() {
				seen, err := p.read(reader, version, acknowledged, bound)
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

// read is one reader's part of watch.
func (p *pods) read(reader *rawClient, version int64, acknowledged time.Time, bound time.Duration) (observation, error) {
	var seen observation
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
				return seen, fmt.Errorf("version %d is still returned %s after the write of %d", doc.Version, bound, version)
			}
		}
	}
	return seen, nil
}

// stalenessBound is far above the staleness on an overloaded machine: beyond it the cache is broken.
const stalenessBound = 30 * time.Second

// measure writes n changes and watches each.
func (p *pods) measure(tb testing.TB, writer *instance, n int) []observation {
	tb.Helper()
	seen := make([]observation, 0, n)
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

// BenchmarkStaleness measures how long after the acknowledgement of a write a pod returns an older version: in normal
// operation, and with a writer whose invalidations are lost, so that only the event corrects the cache.
func BenchmarkStaleness(b *testing.B) {
	p := newPods(b)
	for _, row := range []struct {
		name   string
		writer *instance
	}{{"as_it_is", p.first}, {"by_event_alone", p.lossy}} {
		b.Run(row.name, func(b *testing.B) { reportStaleness(b, p.measure(b, row.writer, b.N)) })
	}
}

func reportStaleness(b *testing.B, seen []observation) {
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
			t.Errorf("write %d: got %+v, want no stale reads", i, s)
		}
	}
	for i, s := range p.measure(t, p.lossy, 3) {
		if s.stale == 0 || s.last <= 0 {
			t.Errorf("write %d without an invalidation: got %+v, want stale reads until the event arrives", i, s)
		}
	}
	if _, err := p.watch(math.MaxInt64, time.Now(), time.Millisecond); err == nil || !strings.Contains(err.Error(), "still") {
		t.Errorf("a version that is never written: got %v, want an error", err)
	}
}
