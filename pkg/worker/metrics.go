package worker

import (
	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/catalog"
)

// metrics are what a worker shows of itself.
type metrics struct {
	inFlight prometheus.Gauge
	outcomes *prometheus.CounterVec
	stages   *prometheus.HistogramVec
	bytesIn  prometheus.Counter
	bytesOut prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_worker_pictures_in_flight", Help: "Pictures this worker has begun and not ended.",
		}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_worker_outcomes_total", Help: "Ended requests by outcome and error code (empty when ready).",
		}, []string{"outcome", "code"}),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vitrine_worker_stage_duration_seconds", Help: "Time a picture spends in a stage.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"stage"}),
		bytesIn: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_worker_source_bytes_total", Help: "Bytes of downloaded sources.",
		}),
		bytesOut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_worker_rendition_bytes_total", Help: "Bytes of stored renditions.",
		}),
	}
	reg.MustRegister(m.inFlight, m.outcomes, m.stages, m.bytesIn, m.bytesOut)
	return m
}

func (m *metrics) outcome(o outcome, code catalog.Code) {
	m.outcomes.WithLabelValues(string(o), string(code)).Inc()
}
