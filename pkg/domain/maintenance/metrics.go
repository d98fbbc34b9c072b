package maintenance

import "github.com/prometheus/client_golang/prometheus"

func counter(reg prometheus.Registerer, name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	reg.MustRegister(c)
	return c
}

// auditMetrics are the metrics of an auditor.
type auditMetrics struct {
	listed, orphans, unrecognized, rows, missing, errors prometheus.Counter
	stopped                                              *prometheus.GaugeVec
}

func newAuditMetrics(reg prometheus.Registerer) *auditMetrics {
	m := &auditMetrics{
		listed:       counter(reg, "vitrine_maintenance_auditor_objects_listed_total", "Objects that the auditor has listed."),
		orphans:      counter(reg, "vitrine_maintenance_auditor_orphans_total", "Attempts whose objects were orphans."),
		unrecognized: counter(reg, "vitrine_maintenance_auditor_unrecognized_keys_total", "Listed objects that no attempt wrote."),
		rows:         counter(reg, "vitrine_maintenance_auditor_rows_checked_total", "Ready images whose objects were checked."),
		missing: counter(reg, "vitrine_maintenance_auditor_missing_total",
			"Ready images requested again: objects were missing."),
		errors: counter(reg, "vitrine_maintenance_auditor_errors_total", "Scans that failed."),
		stopped: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vitrine_maintenance_auditor_stopped",
			Help: "1 if this instance's last scan stopped for the reason; absent if it did not, or if another instance scans.",
		}, []string{"scan", "reason"}),
	}
	reg.MustRegister(m.stopped)
	return m
}
