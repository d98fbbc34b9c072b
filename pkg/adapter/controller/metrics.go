package controller

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// metrics are those of the leader; other replicas have no series of conditions.
type metrics struct {
	conditions *prometheus.GaugeVec
	failures   prometheus.Counter

	backfillFailures prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		conditions: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vitrine_controller_pipeline_condition",
			Help: "Condition of the ImagePipeline that the installation uses: 1 true, 0 false, -1 unknown.",
		}, []string{"pipeline", "condition"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_controller_heartbeat_failures_total",
			Help: "Reads of the heartbeats in Postgres that have failed.",
		}),
		backfillFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_controller_backfill_failures_total",
			Help: "Reconciles of the ImageBackfills that have failed, and are repeated.",
		}),
	}
	reg.MustRegister(m.conditions, m.failures, m.backfillFailures)
	return m
}

// report sets the series of a pipeline to its conditions. Without conditions it has no series.
func (m *metrics) report(pipeline string, conditions []metav1.Condition) {
	value := map[metav1.ConditionStatus]float64{metav1.ConditionTrue: 1, metav1.ConditionFalse: 0, metav1.ConditionUnknown: -1}
	for _, kind := range []string{Accepted, Published, InForce, Ready, Reconciling, Stalled} {
		c := meta.FindStatusCondition(conditions, kind)
		switch {
		case c != nil:
			m.conditions.WithLabelValues(pipeline, kind).Set(value[c.Status])
		case len(conditions) > 0 && (kind == Reconciling || kind == Stalled): // they are absent while they are false
			m.conditions.WithLabelValues(pipeline, kind).Set(0)
		default:
			m.conditions.DeleteLabelValues(pipeline, kind)
		}
	}
}
