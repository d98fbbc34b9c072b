package postgres

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// metrics measures the calls of one pool.
type metrics struct {
	calls *prometheus.HistogramVec
}

// newMetrics registers the metrics of one pool. Pools differ by the label pool.
func newMetrics(reg prometheus.Registerer, pool string, stats func() sql.DBStats) *metrics {
	m := &metrics{calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "vitrine_postgres_call_duration_seconds",
		Help:    "Duration of calls to the database, including the wait for a connection, by method and outcome.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"method", "outcome"})}
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"pool": pool}, reg)
	reg.MustRegister(m.calls)
	registerPool(reg, stats)
	return m
}

// observe records one call that started at start.
func (m *metrics) observe(method string, start time.Time, err error) {
	m.calls.WithLabelValues(method, outcome(err)).Observe(time.Since(start).Seconds())
}

// outcome returns the label of a call's end: ok, canceled, unknown, or the error kind.
func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, catalog.ErrOutcomeUnknown):
		return "unknown"
	case errors.Is(err, context.Canceled):
		return "canceled"
	default:
		return fault.KindOf(err).String()
	}
}

// registerPool registers the metrics of a connection pool, which are read at each scrape.
func registerPool(reg prometheus.Registerer, stats func() sql.DBStats) {
	gauge := func(name, help string, value func(sql.DBStats) float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "vitrine_postgres_" + name, Help: help},
			func() float64 { return value(stats()) }))
	}
	counter := func(name, help string, value func(sql.DBStats) float64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "vitrine_postgres_" + name, Help: help},
			func() float64 { return value(stats()) }))
	}
	gauge("connections_limit", "Maximum connections of the pool.",
		func(s sql.DBStats) float64 { return float64(s.MaxOpenConnections) })
	gauge("connections_open", "Open connections of the pool.",
		func(s sql.DBStats) float64 { return float64(s.OpenConnections) })
	gauge("connections_in_use", "Connections of the pool that are in use.",
		func(s sql.DBStats) float64 { return float64(s.InUse) })
	counter("connection_waits_total", "Calls that waited for a connection.",
		func(s sql.DBStats) float64 { return float64(s.WaitCount) })
	counter("connection_wait_seconds_total", "Time that calls waited for a connection.",
		func(s sql.DBStats) float64 { return s.WaitDuration.Seconds() })
}
