package httpapi_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

var errSecret = errors.New("password is swordfish")

func TestProblems(t *testing.T) {
	t.Parallel()
	t.Run("status_of_fault_kinds", testProblemsStatusOfFaultKinds)
	t.Run("code_needs_its_status", testProblemsCodeNeedsItsStatus)
	t.Run("codes_are_unique", testProblemsCodesAreUnique)
	t.Run("unknown_path", testProblemsUnknownPath)
	t.Run("method_not_allowed", testProblemsMethodNotAllowed)
	t.Run("body_above_limit", testProblemsBodyAboveLimit)
	t.Run("invalid_http", testProblemsInvalidHTTP)
	t.Run("handler_timeout", testProblemsHandlerTimeout)
	t.Run("panic", testProblemsPanic)
	t.Run("unclassified_error_hides_cause", testProblemsUnclassifiedErrorHidesCause)
}

func testProblemsStatusOfFaultKinds(t *testing.T) {
	t.Parallel()
	a := start(t)
	want := map[fault.Kind]struct {
		status int
		code   string
	}{
		fault.Internal:     {500, "internal_error"},
		fault.Invalid:      {422, "invalid_fields"},
		fault.NotFound:     {404, "not_found"},
		fault.Conflict:     {409, "conflict"},
		fault.Unauthorized: {401, "unauthorized"},
		fault.Forbidden:    {403, "forbidden"},
		fault.TooMany:      {429, "too_many_requests"},
		fault.Unavailable:  {503, "unavailable"},
	}
	for _, kind := range fault.Kinds() {
		a.catalog.before = func(context.Context) error {
			return fmt.Errorf("store: %w", fault.Wrap(errSecret, kind, "no_such_code", "public detail"))
		}
		got := a.get("/products/1")
		p := wants(t, got, want[kind].status, want[kind].code)
		if p.Detail != "public detail" || strings.Contains(got.body, "swordfish") {
			t.Errorf("%s: %s", kind, got.body)
		}
	}
}

func testProblemsCodeNeedsItsStatus(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.catalog.before = func(context.Context) error { return fmt.Errorf("insert: %w", catalog.ErrOutcomeUnknown) }
	wants(t, a.get("/products/1"), 503, "outcome_unknown")
	a.catalog.before = func(context.Context) error { return fault.New(fault.Conflict, "outcome_unknown", "odd") }
	wants(t, a.get("/products/1"), 409, "conflict")
}

func testProblemsCodesAreUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, p := range httpapi.Problems() {
		if seen[p.Code] || p.Status < 400 || p.Status > 599 || p.Title == "" {
			t.Errorf("row %+v", p)
		}
		seen[p.Code] = true
	}
}

func testProblemsUnknownPath(t *testing.T) {
	t.Parallel()
	a := start(t)
	for _, path := range []string{"/", "/nowhere", "/products/1/", "/products/", "/Products", "/products/1/images"} {
		p := wants(t, a.get(path+"?token=secret"), 404, "no_such_route")
		if p.Instance != path {
			t.Errorf("instance is %q, want %q", p.Instance, path)
		}
	}
}

func testProblemsMethodNotAllowed(t *testing.T) {
	t.Parallel()
	a := start(t)
	for _, row := range []struct{ method, path, allow string }{
		{http.MethodPut, "/products", "GET, HEAD, POST"},
		{http.MethodPut, "/products/1", "GET, HEAD, DELETE, PATCH"},
		{http.MethodPost, "/products/1", "GET, HEAD, DELETE, PATCH"},
		{http.MethodDelete, "/products", "GET, HEAD, POST"},
		{http.MethodGet, "/products/1/images/2/reprocess", "POST"},
		{http.MethodGet, "/users", "POST"},
		{http.MethodPatch, "/healthz", "GET, HEAD"},
		{http.MethodOptions, "/products", "GET, HEAD, POST"},
	} {
		got := a.do(row.method, row.path, "")
		wants(t, got, 405, "method_not_allowed")
		if allow := got.header.Get("Allow"); allow != row.allow {
			t.Errorf("%s %s: Allow is %q, want %q", row.method, row.path, allow, row.allow)
		}
	}
	wants(t, a.do("BREW", "/products", ""), 501, "unknown_method")
}

func testProblemsBodyAboveLimit(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	fits := `{"user_id":1,"product_name":"x","product_price":"1"}`
	fits += strings.Repeat(" ", 1<<20-len(fits))
	if got := a.post("/products", fits); got.status != 201 {
		t.Errorf("a body of the limit: %d", got.status)
	}
	wants(t, a.post("/products", fits+" "), 413, "body_too_large")
	wants(t, a.post("/products", strings.Repeat(" ", 5<<20)), 413, "body_too_large")
	unsized := io.MultiReader(strings.NewReader(fits + " "))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+a.server.Addr()+"/products", unsized)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := a.client.Do(req) // chunked, because the length is not known
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	wants(t, answer{resp.StatusCode, resp.Header, string(body)}, 413, "body_too_large")
}

// raw sends bytes as they are and reads one response.
func (a *api) raw(bytes string) answer {
	a.t.Helper()
	conn, err := net.Dial("tcp", a.server.Addr())
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		a.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, bytes); err != nil {
		a.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		a.t.Fatalf("%.60q: %v", bytes, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func testProblemsInvalidHTTP(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *httpapi.Config) { c.ReadTimeout = 50 * time.Millisecond })
	wants(t, a.raw("nonsense\r\n\r\n"), 400, "bad_request")
	wants(t, a.raw("GET /products/1 HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n"), 400, "bad_request")
	wants(t, a.raw("GET / HTTP/1.1\r\nHost: x\r\nX-Long: "+strings.Repeat("a", 16<<10)+"\r\n\r\n"), 431, "head_too_large")
	wants(t, a.raw("POST /products HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nshort"), 408, "request_timeout")
	for _, code := range []string{"bad_request", "head_too_large", "request_timeout"} {
		if a.logs.FilterField(zapString("code", code)).Len() == 0 {
			t.Errorf("%s was not logged", code)
		}
	}
}

func testProblemsHandlerTimeout(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *httpapi.Config) { c.HandlerTimeout = 20 * time.Millisecond })
	a.catalog.before = func(ctx context.Context) error {
		<-ctx.Done()
		return fmt.Errorf("query: %w", ctx.Err())
	}
	for _, got := range []answer{
		a.get("/products/1"), a.get("/users/1"), a.get("/products?user_id=1"),
		a.post("/users", `{"name":"a","email":"a@example.com"}`),
		a.post("/products", `{"user_id":1,"product_name":"x","product_price":"1"}`),
	} {
		wants(t, got, 503, "timeout")
	}
}

func testProblemsPanic(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.catalog.before = func(context.Context) error { panic(errSecret) }
	got := a.get("/products/1", "X-Request-Id: panics")
	wants(t, got, 500, "internal_error")
	if strings.Contains(got.body, "swordfish") {
		t.Errorf("the cause is shown: %s", got.body)
	}
	lines := a.logs.FilterField(zapString("request_id", "panics")).All()
	if len(lines) != 1 {
		t.Fatalf("%d log lines", len(lines))
	}
	fields := lines[0].ContextMap()
	text, stack := fmt.Sprint(fields["error"]), fmt.Sprint(fields["stack"])
	if !strings.Contains(text, "swordfish") || !strings.Contains(stack, "getProduct") || fields["route"] != "/products/:id" {
		t.Errorf("log line %v", fields)
	}
	a.catalog.before = nil
	if got := a.get("/healthz"); got.status != 200 {
		t.Errorf("after the panic: %d", got.status)
	}
}
