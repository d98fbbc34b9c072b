package rediscache

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics holds the counters of all label values, so that a Get looks up no label.
type metrics struct {
	gets          [lookups]prometheus.Counter // by lookup
	getErrors     prometheus.Counter
	skippedGets   prometheus.Counter
	nodesDown     prometheus.Counter
	fills         *prometheus.CounterVec
	invalidations *prometheus.CounterVec
	getSeconds    prometheus.Observer
	getKeys       prometheus.Observer
	seconds       *prometheus.HistogramVec
}

// Label values: the outcomes of writes.
const (
	outcomeStored   = "stored"
	outcomeNewer    = "newer"
	outcomeTooSlow  = "too_slow"
	outcomeNoMemory = "no_memory"
	outcomeError    = "error"
	outcomeNodeDown = "node_down"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	gets := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vitrine_rediscache_gets_total",
		Help: "Reads by outcome: a hit, or a miss because of no value, a tombstone, another tag, a damaged value or an error.",
	}, []string{"outcome"})
	fills := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vitrine_rediscache_fills_total",
		Help: "Documents offered to the cache, by outcome.",
	}, []string{"outcome"})
	invalidations := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vitrine_rediscache_invalidations_total",
		Help: "Invalidations, by outcome; newer means that the cache knew this version or a newer one.",
	}, []string{"outcome"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "vitrine_rediscache_operation_duration_seconds",
		Help:    "Duration of one operation, with its retries.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .2, .5},
	}, []string{"operation"})
	keys := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "vitrine_rediscache_get_keys",
		Help:    "Keys of one batch of GETs to one node.",
		Buckets: []float64{1, 2, 4, 8, 16, 32, maxBatchKeys},
	})
	skipped := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "vitrine_rediscache_skipped_gets_total",
		Help: "Reads that were not sent, because the node counts as down. They also count as reads with the outcome error.",
	})
	down := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "vitrine_rediscache_nodes_down_total",
		Help: "How often a node started to count as down, after two consecutive batches of reads without an answer.",
	})
	reg.MustRegister(gets, fills, invalidations, seconds, keys, skipped, down)

	m := &metrics{
		getErrors:     gets.WithLabelValues(outcomeError),
		skippedGets:   skipped,
		nodesDown:     down,
		fills:         fills,
		invalidations: invalidations,
		getSeconds:    seconds.WithLabelValues("get"),
		getKeys:       keys,
		seconds:       seconds,
	}
	for i, name := range [lookups]string{"hit", "miss", "tombstone", "other_tag", "damaged"} {
		m.gets[i] = gets.WithLabelValues(name)
	}
	fills.WithLabelValues(outcomeTooSlow)
	fills.WithLabelValues(outcomeNodeDown)
	for _, name := range []string{outcomeStored, outcomeNewer, outcomeNoMemory, outcomeError} {
		fills.WithLabelValues(name)
		invalidations.WithLabelValues(name)
	}
	return m
}

// observeWrite records a Fill or an Invalidate.
func (m *metrics) observeWrite(operation string, elapsed time.Duration, outcome string) {
	m.seconds.WithLabelValues(operation).Observe(elapsed.Seconds())
	if operation == "fill" {
		m.fills.WithLabelValues(outcome).Inc()
		return
	}
	m.invalidations.WithLabelValues(outcome).Inc()
}
