package httpapi_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/foundation/fault"
)

func zapString(name, value string) zap.Field { return zap.String(name, value) }

func TestRequestID(t *testing.T) {
	t.Parallel()
	t.Run("valid_client_id_is_kept", testRequestIDValidClientIDIsKept)
}

func testRequestIDValidClientIDIsKept(t *testing.T) {
	t.Parallel()
	a := start(t)
	for _, row := range []struct {
		sent string
		kept bool
	}{
		{"abc-123", true},
		{strings.Repeat("x", 128), true},
		{`!"#~`, true},
		{"", false},
		{strings.Repeat("x", 129), false},
		{"two words", false},
		{"ümlaut", false},
		{"tab\there", false},
	} {
		for _, path := range []string{"/healthz", "/nowhere"} {
			got := a.get(path, "X-Request-Id: "+row.sent).header.Get("X-Request-Id")
			if row.kept && got != row.sent || !row.kept && !strings.HasPrefix(got, "new-") {
				t.Errorf("%q became %q", row.sent, got)
			}
		}
	}
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	t.Run("one_line_per_request", testAccessLogOneLinePerRequest)
}

func testAccessLogOneLinePerRequest(t *testing.T) {
	t.Parallel()
	a := start(t)
	created := a.product("x", "1")
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	a.logs.TakeAll()
	a.get("/products/1", "X-Request-Id: r1", "traceparent: "+trace)
	a.get("/products/1?token=secret", "X-Request-Id: r7")
	a.get("/products/2", "X-Request-Id: r2")
	a.do(http.MethodHead, "/products/1", "", "X-Request-Id: r3")
	a.do("BREW", "/nowhere", "", "X-Request-Id: r4")
	a.get("/healthz", "X-Request-Id: r5")
	a.catalog.before = func(context.Context) error { return fmt.Errorf("load: %w", errSecret) }
	a.get("/products/1", "X-Request-Id: r6")

	lines, levels := a.accessLog()
	for _, row := range []struct {
		id    string
		level zapcore.Level
		want  map[string]any
	}{
		{"r1", zapcore.InfoLevel, map[string]any{
			"method": "GET", "route": "/products/:id", "path": "/products/1", "status": int64(200),
			"bytes": int64(len(created.body)), "trace_id": trace[3:35], "code": nil, "error": nil,
		}},
		{"r2", zapcore.InfoLevel, map[string]any{
			"status": int64(404), "code": "product_not_found", "error": nil, "trace_id": nil,
		}},
		{"r3", zapcore.InfoLevel, map[string]any{"method": "HEAD", "status": int64(200), "bytes": int64(0)}},
		{"r4", zapcore.InfoLevel, map[string]any{
			"method": "OTHER", "route": "(none)", "status": int64(501), "code": "unknown_method",
		}},
		{"r5", zapcore.DebugLevel, map[string]any{"route": "/healthz", "status": int64(200)}},
		{"r7", zapcore.InfoLevel, map[string]any{"path": "/products/1", "status": int64(422), "code": "invalid_fields"}},
		{"r6", zapcore.ErrorLevel, map[string]any{
			"status": int64(500), "code": "internal_error", "error": "get product: load: " + errSecret.Error(),
		}},
	} {
		if levels[row.id] != row.level {
			t.Errorf("%s is logged as %s, want %s", row.id, levels[row.id], row.level)
		}
		for name, want := range row.want {
			if got := lines[row.id][name]; got != want {
				t.Errorf("%s: %s is %v, want %v", row.id, name, got, want)
			}
		}
	}
}

// accessLog returns the fields and the levels of the log's request lines by request id. It checks what all lines must have.
func (a *api) accessLog() (lines map[string]map[string]any, levels map[string]zapcore.Level) {
	a.t.Helper()
	lines, levels = map[string]map[string]any{}, map[string]zapcore.Level{}
	for _, line := range a.logs.FilterMessage("request").TakeAll() {
		fields := line.ContextMap()
		id := fmt.Sprint(fields["request_id"])
		if lines[id] != nil {
			a.t.Errorf("%s is logged twice", id)
		}
		lines[id], levels[id] = fields, line.Level
		if fields["duration"] == nil {
			a.t.Errorf("%s has no duration", id)
		}
		for name, value := range fields {
			if strings.Contains(fmt.Sprint(value), "token") {
				a.t.Errorf("field %s has the query: %v", name, value)
			}
		}
	}
	return lines, levels
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	t.Run("counted_by_route_template", testMetricsCountedByRouteTemplate)
}

func testMetricsCountedByRouteTemplate(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("x", "1")
	for i := range 3 {
		a.get(fmt.Sprintf("/products/%d", i+1))
	}
	a.get("/nowhere")
	a.do("BREW", "/nowhere", "")
	a.raw("nonsense\r\n\r\n")
	want := `
# HELP vitrine_http_requests_total Answered requests. route is the template, (none) where no route was reached.
# TYPE vitrine_http_requests_total counter
vitrine_http_requests_total{method="GET",route="(none)",status="400"} 1
vitrine_http_requests_total{method="GET",route="(none)",status="404"} 1
vitrine_http_requests_total{method="GET",route="/products/:id",status="200"} 1
vitrine_http_requests_total{method="GET",route="/products/:id",status="404"} 2
vitrine_http_requests_total{method="OTHER",route="(none)",status="501"} 1
vitrine_http_requests_total{method="POST",route="/products",status="201"} 1
# HELP vitrine_http_requests_in_flight Requests in progress.
# TYPE vitrine_http_requests_in_flight gauge
vitrine_http_requests_in_flight 0
`
	eventually(t, "the last request's end", func() bool {
		return testutil.CollectAndCount(a.metrics, "vitrine_http_request_duration_seconds") == 4
	})
	if err := testutil.GatherAndCompare(a.metrics, strings.NewReader(want),
		"vitrine_http_requests_total", "vitrine_http_requests_in_flight"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(a.metrics); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

func TestResponseHeaders(t *testing.T) {
	t.Parallel()
	t.Run("nosniff", testResponseHeadersNosniff)
	t.Run("head_equals_get", testResponseHeadersHeadEqualsGet)
}

func testResponseHeadersNosniff(t *testing.T) {
	t.Parallel()
	a := start(t)
	for _, got := range []answer{a.get("/healthz"), a.get("/nowhere"), a.raw("nonsense\r\n\r\n")} {
		if got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Server") != "" {
			t.Errorf("headers %v", got.header)
		}
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	t.Run("health_and_readiness", testProbesHealthAndReadiness)
	t.Run("draining_is_not_ready", testProbesDrainingIsNotReady)
}

func testProbesHealthAndReadiness(t *testing.T) {
	t.Parallel()
	a := start(t)
	healthy := a.get("/healthz")
	if healthy.status != 200 || healthy.body != `{"status":"ok"}` || healthy.header.Get("Cache-Control") != "no-store" {
		t.Errorf("healthz: %d %s %v", healthy.status, healthy.body, healthy.header)
	}
	if got := a.get("/readyz"); got.status != 200 || got.body != `{"status":"ready"}` {
		t.Errorf("readyz: %d %s", got.status, got.body)
	}
	a.ready.Store(readiness{errSecret})
	got := a.get("/readyz")
	wants(t, got, 503, "not_ready")
	if strings.Contains(got.body, "swordfish") {
		t.Errorf("the cause is shown: %s", got.body)
	}
	a.ready.Store(readiness{fault.New(fault.Unavailable, "database_unavailable", "the database does not answer")})
	if p := wants(t, a.get("/readyz"), 503, "not_ready"); p.Detail != "the database does not answer" {
		t.Errorf("detail is %q", p.Detail)
	}
	if got := a.get("/healthz"); got.status != 200 {
		t.Errorf("healthz depends on readiness: %d", got.status)
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	t.Run("allowed_origins", testCORSAllowedOrigins)
	t.Run("no_origins", testCORSNoOrigins)
}

func testCORSAllowedOrigins(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *httpapi.Config) { c.CORSOrigins = []string{"https://shop.example", "http://localhost:3000"} })
	a.product("x", "1")
	for origin, allowed := range map[string]string{
		"https://shop.example": "https://shop.example", "http://localhost:3000": "http://localhost:3000",
		"https://evil.example": "", "https://shop.example.evil.example": "",
	} {
		got := a.get("/products/1", "Origin: "+origin)
		if got.status != 200 || got.header.Get("Access-Control-Allow-Origin") != allowed {
			t.Errorf("%s: %d %v", origin, got.status, got.header)
		}
		if !strings.Contains(got.header.Get("Vary"), "Origin") {
			t.Errorf("%s: Vary is %q", origin, got.header.Get("Vary"))
		}
		missing := a.get("/products/9", "Origin: "+origin)
		wants(t, missing, 404, "product_not_found")
		if missing.header.Get("Access-Control-Allow-Origin") != allowed {
			t.Errorf("%s: a page cannot read the problem: %v", origin, missing.header)
		}
	}
	got := a.get("/products/1", "Origin: https://shop.example")
	exposed := strings.Split(got.header.Get("Access-Control-Expose-Headers"), ",")
	for _, name := range []string{"ETag", "Location", "Link", "X-Request-Id", "Idempotent-Replayed", "Accept-Patch"} {
		if !slices.Contains(exposed, name) {
			t.Errorf("%s is not exposed: %v", name, exposed)
		}
	}
	preflight := a.do(http.MethodOptions, "/products", "", "Origin: https://shop.example",
		"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type, if-match, idempotency-key")
	if preflight.status != 204 || preflight.header.Get("Access-Control-Allow-Methods") != "GET,HEAD,POST,PATCH,DELETE" ||
		!strings.Contains(preflight.header.Get("Access-Control-Allow-Headers"), "Content-Type,Idempotency-Key,If-Match") ||
		preflight.header.Get("Access-Control-Max-Age") == "" {
		t.Errorf("preflight: %d %v", preflight.status, preflight.header)
	}
}

func testCORSNoOrigins(t *testing.T) {
	t.Parallel()
	a := start(t)
	got := a.get("/healthz", "Origin: https://shop.example")
	if got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers %v", got.header)
	}
	open := start(t, func(c *httpapi.Config) { c.CORSOrigins = []string{"*"} })
	if got := open.get("/healthz", "Origin: https://shop.example"); got.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("with *: headers %v", got.header)
	}
}
