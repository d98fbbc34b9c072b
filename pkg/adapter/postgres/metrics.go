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
	reg.MustRegister(m.calls, newPoolCollector(stats))
	return m
}

// observe records one call that started at start. It is deferred, so err points to the error of the call.
func (m *metrics) observe(method string, start time.Time, err *error) {
	m.calls.WithLabelValues(method, outcome(*err)).Observe(time.Since(start).Seconds())
}

// outcome returns the label of a call's end: ok, canceled, unknown, or the kind of the fault.
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

// poolCollector reports the state of a connection pool at each scrape.
type poolCollector struct {
	stats                            func() sql.DBStats
	limit, open, used, waits, waited *prometheus.Desc
}

func newPoolCollector(stats func() sql.DBStats) *poolCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("vitrine_postgres_"+name, help, nil, nil)
	}
	return &poolCollector{
		stats:  stats,
		limit:  desc("connections_limit", "Maximum connections of the pool."),
		open:   desc("connections_open", "Open connections of the pool."),
		used:   desc("connections_in_use", "Connections of the pool that are in use."),
		waits:  desc("connection_waits_total", "Calls that waited for a connection."),
		waited: desc("connection_wait_seconds_total", "Time that calls waited for a connection."),
	}
}

// Describe implements prometheus.Collector.
func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.stats()
	for _, m := range []struct {
		desc  *prometheus.Desc
		kind  prometheus.ValueType
		value float64
	}{
		{c.limit, prometheus.GaugeValue, float64(s.MaxOpenConnections)},
		{c.open, prometheus.GaugeValue, float64(s.OpenConnections)},
		{c.used, prometheus.GaugeValue, float64(s.InUse)},
		{c.waits, prometheus.CounterValue, float64(s.WaitCount)},
		{c.waited, prometheus.CounterValue, s.WaitDuration.Seconds()},
	} {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value)
	}
}
