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

// metrics counts what one pool does.
type metrics struct {
	calls *prometheus.HistogramVec
}

// newMetrics registers the metrics of one pool; several pools differ by the label pool.
func newMetrics(reg prometheus.Registerer, pool string, stats func() sql.DBStats) *metrics {
	m := &metrics{calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "vitrine_postgres_call_duration_seconds",
		Help:    "Calls to the database, from asking for a connection to the end of the transaction, by method and outcome.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"method", "outcome"})}
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"pool": pool}, reg)
	reg.MustRegister(m.calls, newPoolCollector(stats))
	return m
}

// observe records one call. It is deferred with the address of the call's error.
func (m *metrics) observe(method string, began time.Time, err *error) {
	m.calls.WithLabelValues(method, outcome(*err)).Observe(time.Since(began).Seconds())
}

// outcome names how a call ended: ok, canceled, unknown, or the fault's kind.
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

// poolCollector shows the state of a connection pool at the time of a scrape.
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
		limit:  desc("connections_limit", "Connections that the pool may have."),
		open:   desc("connections_open", "Connections that the pool has."),
		used:   desc("connections_in_use", "Connections that are at work."),
		waits:  desc("connection_waits_total", "Calls that had to wait for a connection."),
		waited: desc("connection_wait_seconds_total", "Time that calls have waited for a connection."),
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
