package program

import (
	"github.com/prometheus/client_golang/prometheus"

	"vitrine.io/pkg/foundation/pipeline"
)

// pipelineMetrics reports the pipeline in force at the time of a scrape. It creates its series for each scrape, so that
// there is only one revision.
type pipelineMetrics struct {
	state               func() pipeline.State
	info, success, time *prometheus.Desc
}

func newPipelineMetrics(state func() pipeline.State) *pipelineMetrics {
	return &pipelineMetrics{
		state: state,
		info: prometheus.NewDesc("vitrine_pipeline_revision_info",
			"Always 1; the labels have the ImagePipeline in force: revision identifies all of it, hash what affects renditions.",
			[]string{"name", "revision", "hash"}, nil),
		success: prometheus.NewDesc("vitrine_pipeline_reload_success",
			"Whether the current file of the ImagePipeline is in force; 0: it was refused, and the last valid one is.", nil, nil),
		time: prometheus.NewDesc("vitrine_pipeline_reload_timestamp_seconds",
			"Unix time of the last load of the ImagePipeline's file, successful or not.", nil, nil),
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
	gauge(m.time, float64(s.ReloadedAt.UnixMilli())/1000)
}
