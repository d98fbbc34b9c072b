package httpapi_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/adapter/httpapi"
)

// hidden is a request in the body of another request. It must never be handled.
const hidden = "DELETE /products/77 HTTP/1.1\r\nHost: x\r\n\r\n"

// send sends bytes, ends its half of the connection, and returns all that the server sends.
func (a *api) send(bytes string) string {
	a.t.Helper()
	conn, err := net.Dial("tcp", a.server.Addr())
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		a.t.Fatal(err)
	}
	go func() { // the server may answer and close before it has read everything
		_, _ = io.WriteString(conn, bytes)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	}()
	text, err := io.ReadAll(conn)
	if err != nil {
		a.t.Fatalf("%.60q: after %.200q: %v", bytes, text, err)
	}
	return string(text)
}

func TestHiddenRequest(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]struct{ head, status string }{
		"no_route":         {"POST /nowhere HTTP/1.1\r\nContent-Type: application/json\r\n", "404"},
		"method":           {"PUT /products/1 HTTP/1.1\r\nContent-Type: application/json\r\n", "405"},
		"unknown_method":   {"BREW /products HTTP/1.1\r\nContent-Type: application/json\r\n", "501"},
		"probe":            {"GET /healthz HTTP/1.1\r\n", "200"},
		"get":              {"GET /products/1 HTTP/1.1\r\n", "404"},
		"media_type":       {"POST /products HTTP/1.1\r\nContent-Type: text/plain\r\n", "415"},
		"invalid_body":     {"POST /products HTTP/1.1\r\nContent-Type: application/json\r\n", "400"},
		"unexpected_body":  {"DELETE /products/1 HTTP/1.1\r\n", "422"},
		"preflight":        {"OPTIONS /products HTTP/1.1\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n", "204"},
		"upper_case_path":  {"POST /Products HTTP/1.1\r\nContent-Type: application/json\r\n", "404"},
		"expect_continue":  {"POST /nowhere HTTP/1.1\r\nExpect: 100-continue\r\n", "404"},
		"connection_close": {"POST /nowhere HTTP/1.1\r\nConnection: close\r\n", "404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, padding := range []int{0, 8<<10 - len(hidden), 8 << 10, 40 << 10} {
				body := strings.Repeat(" ", padding) + hidden
				wantOneAnswer(t, fmt.Sprintf("%sHost: x\r\nContent-Length: %d\r\n\r\n%s", request.head, len(body), body), request.status)
				chunk := fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
				wantOneAnswer(t, request.head+"Host: x\r\nTransfer-Encoding: chunked\r\n\r\n"+chunk+"0\r\n\r\n", request.status)
			}
		})
	}
	t.Run("body_too_large", func(t *testing.T) {
		t.Parallel()
		body := strings.Repeat(" ", 1<<20) + hidden
		const head = "POST /products HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
		wantOneAnswer(t, fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body), "413")
		chunk := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		wantOneAnswer(t, head+"Transfer-Encoding: chunked\r\n\r\n"+chunk, "413")
	})
}

// wantOneAnswer sends a request with a hidden one in its body, to a server of its own.
func wantOneAnswer(t *testing.T, request, status string) {
	t.Helper()
	a := start(t, func(c *httpapi.Config) { c.CORSOrigins = []string{"https://a.example"} })
	text := strings.ReplaceAll(a.send(request), "HTTP/1.1 100 Continue\r\n\r\n", "")
	if !strings.HasPrefix(text, "HTTP/1.1 "+status+" ") || strings.Count(text, "HTTP/1.1 ") != 1 {
		t.Errorf("%.100q: got %.400q, want one answer with status %s", request, text, status)
	}
	if n := a.logs.FilterField(zapString("path", "/products/77")).Len(); n != 0 {
		t.Errorf("%.100q: the request in the body was handled", request)
	}
}

func wantCreated(t *testing.T, got answer) {
	t.Helper()
	if got.status != http.StatusCreated {
		t.Errorf("got %d %.200s, want 201", got.status, got.body)
	}
}

func TestReadBody(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	product := func(size int) string {
		const head = `{"user_id":1,"product_name":"x","product_price":"1"`
		return head + strings.Repeat(" ", size-len(head)-1) + "}"
	}
	chunked := func(body string, chunk int) string {
		var out strings.Builder
		for ; len(body) > 0; body = body[min(chunk, len(body)):] {
			part := body[:min(chunk, len(body))]
			fmt.Fprintf(&out, "%x\r\n%s\r\n", len(part), part)
		}
		return out.String() + "0\r\n\r\n"
	}
	const head = "POST /products HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	for _, size := range []int{100, 8 << 10, 8<<10 + 1, 16 << 10, 100_000, 1 << 20} {
		body := product(size)
		wantCreated(t, a.raw(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, size, body)))
		for _, chunk := range []int{1000, 8 << 10, 1 << 20} {
			wantCreated(t, a.raw(head+"Transfer-Encoding: chunked\r\n\r\n"+chunked(body, chunk)))
		}
	}
	body := product(1<<20 + 1)
	wants(t, a.raw(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body)), 413, "body_too_large")
	wants(t, a.raw(head+"Transfer-Encoding: chunked\r\n\r\n"+chunked(body, 1<<20)), 413, "body_too_large")

	before := len(a.catalog.products)
	full := product(20_000)
	if got := a.send(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, 20_001, full)); !strings.Contains(got, "bad_request") {
		t.Errorf("a body that ends early: got %.200q", got)
	}
	if got := a.send(head + "Transfer-Encoding: chunked\r\n\r\n4e21\r\n" + full); !strings.Contains(got, "bad_request") {
		t.Errorf("a chunk that ends early: got %.200q", got)
	}
	if n := len(a.catalog.products); n != before {
		t.Errorf("%d products were made of incomplete bodies", n-before)
	}
}
