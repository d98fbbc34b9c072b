package fetch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/foundation/media"
)

type metrics struct {
	requests *prometheus.CounterVec
	bytes    prometheus.Counter
	seconds  prometheus.Histogram
	inFlight prometheus.Gauge
	reserved prometheus.Gauge
	wait     prometheus.Histogram
	controls *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_fetch_requests_total",
			Help: "Downloads by result: ok, the error code of the image, or stopped by the caller.",
		}, []string{"code"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_fetch_bytes_total",
			Help: "Bytes of downloaded sources, after decoding of a content encoding.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "vitrine_fetch_duration_seconds",
			Help:    "Time of one download including redirects, in seconds.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_fetch_in_flight",
			Help: "Downloads in progress.",
		}),
		reserved: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_fetch_reserved_bytes",
			Help: "Bytes of memory reserved for sources, from before the download until after the rendering.",
		}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "vitrine_fetch_reservation_wait_seconds",
			Help:    "Time for which a download waited for memory before it started, in seconds.",
			Buckets: []float64{.001, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
		controls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_fetch_control_lookups_total",
			Help: "Lookups of control names, after a source's name had no answer, by name and by whether the resolver answered.",
		}, []string{"name", "answered"}),
	}
	reg.MustRegister(m.requests, m.bytes, m.seconds, m.inFlight, m.reserved, m.wait, m.controls)
	return m
}

// observe records the end of a download.
func (m *metrics) observe(elapsed time.Duration, size int, err error) {
	m.count(err)
	m.bytes.Add(float64(size))
	m.seconds.Observe(elapsed.Seconds())
}

// count counts a download by its result.
func (m *metrics) count(err error) {
	code := "ok"
	if f := media.FailureOf(err); f != nil {
		code = string(f.Code)
	} else if err != nil {
		code = "stopped"
	}
	m.requests.WithLabelValues(code).Inc()
}
