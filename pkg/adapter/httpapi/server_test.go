package httpapi_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/httpapi"
)

// block makes the catalogue wait: entered gets a value for every call, and all calls continue when release is closed.
func (a *api) block() (entered chan struct{}, release chan struct{}) {
	entered, release = make(chan struct{}, 100), make(chan struct{})
	a.catalog.before = func(ctx context.Context) error {
		entered <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("query: %w", ctx.Err())
		}
	}
	return entered, release
}

func TestServer(t *testing.T) {
	t.Parallel()
	t.Run("shutdown_finishes_requests", testServerShutdownFinishesRequests)
	t.Run("draining_closes_connections", testServerDrainingClosesConnections)
	t.Run("shutdown_waits_for_handler_timeout", testServerShutdownWaitsForHandlerTimeout)
	t.Run("shutdown_timeout_is_an_error", testServerShutdownTimeoutIsAnError)
	t.Run("shutdown_closes_silent_connections", testServerShutdownClosesSilentConnections)
	t.Run("address_in_use", testServerAddressInUse)
	t.Run("run_listens", testServerRunListens)
	t.Run("keep_alive", testServerKeepAlive)
}

func testServerShutdownFinishesRequests(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("x", "1")
	entered, release := a.block()
	answered := make(chan answer, 1)
	go func() { answered <- a.get("/products/1") }()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- a.stop() }()
	eventually(t, "the listener's end", func() bool { return refused(a.server.Addr()) })
	select {
	case err := <-stopped:
		t.Fatalf("the shutdown did not wait: %v", err)
	default:
	}
	close(release)
	if got := <-answered; got.status != 200 || got.header.Get("Connection") != "close" {
		t.Errorf("answer: %d %v", got.status, got.header)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func testServerDrainingClosesConnections(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("x", "1")
	if got := a.get("/products/1"); got.header.Get("Connection") == "close" {
		t.Errorf("before: %v", got.header)
	}
	a.server.SetDraining()
	if got := a.get("/products/1"); got.status != 200 || got.header.Get("Connection") != "close" {
		t.Errorf("after: %d %v, want an answer that ends its connection", got.status, got.header)
	}
	wants(t, a.get("/readyz"), 503, "shutting_down")
}

// refused reports whether a connection to addr is refused, because no server listens there.
func refused(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		_ = conn.Close()
	}
	return err != nil
}

func testServerShutdownWaitsForHandlerTimeout(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *httpapi.Config) { c.HandlerTimeout = 100 * time.Millisecond })
	entered, _ := a.block()
	answered := make(chan answer, 1)
	go func() { answered <- a.get("/products/1") }()
	<-entered
	if err := a.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	wants(t, <-answered, 503, "timeout")
}

func testServerShutdownTimeoutIsAnError(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *httpapi.Config) { c.HandlerTimeout, c.ShutdownTimeout = time.Millisecond, 50*time.Millisecond })
	entered, release := make(chan struct{}), make(chan struct{})
	a.catalog.before = func(context.Context) error { // ignores its context
		close(entered)
		<-release
		return nil
	}
	answered := make(chan answer, 1)
	go func() { answered <- a.get("/products/1") }()
	<-entered
	err := a.stop()
	close(release)
	<-answered
	if err == nil || !strings.Contains(err.Error(), "drain") {
		t.Errorf("Run: %v", err)
	}
}

func testServerShutdownClosesSilentConnections(t *testing.T) {
	t.Parallel()
	a := start(t)
	conn, err := net.Dial("tcp", a.server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if got := a.get("/healthz"); got.status != 200 { // accepted after the silent one
		t.Fatal(got.status)
	}
	startedAt := time.Now()
	if err := a.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if elapsed := time.Since(startedAt); elapsed > 5*time.Second { // the read timeout is ten
		t.Errorf("the shutdown lasted %s", elapsed)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the silent connection is still open")
	}
}

func testProbesDrainingIsNotReady(t *testing.T) {
	t.Parallel()
	a := start(t)
	entered, release := a.block()
	answered := make(chan answer, 1)
	conn, err := net.Dial("tcp", a.server.Addr()) // a connection in the middle of a request
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET /readyz HTTP/1.1\r\nHost: x\r\n"); err != nil {
		t.Fatal(err)
	}
	go func() { answered <- a.get("/products/1") }()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- a.stop() }()
	eventually(t, "the listener's end", func() bool { return refused(a.server.Addr()) })
	if _, err := io.WriteString(conn, "\r\n"); err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(conn)
	text := string(body)
	if err != nil || !strings.HasPrefix(text, "HTTP/1.1 503") || !strings.Contains(text, `"code":"shutting_down"`) {
		t.Errorf("readyz: %s %v", text, err)
	}
	close(release)
	<-answered
	if err := <-stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func testServerAddressInUse(t *testing.T) {
	t.Parallel()
	a := start(t)
	cfg := testConfig()
	cfg.Addr = a.server.Addr()
	second := httpapi.New(newDeps(&fakeCatalog{}, zap.NewNop(), prometheus.NewRegistry()), cfg)
	if err := second.Listen(); err == nil || !strings.Contains(err.Error(), cfg.Addr) {
		t.Errorf("Listen: %v", err)
	}
	if err := second.Run(context.Background()); err == nil {
		t.Error("Run listens on a taken port")
	}
	if got := second.Addr(); got != "" {
		t.Errorf("Addr is %q", got)
	}
}

func testServerRunListens(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s := httpapi.New(newDeps(&fakeCatalog{}, zap.NewNop(), prometheus.NewRegistry()), testConfig())
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	if s.Addr() == "" || !refused(s.Addr()) {
		t.Errorf("still listening on %q", s.Addr())
	}
}

func testServerKeepAlive(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("x", "1")
	dials := 0
	a.client.Transport = &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	for _, path := range []string{"/products/1", "/products/2", "/nowhere", "/products?user_id=1", "/products?page=1"} {
		a.get(path)
	}
	if dials != 1 {
		t.Errorf("%d connections for five requests in a row", dials)
	}
}
