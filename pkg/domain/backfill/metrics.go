package backfill

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the metrics of a walker. The gauges are those of the running backfill, and 0 if none is running.
type metrics struct {
	requested, errors        prometheus.Counter
	open, suspended, silence prometheus.Gauge
	images                   *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		requested: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_backfill_requested_total", Help: "Images that backfills have given a job.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_backfill_errors_total", Help: "Steps of backfills, and requests of single images, that failed.",
		}),
		open: gauge("vitrine_backfill_open", "1 while a backfill runs, is not suspended, and is within its windows."),
		suspended: gauge("vitrine_backfill_suspended_by_failures",
			"1 while a backfill is suspended because more images failed than its threshold allows."),
		silence: gauge("vitrine_backfill_silence_seconds",
			"Time since the counts of the open backfill have changed; 0 if none is open."),
		images: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vitrine_backfill_images", Help: "Images of the running backfill, by result: requested, done, skipped, failed.",
		}, []string{"result"}),
	}
	reg.MustRegister(m.requested, m.errors, m.open, m.suspended, m.silence, m.images)
	m.measure(nil, time.Time{})
	return m
}

// measure sets the gauges from all backfills.
func (m *metrics) measure(list []Backfill, now time.Time) {
	var b Backfill
	for _, other := range list {
		if other.State == Running {
			b = other
		}
	}
	m.open.Set(0)
	m.silence.Set(0)
	m.suspended.Set(0)
	if b.Open {
		m.open.Set(1)
		m.silence.Set(max(now.Sub(b.ProgressedAt).Seconds(), 0))
	}
	if b.Suspended == ByFailures {
		m.suspended.Set(1)
	}
	for result, images := range map[string]int64{
		"requested": b.Requested, "done": b.Done, "skipped": b.Skipped, "failed": b.Failed,
	} {
		m.images.WithLabelValues(result).Set(float64(images))
	}
}
