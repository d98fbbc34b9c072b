package telemetry_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/platform/telemetry"
)

// admin is a running admin server.
type admin struct {
	t      *testing.T
	url    string
	level  zap.AtomicLevel
	health *telemetry.Health
	stop   func() error
}

func start(t *testing.T, dependencies ...telemetry.Dependency) *admin {
	t.Helper()
	a := &admin{t: t, level: zap.NewAtomicLevel(), health: newHealth(dependencies...)}
	reg := telemetry.NewRegistry("test", build())
	server := telemetry.NewAdmin(telemetry.AdminConfig{Addr: "127.0.0.1:0"}, reg, a.health, a.level, zap.NewNop(),
		telemetry.Route{Pattern: "/images/reprocess", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(w, io.MultiReader(strings.NewReader(r.Method+" "), r.Body))
		})})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	if err := server.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.url = "http://" + server.Addr()
	a.stop = func() error {
		cancel()
		defer func() { done <- nil }()
		return <-done
	}
	t.Cleanup(func() {
		if err := a.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return a
}

// do sends a request on a new connection and returns status, header and body.
func (a *admin) do(method, path, body, accept string) (int, http.Header, string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	t.Run("metrics_formats", testAdminMetricsFormats)
	t.Run("readiness_and_liveness", testAdminReadinessAndLiveness)
	t.Run("ready", testAdminReady)
	t.Run("log_level", testAdminLogLevel)
	t.Run("profiles", testAdminProfiles)
	t.Run("shutdown_cuts_profiles", testAdminShutdownCutsProfiles)
	t.Run("address_in_use", testAdminAddressInUse)
	t.Run("added_routes", testAdminAddedRoutes)
}

func testAdminMetricsFormats(t *testing.T) {
	t.Parallel()
	a := start(t)
	status, head, body := a.do(http.MethodGet, "/metrics", "", "")
	if status != http.StatusOK || !strings.Contains(body, "vitrine_build_info{") ||
		!strings.HasPrefix(head.Get("Content-Type"), "text/plain") {
		t.Errorf("got %d, %v: %s", status, head, body)
	}
	_, head, body = a.do(http.MethodGet, "/metrics", "", "application/openmetrics-text;version=1.0.0")
	if !strings.HasPrefix(head.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("got %v, want OpenMetrics", head)
	}
}

func testAdminReadinessAndLiveness(t *testing.T) {
	t.Parallel()
	var db, cache dependency
	db.down.Store(true)
	a := start(t, db.as("postgres"), cache.as("redis"))

	status, head, body := a.do(http.MethodGet, "/healthz", "", "")
	if status != http.StatusOK || body != `{"status":"ok"}`+"\n" || db.calls.Load() != 0 {
		t.Errorf("liveness: got %d %s after %d checks", status, body, db.calls.Load())
	}
	if head.Get("Content-Type") != "application/json" || head.Get("Cache-Control") != "no-store" {
		t.Errorf("liveness: got %v", head)
	}

	runHealth(t, a.health)
	awaitChecked(t, a.health, "postgres", "redis")
	const reason = `{"status":"not_ready","reason":"not available: postgres"}` + "\n"
	if status, _, body = a.do(http.MethodGet, "/readyz", "", ""); status != http.StatusServiceUnavailable || body != reason {
		t.Errorf("readiness: got %d %s", status, body)
	}
	status, _, body = a.do(http.MethodGet, "/readyz?verbose", "", "")
	var got telemetry.Report
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if status != http.StatusServiceUnavailable || got.Status != telemetry.NotReady ||
		got.Checks["postgres"].Error != errDown.Error() || !got.Checks["redis"].OK {
		t.Errorf("verbose readiness: got %d %s", status, body)
	}

	a.health.SetDraining()
	if status, _, body := a.do(http.MethodGet, "/readyz", "", ""); status != http.StatusServiceUnavailable ||
		body != `{"status":"draining","reason":"shutting down"}`+"\n" {
		t.Errorf("draining: got %d %s", status, body)
	}
	if status, _, _ := a.do(http.MethodGet, "/healthz", "", ""); status != http.StatusOK {
		t.Errorf("healthz of a draining process: got %d", status)
	}
}

func testAdminReady(t *testing.T) {
	t.Parallel()
	var db dependency
	a := start(t, db.as("postgres"))
	runHealth(t, a.health)
	awaitChecked(t, a.health, "postgres")
	status, _, body := a.do(http.MethodGet, "/readyz", "", "")
	if status != http.StatusOK || !strings.Contains(body, `"status":"ready"`) {
		t.Errorf("got %d %s", status, body)
	}
}

func testAdminLogLevel(t *testing.T) {
	t.Parallel()
	a := start(t)
	status, _, body := a.do(http.MethodGet, "/loglevel", "", "")
	if status != http.StatusOK || body != `{"level":"info"}`+"\n" {
		t.Errorf("got %d %s", status, body)
	}
	if status, _, _ := a.do(http.MethodPut, "/loglevel", `{"level":"debug"}`, ""); status != http.StatusOK {
		t.Errorf("got %d", status)
	}
	if got := a.level.Level(); got != zapcore.DebugLevel {
		t.Errorf("got %s, want debug", got)
	}
	for _, body := range []string{`{"level":"loud"}`, `{}`, `{"level":"info"` + strings.Repeat(" ", 2000) + `}`} {
		status, _, _ := a.do(http.MethodPut, "/loglevel", body, "")
		if status != http.StatusBadRequest || a.level.Level() != zapcore.DebugLevel {
			t.Errorf("%.20s: got %d, level %s", body, status, a.level.Level())
		}
	}
}

func testAdminProfiles(t *testing.T) {
	t.Parallel()
	a := start(t)
	for path, want := range map[string]int{
		"/debug/pprof/": 200, "/debug/pprof/heap?debug=1": 200, "/debug/pprof/goroutine?debug=1": 200,
		"/debug/pprof/cmdline": 200, "/debug/pprof/symbol": 200,
		"/": 404, "/debug/vars": 404,
	} {
		if got, _, _ := a.do(http.MethodGet, path, "", ""); got != want {
			t.Errorf("GET %s: got %d, want %d", path, got, want)
		}
	}
	if got, _, _ := a.do(http.MethodPost, "/metrics", "", ""); got != http.StatusMethodNotAllowed {
		t.Errorf("POST /metrics: got %d", got)
	}
}

func testAdminShutdownCutsProfiles(t *testing.T) {
	t.Parallel()
	a := start(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.url+"/debug/pprof/trace?seconds=60", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req) // the header is sent when the trace has started
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	start := time.Now()
	if err := a.stop(); err != nil {
		t.Errorf("got %v", err)
	}
	if elapsed := time.Since(start); elapsed > 10*time.Second {
		t.Errorf("stopping lasted %s", elapsed)
	}
}

func testAdminAddressInUse(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	cfg := telemetry.AdminConfig{Addr: taken.Addr().String()}
	server := telemetry.NewAdmin(cfg, telemetry.NewRegistry("test", build()),
		newHealth(), zap.NewAtomicLevel(), zap.NewNop())
	if err := server.Run(t.Context()); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("got %v, want an error with the address", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.Ready(ctx); err == nil {
		t.Error("Ready returns nil without a port")
	}
}

func testAdminAddedRoutes(t *testing.T) {
	t.Parallel()
	a := start(t)
	if status, _, body := a.do(http.MethodPost, "/images/reprocess", "{}", ""); status != http.StatusOK || body != "POST {}" {
		t.Errorf("got %d %q, want the response of the handler", status, body)
	}
	if status, _, _ := a.do(http.MethodPost, "/images", "{}", ""); status != http.StatusNotFound {
		t.Errorf("got %d for an unknown route", status)
	}
	if status, _, _ := a.do(http.MethodGet, "/metrics", "", ""); status != http.StatusOK {
		t.Errorf("got %d for a built-in route", status)
	}
}
