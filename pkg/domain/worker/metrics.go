package worker

import (
	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/foundation/media"
)

// metrics are the metrics of a worker.
type metrics struct {
	inFlight                                              prometheus.Gauge
	outcomes, backfill, canary, dropped                   *prometheus.CounterVec
	stages                                                *prometheus.HistogramVec
	originals                                             *prometheus.CounterVec
	bytesIn, bytesOut, readySource, readyDefault, lowered prometheus.Counter
	originalBytes                                         prometheus.Counter
}

// The results of originals.
const (
	originalKept    = "kept"
	originalRead    = "read"
	originalMissing = "missing"
	originalDamaged = "damaged"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_worker_images_in_flight", Help: "Images that this worker is processing.",
		}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_worker_outcomes_total",
			Help: "Handled jobs by outcome and error code (empty if ready), without those of backfills.",
		}, []string{"outcome", "code"}),
		backfill: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_worker_backfill_outcomes_total",
			Help: "Handled jobs of backfills by outcome and error code (empty if ready).",
		}, []string{"outcome", "code"}),
		canary: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_worker_canary_outcomes_total",
			Help: "Handled samples of canaries by outcome and error code (empty if ready).",
		}, []string{"outcome", "code"}),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vitrine_worker_stage_duration_seconds", Help: "Time an image spends in a stage.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"stage"}),
		bytesIn:  counter(reg, "vitrine_worker_source_bytes_total", "Bytes of downloaded sources."),
		bytesOut: counter(reg, "vitrine_worker_rendition_bytes_total", "Bytes of stored renditions."),
		readySource: counter(reg, "vitrine_worker_ready_source_bytes_total",
			"Bytes of the sources of images that became ready."),
		originalBytes: counter(reg, "vitrine_worker_original_bytes_total", "Bytes of stored originals."),
		originals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_worker_originals_total",
			Help: "Originals that were kept, read, or found missing or damaged when they were to be read.",
		}, []string{"result"}),
		readyDefault: counter(reg, "vitrine_worker_ready_default_bytes_total",
			"Bytes of the default renditions of images that became ready: clients download them instead of the sources."),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_worker_renditions_dropped_total",
			Help: "Files that were not stored, because another file of their rendition is better.",
		}, []string{"reason"}),
		lowered: counter(reg, "vitrine_worker_renditions_lowered_total",
			"Files encoded at a lower quality, because they were larger than the source at its size."),
	}
	for _, r := range media.Reasons() {
		m.dropped.WithLabelValues(string(r))
	}
	for _, result := range []string{originalKept, originalRead, originalMissing, originalDamaged} {
		m.originals.WithLabelValues(result)
	}
	reg.MustRegister(m.inFlight, m.outcomes, m.backfill, m.canary, m.stages, m.dropped, m.originals)
	return m
}

// imageReady records an image that became ready: the bytes of its source and of its files, and the dropped files.
func (m *metrics) imageReady(source int, out media.Rendered) {
	m.readySource.Add(float64(source))
	for _, file := range out.Files {
		if file.Default {
			m.readyDefault.Add(float64(len(file.Body)))
		}
		if file.Lowered > 0 {
			m.lowered.Inc()
		}
	}
	for _, d := range out.Dropped {
		m.dropped.WithLabelValues(string(d.Reason)).Inc()
	}
}

// original counts an original that was to be read and is missing or damaged.
func (m *metrics) original(missing bool) {
	result := originalDamaged
	if missing {
		result = originalMissing
	}
	m.originals.WithLabelValues(result).Inc()
}

func (m *metrics) outcome(t *task, o outcome, code media.Code) {
	outcomes := m.outcomes
	switch {
	case t.canary:
		outcomes = m.canary
	case t.BackfillID != 0:
		outcomes = m.backfill
	}
	outcomes.WithLabelValues(string(o), string(code)).Inc()
}

func counter(reg prometheus.Registerer, name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	reg.MustRegister(c)
	return c
}
