package httpapi

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is rate, errors and duration by route template. A path is never a label: ids have no bound.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	shed     prometheus.Counter

	// The children of every combination seen so far, so that a request does not build label strings. Its size is bounded by
	// methods x routes x statuses.
	adding sync.Mutex
	known  atomic.Pointer[map[seriesKey]series]
}

type seriesKey struct {
	method, route string
	status        int
}

type series struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_http_requests_total",
			Help: "Answered requests. route is the template, (none) where no route was reached.",
		}, []string{"method", "route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vitrine_http_request_duration_seconds",
			Help:    "From the whole request being read to the answer being ready to be written.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_http_requests_in_flight",
			Help: "Requests being worked on.",
		}),
	}
	m.shed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "vitrine_http_shed_total",
		Help: "Requests refused because as many as we take were being worked on.",
	})
	m.known.Store(&map[seriesKey]series{})
	reg.MustRegister(m.requests, m.duration, m.inFlight, m.shed)
	return m
}

// observe counts one answered request.
func (m *metrics) observe(key seriesKey, took time.Duration) {
	s, ok := (*m.known.Load())[key]
	if !ok {
		s = m.add(key)
	}
	s.requests.Inc()
	s.duration.Observe(took.Seconds())
}

// add makes the children of key and publishes a copy of the table that has them.
func (m *metrics) add(key seriesKey) series {
	m.adding.Lock()
	defer m.adding.Unlock()
	s := series{
		requests: m.requests.WithLabelValues(key.method, key.route, strconv.Itoa(key.status)),
		duration: m.duration.WithLabelValues(key.method, key.route),
	}
	grown := maps.Clone(*m.known.Load())
	grown[key] = s
	m.known.Store(&grown)
	return s
}
