package scheduler

import (
	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/domain/catalog"
)

// metrics are the metrics of a scheduler. The gauges are those of its last round; they are 0 while another instance runs the
// rounds.
type metrics struct {
	released         *prometheus.CounterVec
	waiting          *prometheus.GaugeVec
	inFlight, window prometheus.Gauge
	errors           prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		released: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vitrine_scheduler_released_total", Help: "Jobs that the scheduler has given to the workers, by class.",
		}, []string{"class"}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vitrine_scheduler_waiting", Help: "Jobs that wait for their release, those that are not due included, by class.",
		}, []string{"class"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_scheduler_in_flight", Help: "Jobs that are released and have not ended, without those of backfills.",
		}),
		window: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_scheduler_window", Help: "Maximum jobs in flight, of all hosts.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_scheduler_errors_total", Help: "Rounds that failed.",
		}),
	}
	for _, class := range classes {
		m.released.WithLabelValues(string(class))
		m.waiting.WithLabelValues(string(class))
	}
	reg.MustRegister(m.released, m.waiting, m.inFlight, m.window, m.errors)
	return m
}

// classes are the classes in order of precedence.
var classes = []catalog.Class{catalog.Live, catalog.Bulk, catalog.BackfillClass}
