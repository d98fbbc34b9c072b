package program

import (
	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/foundation/pipeline"
)

// pipelineMetrics shows the pipeline in force at the time of a scrape. It makes its series anew each time, so that there is
// never more than one revision.
type pipelineMetrics struct {
	state               func() pipeline.State
	info, success, time *prometheus.Desc
}

func newPipelineMetrics(state func() pipeline.State) *pipelineMetrics {
	return &pipelineMetrics{
		state: state,
		info: prometheus.NewDesc("vitrine_pipeline_revision_info",
			"Always 1; the ImagePipeline in force is in the labels: revision names all of it, hash what changes pictures.",
			[]string{"name", "revision", "hash"}, nil),
		success: prometheus.NewDesc("vitrine_pipeline_reload_success",
			"Whether the ImagePipeline's file is in force as it is now; 0: the last good one still is.", nil, nil),
		time: prometheus.NewDesc("vitrine_pipeline_reload_timestamp_seconds",
			"When the ImagePipeline's file was last judged, good or bad; the start is the first time.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *pipelineMetrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *pipelineMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.state()
	success := 1.0
	if s.Err != nil {
		success = 0
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(m.info, 1, s.Revision.Name(), s.Revision.ID(), s.Revision.Hash())
	gauge(m.success, success)
	gauge(m.time, float64(s.Tried.UnixMilli())/1000)
}
