package httpapi_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/adapter/httpapi"
)

// earlyAnswers returns the answers to requests of a page that end before the routes, by status.
func (a *api) earlyAnswers(origin string) map[int]answer {
	a.t.Helper()
	const post = "POST /products HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nOrigin: "
	long := strings.Repeat(" ", 1<<20+1)
	return map[int]answer{
		400: a.raw("GET /products/1 HTTP/1.1\r\nHost: x\r\nOrigin: " + origin + "\r\nContent-Length: many\r\n\r\n"),
		408: a.raw(post + origin + "\r\nContent-Length: 10\r\n\r\nshort"),
		413: a.post("/products", long, "Origin: "+origin),
		431: a.raw("GET / HTTP/1.1\r\nHost: x\r\nOrigin: " + origin + "\r\nX-Long: " + strings.Repeat("a", 16<<10) + "\r\n\r\n"),
		501: a.do("BREW", "/products", "", "Origin: "+origin),
	}
}

func TestCORSOfEarlyAnswers(t *testing.T) {
	t.Parallel()
	t.Run("are_readable", testCORSOfEarlyAnswersAreReadable)
	t.Run("without_origins_have_no_header", testCORSOfEarlyAnswersWithoutOrigins)
}

func testCORSOfEarlyAnswersAreReadable(t *testing.T) {
	t.Parallel()
	const shop = "https://shop.example"
	a := start(t, func(c *httpapi.Config) {
		c.CORSOrigins, c.ReadTimeout = []string{shop, "https://other.example"}, 500*time.Millisecond
	})
	answers := a.earlyAnswers(shop)
	chunked := "POST /products HTTP/1.1\r\nHost: x\r\nOrigin: " + shop + "\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n"
	answers[-413] = a.raw(chunked + strings.Repeat(" ", 1<<20+1))
	for status, got := range answers {
		if got.status != max(status, -status) {
			t.Errorf("got %d, want %d: %s", got.status, status, got.body)
		}
		unread := got.status != 413 && got.status != 501
		if origin := got.header.Get("Access-Control-Allow-Origin"); origin != shop && (!unread || origin != "*") {
			t.Errorf("%d: a page cannot read it: %v", status, got.header)
		}
		if !strings.Contains(got.header.Get("Access-Control-Expose-Headers"), "X-Request-Id") {
			t.Errorf("%d: a page cannot read its request id: %v", status, got.header)
		}
	}
	evil := a.do("BREW", "/products", "", "Origin: https://evil.example")
	if got := evil.header.Get("Access-Control-Allow-Origin"); evil.status != 501 || got != "" {
		t.Errorf("another origin: %d %q", evil.status, got)
	}
}

func testCORSOfEarlyAnswersWithoutOrigins(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *httpapi.Config) { c.ReadTimeout = 500 * time.Millisecond })
	for status, got := range a.earlyAnswers("https://shop.example") {
		if got.status != status || got.header.Get("Access-Control-Allow-Origin") != "" || got.header.Get("Vary") != "" {
			t.Errorf("%d: got %d %v", status, got.status, got.header)
		}
	}
}

func TestCORSOfProblems(t *testing.T) {
	t.Parallel()
	const shop = "https://shop.example"
	a := start(t, func(c *httpapi.Config) { c.CORSOrigins = []string{shop} })
	a.catalog.before = func(context.Context) error { panic("broken") }
	for status, got := range map[int]answer{
		500: a.get("/products/1", "Origin: "+shop),
		404: a.get("/nowhere", "Origin: "+shop),
		405: a.do(http.MethodPut, "/products", "", "Origin: "+shop),
		415: a.do(http.MethodPost, "/products", "x", "Origin: "+shop),
		422: a.get("/products/1?x=1", "Origin: "+shop),
	} {
		if got.status != status || got.header.Get("Access-Control-Allow-Origin") != shop || len(got.header.Values("Vary")) != 1 {
			t.Errorf("%d: got %d %v", status, got.status, got.header)
		}
	}
}
