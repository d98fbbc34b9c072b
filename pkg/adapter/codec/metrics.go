package codec

import "github.com/prometheus/client_golang/prometheus"

// Why a child was lost or let go: the label reason.
const (
	reasonTimeout   = "timeout"   // killed at a picture's deadline
	reasonCrashed   = "crashed"   // died or talked nonsense with a picture in hand
	reasonCancelled = "cancelled" // killed because its caller gave up
	reasonIdle      = "idle"      // found dead without a picture
	reasonImages    = "images"    // has made as many as it may
	reasonRSS       = "rss"       // has grown too large
	reasonSafeMode  = "safe_mode" // made way for a picture that had killed another, or has tried that picture
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
			Name: "vitrine_codec_slots", Help: "Pictures that can be worked on at a time."}),
		children: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_codec_children", Help: "Codec processes that are running."}),
		busy: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_codec_busy", Help: "Codec processes at work, of vitrine_codec_slots."}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_codec_restarts_total", Help: "Codec processes lost or replaced, by reason."}, []string{"reason"}),
		safeModeRenders: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_codec_safe_mode_renders_total", Help: "Images rendered in safe mode."}),
		startFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_codec_start_failures_total", Help: "Codec processes that could not be started."}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "vitrine_codec_wait_seconds", Help: "Time a picture waited for a free codec process.", Buckets: buckets}),
		render: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vitrine_codec_render_seconds", Help: "Time a codec process had a picture, by outcome.", Buckets: buckets},
			[]string{"outcome"}),
		rss: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vitrine_codec_child_rss_bytes", Help: "Resident memory of a codec process after its last picture."},
			[]string{"slot"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_codec_stderr_dropped_total", Help: "Lines of codec processes that were too many to be logged."}),
	}
	reg.MustRegister(m.slots, m.children, m.busy, m.restarts, m.safeModeRenders, m.startFailures, m.wait, m.render, m.rss, m.dropped,
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "vitrine_codec_busy_seconds_total", Help: "Time that slots were taken by pictures, added up over the slots."},
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
