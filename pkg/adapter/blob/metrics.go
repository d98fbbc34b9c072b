package blob

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/foundation/fault"
)

type metrics struct {
	operations *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	sent       prometheus.Counter
	received   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_blob_operations_total",
			Help: "Operations on the object store, by outcome.",
		}, []string{"operation", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vitrine_blob_operation_duration_seconds",
			Help:    "Time of one operation including its retries, in seconds; of a get until its first byte.",
			Buckets: []float64{.0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"operation"}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_blob_sent_bytes_total",
			Help: "Bytes of objects that were stored.",
		}),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_blob_received_bytes_total",
			Help: "Bytes of objects that were read.",
		}),
	}
	reg.MustRegister(m.operations, m.seconds, m.sent, m.received)
	return m
}

// observe runs one operation and records its duration and outcome.
func (m *metrics) observe(operation string, run func() error) error {
	timer := prometheus.NewTimer(m.seconds.WithLabelValues(operation))
	err := run()
	timer.ObserveDuration()
	m.operations.WithLabelValues(operation, outcome(err)).Inc()
	return err
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case fault.Is(err, fault.NotFound):
		return "not_found"
	case errors.Is(err, context.Canceled):
		return "canceled"
	default:
		return "error"
	}
}
