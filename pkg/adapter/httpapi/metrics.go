package httpapi

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics has rate, errors and duration by route template. A path is never a label: the number of ids has no bound.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	shed     *prometheus.CounterVec // by limit

	bytesInFlight      prometheus.Gauge
	refusedConnections prometheus.Counter
}

// The limits for which requests are shed.
const (
	shedRequests = "requests"
	shedBytes    = "bytes"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_http_requests_total",
			Help: "Answered requests. route is the template, (none) where no route was reached.",
		}, []string{"method", "route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vitrine_http_request_duration_seconds",
			Help:    "Time from the end of reading a request to the start of writing its response.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_http_requests_in_flight",
			Help: "Requests in progress.",
		}),
		shed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_http_shed_total",
			Help: "Requests rejected because of a limit: of requests in progress, or of bytes in flight.",
		}, []string{"limit"}),
		bytesInFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_http_bytes_in_flight",
			Help: "Bytes of large request bodies and responses, until the response is written.",
		}),
		refusedConnections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_http_refused_connections_total",
			Help: "Connections that were closed at once, because their client address had too many.",
		}),
	}
	reg.MustRegister(m.requests, m.duration, m.inFlight, m.shed, m.bytesInFlight, m.refusedConnections)
	m.shed.WithLabelValues(shedRequests)
	m.shed.WithLabelValues(shedBytes)
	return m
}

// observe counts one answered request.
func (m *metrics) observe(method, route string, status int, elapsed time.Duration) {
	m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(method, route).Observe(elapsed.Seconds())
}
