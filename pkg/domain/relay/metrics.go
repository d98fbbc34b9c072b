package relay

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	due, delayed, parked, oldest        prometheus.Gauge
	batches                             *prometheus.CounterVec // by result: ok, failed
	published, refused, parkedByRefusal prometheus.Counter
	seconds                             prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "vitrine_relay_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "vitrine_relay_" + name, Help: help})
	}
	m := &metrics{
		due:     gauge("outbox_due", "Messages that could be published now; counted up to 10000."),
		delayed: gauge("outbox_delayed", "Messages that are not due yet; counted up to 10000."),
		parked:  gauge("outbox_parked", "Messages that Kafka refused too often; an operator has to decide."),
		oldest:  gauge("outbox_oldest_age_seconds", "Time since the oldest due message became due."),
		batches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_relay_batches_total",
			Help: "Batches that claimed messages or failed, by result: ok, failed.",
		}, []string{"result"}),
		published:       counter("published_total", "Messages that Kafka acknowledged."),
		refused:         counter("refused_total", "Refusals of messages by Kafka."),
		parkedByRefusal: counter("parked_total", "Messages that were parked after their last try."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "vitrine_relay_batch_duration_seconds",
			Help:    "Duration of a batch that claimed messages.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14), // 1 ms to 8 s; a batch lasts at most five seconds
		}),
	}
	reg.MustRegister(m.due, m.delayed, m.parked, m.oldest, m.batches, m.published, m.refused, m.parkedByRefusal, m.seconds)
	return m
}
