package maintenance

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

// sweepErrors returns the counter of failed scans that a rescuer and a cleaner of one registry share.
func sweepErrors(reg prometheus.Registerer) prometheus.Counter {
	c := counter("vitrine_worker_sweeper_errors_total", "Scans that failed.")
	err := reg.Register(c)
	var known prometheus.AlreadyRegisteredError
	if !errors.As(err, &known) {
		return c
	}
	if shared, ok := known.ExistingCollector.(prometheus.Counter); ok {
		return shared
	}
	return c
}

// auditMetrics are the metrics of an auditor.
type auditMetrics struct {
	listed, orphans, foreign, rows, missing, errors prometheus.Counter
	stopped                                         *prometheus.GaugeVec
}

func newAuditMetrics(reg prometheus.Registerer) *auditMetrics {
	m := &auditMetrics{
		listed:  counter("vitrine_worker_auditor_objects_listed_total", "Objects that the auditor has listed."),
		orphans: counter("vitrine_worker_auditor_orphans_total", "Attempts whose objects were scheduled for deletion as orphans."),
		foreign: counter("vitrine_worker_auditor_foreign_keys_total", "Listed objects that no attempt wrote; they stay."),
		rows:    counter("vitrine_worker_auditor_rows_checked_total", "Ready images whose objects were checked."),
		missing: counter("vitrine_worker_auditor_missing_total", "Ready images requested again because objects were missing."),
		errors:  counter("vitrine_worker_auditor_errors_total", "Scans that failed."),
		stopped: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vitrine_worker_auditor_stopped",
			Help: "1 if this instance's last scan stopped for that reason; absent if it did not, or if another instance scans.",
		}, []string{"round", "reason"}),
	}
	reg.MustRegister(m.listed, m.orphans, m.foreign, m.rows, m.missing, m.errors, m.stopped)
	return m
}
