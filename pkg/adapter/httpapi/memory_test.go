package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/domain/catalog"
)

// slowReader sends a request and does not read the response.
func (a *api) slowReader(request string) net.Conn {
	a.t.Helper()
	conn, err := net.Dial("tcp", a.server.Addr())
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = conn.Close() })
	if tcp, ok := conn.(*net.TCPConn); !ok || tcp.SetReadBuffer(4<<10) != nil {
		a.t.Fatal("the size of the receive buffer cannot be set")
	}
	if _, err := io.WriteString(conn, request); err != nil {
		a.t.Fatal(err)
	}
	return conn
}

// inFlight returns the bytes in flight.
func (a *api) inFlight() float64 {
	a.t.Helper()
	families, err := a.metrics.Gather()
	if err != nil {
		a.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "vitrine_http_bytes_in_flight" {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

// A response is held until its client has read it, or the write timeout has passed.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	const large = 8 << 20 // more than the buffers of both sockets
	a := start(t, func(c *httpapi.Config) {
		c.MaxBytesInFlight, c.WriteTimeout = 3*large, 2*time.Second
	})
	a.product("small", "1")
	_, err := a.catalog.change(1, nil, "", func(p *catalog.Product) error {
		p.Description = strings.Repeat("x", large-large/8)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a.product("small", "1")
	const request = "GET /products/1 HTTP/1.1\r\nHost: x\r\n\r\n"
	for n := range 3 {
		a.slowReader(request)
		eventually(t, "a response is held", func() bool { return a.inFlight() > float64(n*large) })
	}
	wants(t, a.get("/products/1"), 503, "overloaded")
	if got := a.get("/products/2"); got.status != http.StatusOK {
		t.Errorf("a small response: got %d, want 200", got.status)
	}
	if got := a.patch("/products/1", `{"product_price":"2"}`); got.status != http.StatusOK {
		t.Errorf("the response to a change: got %d, want 200", got.status)
	}
	eventually(t, "the slow readers are cut", func() bool { return a.inFlight() == 0 })
	if got := a.get("/products/1"); got.status != http.StatusOK || len(got.body) < large/2 {
		t.Errorf("after the slow readers: got %d with %d bytes, want all", got.status, len(got.body))
	}
	eventually(t, "a read response is released", func() bool { return a.inFlight() == 0 })
}

func TestSlowSenders(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *httpapi.Config) { c.MaxBytesInFlight, c.MaxInFlight = 2<<20, 1 })
	a.product("x", "1")
	const head = "POST /products HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	begin := fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, 1<<20, strings.Repeat(" ", 10<<10))
	first, second := a.slowReader(begin), a.slowReader(begin)
	eventually(t, "memory is reserved for both bodies", func() bool { return a.inFlight() == 2<<20 })
	if got := a.get("/products/1"); got.status != http.StatusOK { // they hold no slot
		t.Errorf("a request beside slow senders: got %d, want 200", got.status)
	}
	third := a.slowReader(begin)
	resp, err := http.ReadResponse(bufio.NewReader(third), nil)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
		t.Errorf("a third body: got %+v, %v, want 503 and a closed connection", resp, err)
	}
	_, _ = first.Close(), second.Close()
	eventually(t, "the memory is released", func() bool { return a.inFlight() == 0 })
}

// The buffer of a chunked body grows, and its memory is reserved once.
func TestChunkedBodyIsReservedOnce(t *testing.T) {
	t.Parallel()
	const limit = 2 << 20
	a := start(t, func(c *httpapi.Config) { c.BodyLimit, c.MaxBytesInFlight, c.ClientShare = limit, limit, 1 })
	const head = "POST /products HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, test := range []struct {
		sent int
		want float64
	}{{10 << 10, 0}, {17 << 10, 32 << 10}, {300_000, 512 << 10}, {limit, limit}} {
		conn := a.slowReader(fmt.Sprintf("%s%x\r\n%s", head, limit, strings.Repeat(" ", test.sent)))
		eventually(t, fmt.Sprintf("%v bytes are reserved for %d", test.want, test.sent), func() bool {
			return a.inFlight() == test.want
		})
		_ = conn.Close()
		eventually(t, "the memory is released", func() bool { return a.inFlight() == 0 })
	}
	tooLarge := fmt.Sprintf("%s%x\r\n%s\r\n0\r\n\r\n", head, limit+1, strings.Repeat(" ", limit+1))
	if got := a.send(tooLarge); !strings.Contains(got, " 413 ") {
		t.Errorf("a body beyond the limit: got %.200q", got)
	}
	eventually(t, "the memory of a refused body is released", func() bool { return a.inFlight() == 0 })
}

func TestConnectionsOfOneClient(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *httpapi.Config) { c.MaxConnections, c.ClientShare, c.MaxBytesInFlight = 12, 4, 5<<20 })
	dial := func(from string) net.Conn {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := dialer.Dial("tcp", a.server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	answers := func(conn net.Conn) bool {
		_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err := http.ReadResponse(bufio.NewReader(conn), nil)
		return err == nil
	}
	var open []net.Conn
	for range 3 {
		conn := dial("127.0.0.2")
		if open = append(open, conn); !answers(conn) {
			t.Error("a connection within the share was closed")
		}
	}
	if answers(dial("127.0.0.2")) {
		t.Error("a connection beyond the share was served")
	}
	if !answers(dial("127.0.0.3")) {
		t.Error("another client was refused")
	}
	_ = open[0].Close()
	eventually(t, "a closed connection makes another one possible", func() bool { return answers(dial("127.0.0.2")) })
}

// A page of large products is shorter than its limit, and its memory is reserved before it is read.
func TestLargePage(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *httpapi.Config) { c.MaxBytesInFlight = 5 << 19 }) // for two pages
	for range 20 {
		a.product("x", "1")
	}
	for id := range catalog.ProductID(20) {
		_, err := a.catalog.change(id+1, nil, "", func(p *catalog.Product) error {
			p.Description = strings.Repeat("x", 100_000)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ids, pages := a.walk("user_id=1&limit=20")
	if len(ids) != 20 || pages != 2 {
		t.Errorf("got %d products on %d pages, want 20 on 2", len(ids), pages)
	}
	entered, release := a.block()
	answers := make(chan answer, 2)
	for range 2 {
		go func() { answers <- a.get("/products?user_id=1") }()
		<-entered
	}
	wants(t, a.get("/products?user_id=1"), 503, "overloaded")
	close(release)
	for range 2 {
		if got := <-answers; got.status != http.StatusOK {
			t.Errorf("a list with reserved memory: got %d", got.status)
		}
	}
	eventually(t, "the memory is released", func() bool { return a.inFlight() == 0 })
}
