package maintenance

import "github.com/prometheus/client_golang/prometheus"

func counter(reg prometheus.Registerer, name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	reg.MustRegister(c)
	return c
}

// auditMetrics are the metrics of an auditor.
type auditMetrics struct {
	listed, orphans, unrecognized, rows, missing, lost, errors prometheus.Counter
	stopped, progress, age                                     *prometheus.GaugeVec
	target                                                     prometheus.Gauge
}

func newAuditMetrics(reg prometheus.Registerer) *auditMetrics {
	m := &auditMetrics{
		listed:       counter(reg, "vitrine_maintenance_auditor_objects_listed_total", "Objects that the auditor has listed."),
		orphans:      counter(reg, "vitrine_maintenance_auditor_orphans_total", "Attempts whose objects were orphans."),
		unrecognized: counter(reg, "vitrine_maintenance_auditor_unrecognized_keys_total", "Listed objects that no attempt wrote."),
		rows:         counter(reg, "vitrine_maintenance_auditor_rows_checked_total", "Ready images whose objects were checked."),
		missing: counter(reg, "vitrine_maintenance_auditor_missing_total",
			"Ready images requested again: objects were missing."),
		lost: counter(reg, "vitrine_maintenance_auditor_originals_missing_total",
			"Originals that were missing; their images have forgotten them."),
		errors: counter(reg, "vitrine_maintenance_auditor_errors_total", "Steps, and images of a step, that failed."),
		stopped: gauges(reg, "vitrine_maintenance_auditor_stopped",
			"1 if a shard of the scan is stopped, or leaves missing originals alone, for the reason. All instances report the same.",
			"scan", "reason"),
		progress: gauges(reg, "vitrine_maintenance_auditor_pass_progress_ratio",
			"Share of the last pass that is done. All instances report the same.", "scan"),
		age: gauges(reg, "vitrine_maintenance_auditor_pass_age_seconds",
			"Seconds since the pass began that is not finished; 0 if the last one is. All instances report the same.", "scan"),
		target: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_maintenance_auditor_pass_target_seconds", Help: "Seconds that a pass is planned to take.",
		}),
	}
	reg.MustRegister(m.target)
	return m
}

// setPass sets the metrics of a scan.
func (m *auditMetrics) setPass(scan string, pass Pass) {
	m.stopped.DeletePartialMatch(prometheus.Labels{"scan": scan})
	for _, reason := range pass.Stopped {
		m.stopped.WithLabelValues(scan, reason).Set(1)
	}
	m.progress.WithLabelValues(scan).Set(pass.Progress)
	age := 0.0
	if pass.Unfinished > 0 {
		age = pass.Age.Seconds()
	}
	m.age.WithLabelValues(scan).Set(age)
}

func gauges(reg prometheus.Registerer, name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	reg.MustRegister(g)
	return g
}
