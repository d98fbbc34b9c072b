package telemetry_test

import (
	"slices"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/platform/config"
	"vitrine.io/pkg/platform/telemetry"
)

type parts struct {
	Log    telemetry.LogConfig    `envPrefix:"LOG_"`
	Admin  telemetry.AdminConfig  `envPrefix:"ADMIN_"`
	Health telemetry.HealthConfig `envPrefix:"HEALTH_"`
}

func TestConfig(t *testing.T) {
	t.Parallel()
	t.Run("defaults_are_valid", testConfigDefaultsAreValid)
	t.Run("every_wrong_variable", testConfigEveryWrongVariable)
}

func testConfigDefaultsAreValid(t *testing.T) {
	t.Parallel()
	got, _, err := config.Load[parts](nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := parts{
		Log:    telemetry.LogConfig{Level: "info", Format: "json", SamplingThereafter: 100, Flush: 200 * time.Millisecond},
		Admin:  telemetry.AdminConfig{Addr: ":9090"},
		Health: telemetry.HealthConfig{Interval: 2 * time.Second, UnreadyAfter: 30 * time.Second},
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func testConfigEveryWrongVariable(t *testing.T) {
	t.Parallel()
	names := func(fields []fault.Field) []string {
		var names []string
		for _, f := range fields {
			names = append(names, f.Path)
		}
		return names
	}
	bad := telemetry.LogConfig{Level: "fatal", Format: "xml", SamplingFirst: -1, SamplingThereafter: -1}
	want := []string{"LEVEL", "FORMAT", "SAMPLING_FIRST", "SAMPLING_THEREAFTER"}
	if got := names(bad.Validate()); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, addr := range []string{"", "9090", "host", "host:"} {
		if got := names(telemetry.AdminConfig{Addr: addr}.Validate()); !slices.Equal(got, []string{"ADDR"}) {
			t.Errorf("%q: got %v, want ADDR", addr, got)
		}
	}
	for _, c := range []struct {
		interval, after time.Duration
		want            []string
	}{
		{0, 0, []string{"INTERVAL"}}, {2 * time.Minute, time.Hour, []string{"INTERVAL"}},
		{time.Second, 6*time.Second - 1, []string{"UNREADY_AFTER"}}, {time.Second, 6 * time.Second, nil},
	} {
		cfg := telemetry.HealthConfig{Interval: c.interval, UnreadyAfter: c.after}
		if got := names(cfg.Validate()); !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v, want %v", cfg, got, c.want)
		}
	}
}
