package telemetry_test

import (
	"runtime/debug"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"vitrine.io/pkg/platform/telemetry"
)

func TestNewRegistry(t *testing.T) {
	t.Parallel()
	t.Run("build_info", testNewRegistryBuildInfo)
}

func testNewRegistryBuildInfo(t *testing.T) {
	t.Parallel()
	reg := telemetry.NewRegistry("vitrine-api", build())
	want := `
# HELP vitrine_build_info Always 1; the labels identify the build.
# TYPE vitrine_build_info gauge
vitrine_build_info{component="vitrine-api",go_version="go1.26",revision="abc",version="v1.2.3"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "vitrine_build_info"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"go_goroutines", "process_open_fds"} {
		if n, err := testutil.GatherAndCount(reg, name); err != nil || n != 1 {
			t.Errorf("%s: got %d and %v, want 1", name, n, err)
		}
	}
	problems, err := testutil.GatherAndLint(reg, "vitrine_build_info", "vitrine_telemetry_log_lines_dropped_total")
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

func TestNewBuild(t *testing.T) {
	t.Parallel()
	t.Run("build_settings", testNewBuildBuildSettings)
}

func testNewBuildBuildSettings(t *testing.T) {
	t.Parallel()
	info := func(version string, settings ...debug.BuildSetting) func() (*debug.BuildInfo, bool) {
		return func() (*debug.BuildInfo, bool) {
			return &debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Version: version}, Settings: settings}, true
		}
	}
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "abc"}
	dirty := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	clean := debug.BuildSetting{Key: "vcs.modified", Value: "false"}
	for _, c := range []struct {
		name, linked string
		read         func() (*debug.BuildInfo, bool)
		want         telemetry.Build
	}{
		{"a release", "v1.0.0", info("(devel)", revision, clean),
			telemetry.Build{Version: "v1.0.0", Revision: "abc", GoVersion: "go1.26.8"}},
		{"changed files, settings in another order", "", info("(devel)", dirty, revision),
			telemetry.Build{Version: "devel", Revision: "abc-dirty", GoVersion: "go1.26.8"}},
		{"go install", "", info("v1.1.0"),
			telemetry.Build{Version: "v1.1.0", Revision: "unknown", GoVersion: "go1.26.8"}},
		{"nothing recorded", "", func() (*debug.BuildInfo, bool) { return nil, false },
			telemetry.Build{Version: "devel", Revision: "unknown", GoVersion: "unknown"}},
	} {
		if got := telemetry.NewBuild(c.linked, c.read); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}
