package codec

import "github.com/prometheus/client_golang/prometheus"

// Reasons why a child was lost or replaced: values of the label reason.
const (
	reasonTimeout   = "timeout"   // killed at an image's deadline
	reasonCrashed   = "crashed"   // died or broke the protocol during an image
	reasonCancelled = "cancelled" // killed because its caller cancelled
	reasonIdle      = "idle"      // found dead while it was idle
	reasonImages    = "images"    // has rendered RecycleAfter images
	reasonRSS       = "rss"       // resident memory above MaxRSS
	reasonSafeMode  = "safe_mode" // replaced by a child in safe mode, or was in safe mode itself
)

type metrics struct {
	slots           prometheus.Gauge
	children        prometheus.Gauge
	busy            prometheus.Gauge
	restarts        *prometheus.CounterVec // reason
	safeModeRenders prometheus.Counter
	startFailures   prometheus.Counter
	wait            prometheus.Histogram
	render          *prometheus.HistogramVec // outcome: ok or a code
	rss             *prometheus.GaugeVec     // slot
	dropped         prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, busy *busyTime) *metrics {
	buckets := []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	m := &metrics{
		slots: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_codec_slots", Help: "Images that can be rendered at the same time."}),
		children: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_codec_children", Help: "Running codec processes."}),
		busy: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_codec_busy", Help: "Codec processes that render an image, of vitrine_codec_slots."}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_codec_restarts_total", Help: "Codec processes lost or replaced, by reason."}, []string{"reason"}),
		safeModeRenders: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_codec_safe_mode_renders_total", Help: "Images rendered in safe mode."}),
		startFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_codec_start_failures_total", Help: "Failed attempts to start a codec process."}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "vitrine_codec_wait_seconds", Help: "Seconds that an image waited for a free codec process.", Buckets: buckets}),
		render: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vitrine_codec_render_seconds", Help: "Seconds to render an image, by outcome.", Buckets: buckets},
			[]string{"outcome"}),
		rss: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vitrine_codec_child_rss_bytes", Help: "Resident memory of a codec process after its last image."},
			[]string{"slot"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_codec_stderr_dropped_total", Help: "Stderr lines of codec processes that were not logged."}),
	}
	reg.MustRegister(m.slots, m.children, m.busy, m.restarts, m.safeModeRenders, m.startFailures, m.wait, m.render, m.rss,
		m.dropped,
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "vitrine_codec_busy_seconds_total", Help: "Seconds that slots were in use, summed over slots."},
			busy.total),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "vitrine_codec_utilization_ratio", Help: "Share of the slots' time in use since about the last scrape, 0 to 1."},
			busy.utilization))
	for _, reason := range []string{
		reasonTimeout, reasonCrashed, reasonCancelled, reasonIdle, reasonImages, reasonRSS, reasonSafeMode,
	} {
		m.restarts.WithLabelValues(reason)
	}
	return m
}
