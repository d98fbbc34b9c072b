package kafka

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type publisherMetrics struct {
	batches  *prometheus.CounterVec // by result: ok, partial, failed
	messages *prometheus.CounterVec // by result: ok, refused, unavailable
	seconds  prometheus.Histogram
	clients  prometheus.Counter
}

func newPublisherMetrics(reg prometheus.Registerer) *publisherMetrics {
	m := &publisherMetrics{
		batches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_kafka_publish_batches_total",
			Help: "Batches sent, by result: ok, partial (some messages failed), failed (all did).",
		}, []string{"result"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_kafka_publish_messages_total",
			Help: "Messages sent, by result: ok, refused (a retry cannot help), unavailable.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "vitrine_kafka_publish_duration_seconds",
			Help:    "Time until Kafka had answered for a whole batch, in seconds.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 13), // 1 ms to 4 s, the limit of Publish
		}),
		clients: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_kafka_publish_clients_total",
			Help: "Clients created: one on first use, and one after each failed batch.",
		}),
	}
	reg.MustRegister(m.batches, m.messages, m.seconds, m.clients)
	return m
}

// batch counts one batch. Its result follows from the results of its messages.
func (m *publisherMetrics) batch(results []error, elapsed time.Duration) {
	var ok, refused, unavailable int
	for _, err := range results {
		switch {
		case err == nil:
			ok++
		case isRefused(err):
			refused++
		default:
			unavailable++
		}
	}
	m.messages.WithLabelValues("ok").Add(float64(ok))
	m.messages.WithLabelValues("refused").Add(float64(refused))
	m.messages.WithLabelValues("unavailable").Add(float64(unavailable))
	result := "partial"
	switch len(results) {
	case ok:
		result = "ok"
	case refused + unavailable:
		result = "failed"
	}
	m.batches.WithLabelValues(result).Inc()
	m.seconds.Observe(elapsed.Seconds())
}

type consumerMetrics struct {
	inFlight    prometheus.Gauge
	handled     *prometheus.CounterVec // by result: ok, error, panic
	seconds     prometheus.Histogram
	sessions    prometheus.Counter
	undecodable prometheus.Counter
	paused      prometheus.Gauge
}

// newConsumerMetrics labels every metric with the group, because one process may consume for several groups.
func newConsumerMetrics(reg prometheus.Registerer, group string) *consumerMetrics {
	m := &consumerMetrics{
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_kafka_in_flight",
			Help: "Messages that are being handled.",
		}),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_kafka_handled_total",
			Help: "Attempts to handle a message, by result: ok, error, panic. The last two are retried.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "vitrine_kafka_handle_duration_seconds",
			Help:    "Time of one attempt to handle a message, in seconds.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 13), // 1 ms to 1 min: from a cache write to a slow image
		}),
		sessions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_kafka_rebalances_total",
			Help: "Times partitions were assigned to this consumer: at the start and after each rebalance.",
		}),
		undecodable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_kafka_undecodable_total",
			Help: "Records that could not be decoded and were sent to the dead-letter topic.",
		}),
		paused: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_kafka_paused",
			Help: "1 while this consumer is paused by its process, else 0.",
		}),
	}
	prometheus.WrapRegistererWith(prometheus.Labels{"group": group}, reg).MustRegister(
		m.inFlight, m.handled, m.seconds, m.sessions, m.undecodable, m.paused)
	return m
}
