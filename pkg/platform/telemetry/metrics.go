package telemetry

import (
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Build identifies the build of a program.
type Build struct {
	Version   string // "v1.4.0", or "devel"
	Revision  string // of the commit, with "-dirty" if files were changed; "unknown" if it was not recorded
	GoVersion string
}

// NewBuild returns the build of this binary. version is the linker's, or ""; read is debug.ReadBuildInfo.
func NewBuild(version string, read func() (*debug.BuildInfo, bool)) Build {
	b := Build{Version: version, Revision: "unknown", GoVersion: "unknown"}
	if info, ok := read(); ok {
		b.GoVersion = info.GoVersion
		if b.Version == "" && info.Main.Version != "(devel)" {
			b.Version = info.Main.Version
		}
		dirty := ""
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				b.Revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "-dirty"
			}
		}
		b.Revision += dirty
	}
	if b.Version == "" {
		b.Version = "devel"
	}
	return b
}

// NewRegistry returns a registry with the metrics that every program has: Go's, the process', and vitrine_build_info.
// component is the program's name.
func NewRegistry(component string, build Build) *prometheus.Registry {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "vitrine_build_info",
		Help: "Always 1; the labels identify the build.",
		ConstLabels: prometheus.Labels{
			"component": component, "version": build.Version, "revision": build.Revision, "go_version": build.GoVersion,
		},
	})
	info.Set(1)
	reg := prometheus.NewRegistry()
	reg.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// newLogMetrics returns the counter of dropped lines by level.
func newLogMetrics(reg prometheus.Registerer) *prometheus.CounterVec {
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vitrine_telemetry_log_lines_dropped_total",
		Help: "Log lines that sampling left out.",
	}, []string{"level"})
	if reg != nil {
		reg.MustRegister(dropped)
	}
	return dropped
}

// healthMetrics has the results of a Health.
type healthMetrics struct {
	up    *prometheus.GaugeVec
	ready prometheus.Gauge
}

func newHealthMetrics(reg prometheus.Registerer) *healthMetrics {
	m := &healthMetrics{
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vitrine_dependency_up",
			Help: "Whether the last check of a dependency succeeded; there is no series before the first check.",
		}, []string{"dependency"}),
		ready: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_ready",
			Help: "Whether /readyz returns 200.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.up, m.ready)
	}
	return m
}
