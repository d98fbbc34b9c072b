package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/platform/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func build() telemetry.Build {
	return telemetry.Build{Version: "v1.2.3", Revision: "abc", GoVersion: "go1.26"}
}

// logger returns a logger at debug and what it writes.
func logger(t *testing.T, cfg telemetry.LogConfig, reg prometheus.Registerer) (*zap.Logger, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	log, _, stop, err := telemetry.NewLogger(cfg, zapcore.AddSync(&out), "vitrine-test", build(), reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return log, &out
}

// lines parses every line of a log, each of which must be one JSON object.
func lines(t *testing.T, out *bytes.Buffer) []map[string]any {
	t.Helper()
	var parsed []map[string]any
	for line := range strings.Lines(out.String()) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Fatalf("not a JSON object: %v: %s", err, line)
		}
		parsed = append(parsed, object)
	}
	return parsed
}

func TestLogger(t *testing.T) {
	t.Parallel()
	t.Run("json_lines", testLoggerJSONLines)
	t.Run("panic_has_stack", testLoggerPanicHasStack)
	t.Run("level", testLoggerLevel)
	t.Run("sampling_counts_dropped_lines", testLoggerSamplingCountsDroppedLines)
	t.Run("no_sampling", testLoggerNoSampling)
	t.Run("console_format", testLoggerConsoleFormat)
	t.Run("flush", testLoggerFlush)
}

func testLoggerJSONLines(t *testing.T) {
	t.Parallel()
	log, out := logger(t, telemetry.LogConfig{Level: "debug", Format: "json"}, nil)
	log = log.Named("worker")
	log.Debug("two\nlines", zap.String("raw", "\xff\x00\u2028\"</script>"))
	log.Info("numbers", zap.Float64("nan", math.NaN()), zap.Float64("inf", math.Inf(1)), zap.Int64("product_id", 1<<60))
	log.Warn("values", zap.Any("channel", make(chan int)), zap.Binary("bytes", []byte{0, 255}), zap.Namespace("open"))
	log.Error("failed", zap.Error(errors.Join(errors.New("a"), errors.New("b"))))
	due := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("east", 2*60*60))
	log.Info("done", zap.Duration("fetch_seconds", 1500*time.Millisecond), zap.Time("due_at", due))

	got := lines(t, out)
	if len(got) != 5 {
		t.Fatalf("got %d lines, want 5: %s", len(got), out)
	}
	for i, level := range []string{"debug", "info", "warn", "error", "info"} {
		line := got[i]
		for key, want := range map[string]any{
			"level": level, "logger": "worker", "service": "vitrine-test", "version": "v1.2.3",
		} {
			if line[key] != want {
				t.Errorf("line %d: %s is %v, want %v", i, key, line[key], want)
			}
		}
		text, _ := line["ts"].(string)
		if at, err := time.Parse(time.RFC3339Nano, text); err != nil || at.Location() != time.UTC {
			t.Errorf("line %d: ts %q is not a UTC time: %v", i, text, err)
		}
		for _, key := range []string{"stack", "caller"} {
			if line[key] != nil {
				t.Errorf("line %d has a %s", i, key)
			}
		}
	}
	if got[4]["due_at"] != "2026-01-02T01:04:05.000000006Z" {
		t.Errorf("got %v, want UTC with nanoseconds", got[4]["due_at"])
	}
	if got[4]["fetch_seconds"] != 1.5 || got[0]["msg"] != "two\nlines" {
		t.Errorf("values differ: %v, %v", got[4], got[0])
	}
}

func testLoggerPanicHasStack(t *testing.T) {
	t.Parallel()
	log, out := logger(t, telemetry.LogConfig{Level: "info", Format: "json"}, nil)
	log.DPanic("impossible")
	if stack, _ := lines(t, out)[0]["stack"].(string); !strings.Contains(stack, "log_test.go") {
		t.Errorf("got %q, want a stack", stack)
	}
}

func testLoggerLevel(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, level, _, err := telemetry.NewLogger(
		telemetry.LogConfig{Level: "warn", Format: "json"}, zapcore.AddSync(&out), "s", build(), nil)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("unseen")
	level.SetLevel(zapcore.InfoLevel)
	log.Info("seen")
	if got := lines(t, &out); len(got) != 1 || got[0]["msg"] != "seen" {
		t.Errorf("got %v, want only the second line", got)
	}
	cfg := telemetry.LogConfig{Level: "loud"}
	if _, _, _, err := telemetry.NewLogger(cfg, zapcore.AddSync(&out), "s", build(), nil); err == nil {
		t.Error("an unknown level was accepted")
	}
}

func testLoggerSamplingCountsDroppedLines(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	log, out := logger(t, telemetry.LogConfig{Level: "info", Format: "json", SamplingFirst: 2, SamplingThereafter: 0}, reg)
	const n = 50
	for range n {
		log.Info("same")
	}
	want := `
# HELP vitrine_telemetry_log_lines_dropped_total Log lines that sampling left out.
# TYPE vitrine_telemetry_log_lines_dropped_total counter
vitrine_telemetry_log_lines_dropped_total{level="info"} `
	dropped := n - len(lines(t, out)) // 48, or 46 when a second passed between them
	if dropped < n-4 {
		t.Fatalf("sampling dropped %d of %d", dropped, n)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want+strconv.Itoa(dropped)+"\n")); err != nil {
		t.Error(err)
	}
}

func testLoggerNoSampling(t *testing.T) {
	t.Parallel()
	log, out := logger(t, telemetry.LogConfig{Level: "info", Format: "json", SamplingThereafter: 100}, nil)
	for range 1000 {
		log.Info("same")
	}
	if got := len(lines(t, out)); got != 1000 {
		t.Errorf("got %d lines, want 1000", got)
	}
}

func testLoggerConsoleFormat(t *testing.T) {
	t.Parallel()
	log, out := logger(t, telemetry.LogConfig{Level: "info", Format: "console"}, nil)
	log.Info("listening", zap.String("addr", ":8080"))
	if got := out.String(); !strings.Contains(got, "\tinfo\tlistening\t") {
		t.Errorf("got %q", got)
	}
}

func testLoggerFlush(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	cfg := telemetry.LogConfig{Level: "info", Format: "json", Flush: time.Hour}
	log, _, stop, err := telemetry.NewLogger(cfg, zapcore.AddSync(&out), "s", build(), nil)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("one")
	if got := len(lines(t, &out)); got != 0 {
		t.Errorf("below warn: got %d written, want none", got)
	}
	log.Warn("two")
	if got := len(lines(t, &out)); got != 2 {
		t.Errorf("after a warning: got %d written, want both", got)
	}
	log.Info("three")
	stop()
	if got := len(lines(t, &out)); got != 3 {
		t.Errorf("after the end: got %d written, want all three", got)
	}
}
