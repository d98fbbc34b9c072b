package rediscache

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics holds every child ready, so that a Get looks up no label.
type metrics struct {
	gets       [lookups]prometheus.Counter // by lookup
	getErrors  prometheus.Counter
	fills      map[string]prometheus.Counter
	forgets    map[string]prometheus.Counter
	getSeconds prometheus.Observer
	getKeys    prometheus.Observer
	seconds    *prometheus.HistogramVec
}

// The outcomes of writes, as labels.
const (
	outcomeStored   = "stored"
	outcomeNewer    = "newer"
	outcomeTooSlow  = "too_slow"
	outcomeNoMemory = "no_memory"
	outcomeError    = "error"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	gets := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vitrine_rediscache_gets_total",
		Help: "Reads by what they found: hit, or a miss because of nothing, a tombstone, another tag, damage, an error.",
	}, []string{"outcome"})
	fills := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vitrine_rediscache_fills_total",
		Help: "Documents offered to the cache, by what became of them.",
	}, []string{"outcome"})
	forgets := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vitrine_rediscache_invalidations_total",
		Help: "Changes told to the cache, by what became of them; newer means that it already knew.",
	}, []string{"outcome"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "vitrine_rediscache_operation_duration_seconds",
		Help:    "Time of one operation with its retries.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .2, .5},
	}, []string{"operation"})
	keys := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "vitrine_rediscache_get_keys",
		Help:    "Keys that one question to a node asked for.",
		Buckets: []float64{1, 2, 4, 8, 16, 32, maxBatchKeys},
	})
	reg.MustRegister(gets, fills, forgets, seconds, keys)

	m := &metrics{
		getErrors:  gets.WithLabelValues(outcomeError),
		fills:      map[string]prometheus.Counter{},
		forgets:    map[string]prometheus.Counter{},
		getSeconds: seconds.WithLabelValues("get"),
		getKeys:    keys,
		seconds:    seconds,
	}
	for i, name := range [lookups]string{"hit", "miss", "tombstone", "other_tag", "damaged"} {
		m.gets[i] = gets.WithLabelValues(name)
	}
	for _, name := range []string{outcomeStored, outcomeNewer, outcomeTooSlow, outcomeNoMemory, outcomeError} {
		m.fills[name] = fills.WithLabelValues(name)
	}
	for _, name := range []string{outcomeStored, outcomeNewer, outcomeNoMemory, outcomeError} {
		m.forgets[name] = forgets.WithLabelValues(name)
	}
	return m
}

// observeWrite records a Fill or a Forget.
func (m *metrics) observeWrite(operation string, took time.Duration, outcome string) {
	m.seconds.WithLabelValues(operation).Observe(took.Seconds())
	if operation == "fill" {
		m.fills[outcome].Inc()
		return
	}
	m.forgets[outcome].Inc()
}
