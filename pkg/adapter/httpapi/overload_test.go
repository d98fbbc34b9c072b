package httpapi_test

import (
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/domain/catalog"
)

func TestMaxInFlight(t *testing.T) {
	t.Parallel()
	t.Run("excess_is_refused_except_probes", testMaxInFlightExcessIsRefusedExceptProbes)
	t.Run("half_is_for_cached_reads", testMaxInFlightHalfIsForCachedReads)
	t.Run("panic_releases_slot", testMaxInFlightPanicReleasesSlot)
}

// While the database does not answer, what waits for it never refuses a cached read.
func testMaxInFlightHalfIsForCachedReads(t *testing.T) {
	t.Parallel()
	const maxInFlight = 4
	a := start(t, func(c *httpapi.Config) { c.MaxInFlight = maxInFlight })
	a.product("x", "1")
	entered, release := a.block()
	a.catalog.uncached.Store(true)
	answers := make(chan answer, maxInFlight/2)
	for _, path := range []string{"/products/1", "/users/1"} {
		go func() { answers <- a.get(path) }()
		<-entered
	}
	for _, path := range []string{"/products/1", "/users/1", "/products"} {
		wants(t, a.get(path), 503, "overloaded")
	}
	a.catalog.uncached.Store(false)
	a.catalog.hit.Store(&catalog.Document{Version: 1, ETag: `"1.1"`, Body: []byte(`{"id":1}`)})
	for range 2 * maxInFlight {
		if got := a.get("/products/1"); got.status != 200 || got.body != `{"id":1}` {
			t.Errorf("a cached read: %d %s", got.status, got.body)
		}
	}
	close(release)
	for range maxInFlight / 2 {
		if got := <-answers; got.status != 200 {
			t.Errorf("an accepted request: %d", got.status)
		}
	}
	a.catalog.uncached.Store(true)
	for range maxInFlight {
		if got := a.get("/products/1"); got.status != 200 {
			t.Errorf("after the others have ended: %d", got.status)
		}
	}
}

func testMaxInFlightExcessIsRefusedExceptProbes(t *testing.T) {
	t.Parallel()
	const maxInFlight = 4
	a := start(t, func(c *httpapi.Config) { c.MaxInFlight = maxInFlight })
	a.product("x", "1")
	entered, release := a.block()
	answers := make(chan answer, maxInFlight)
	for range maxInFlight {
		go func() { answers <- a.get("/products/1") }()
		<-entered
	}
	for _, got := range []answer{
		a.get("/products/1"), a.get("/users/1"), a.get("/products?nonsense"),
		a.post("/products", `{"user_id":1,"product_name":"x","product_price":"1"}`),
		a.post("/products", "not even JSON"), a.patch("/products/1", "{}"),
	} {
		wants(t, got, 503, "overloaded")
		if wait := got.header.Get("Retry-After"); wait != "2" {
			t.Errorf("Retry-After is %q", wait)
		}
	}
	for _, probe := range []string{"/healthz", "/readyz"} {
		if got := a.get(probe); got.status != 200 {
			t.Errorf("%s: %d", probe, got.status)
		}
	}
	wants(t, a.get("/nowhere"), 404, "no_such_route")
	close(release)
	for range maxInFlight {
		if got := <-answers; got.status != 200 {
			t.Errorf("an accepted request: %d", got.status)
		}
	}
	if got := a.get("/products/1"); got.status != 200 {
		t.Errorf("after the others have ended: %d", got.status)
	}
	for _, line := range a.logs.FilterField(zapString("code", "overloaded")).All() {
		if line.Level > zapcore.InfoLevel {
			t.Errorf("a shed request is logged as %s", line.Level)
		}
	}
	want := `
# HELP vitrine_http_shed_total Requests rejected because of a limit: of requests in progress, or of bytes in flight.
# TYPE vitrine_http_shed_total counter
vitrine_http_shed_total{limit="bytes"} 0
vitrine_http_shed_total{limit="requests"} 6
`
	if err := testutil.GatherAndCompare(a.metrics, strings.NewReader(want), "vitrine_http_shed_total"); err != nil {
		t.Error(err)
	}
}

func testMaxInFlightPanicReleasesSlot(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *httpapi.Config) { c.MaxInFlight = 1 })
	a.product("x", "1")
	entered, release := a.block()
	close(release)
	a.catalog.encoder = nil // Get of the fake panics
	wants(t, a.get("/products/1"), 500, "internal_error")
	<-entered
	wants(t, a.get("/users/9"), 404, "user_not_found")
}

// TestMaxInFlightMemory is not parallel: other tests must not allocate meanwhile.
func TestMaxInFlightMemory(t *testing.T) { //nolint:paralleltest // it measures the heap
	fake := &fakeCatalog{users: make([]catalog.User, 1)}
	cfg := testConfig()
	cfg.MaxInFlight, cfg.HandlerTimeout = 1, time.Hour // the first request lasts until the end
	handle := httpapi.New(newDeps(fake, zap.NewNop(), prometheus.NewRegistry()), cfg).Handler()
	a := &api{t: t, catalog: fake}
	entered, release := a.block()
	var all sync.WaitGroup
	all.Go(func() {
		var ctx fasthttp.RequestCtx
		ctx.Request.SetRequestURI("/users/1")
		handle(&ctx)
	})
	<-entered
	body := []byte(`{"user_id":1,"product_name":"` + strings.Repeat("x", 100_000) + `","product_price":"1"}`)
	refuse := func(times int) (kept, allocated uint64) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range times {
			var ctx fasthttp.RequestCtx
			ctx.Request.Header.SetMethod(fasthttp.MethodPost)
			ctx.Request.SetRequestURI("/products")
			ctx.Request.Header.SetContentType("application/json")
			ctx.Request.SetBodyRaw(body) // as the server has read it
			handle(&ctx)
			if got := ctx.Response.StatusCode(); got != 503 {
				t.Fatalf("status %d", got)
			}
		}
		runtime.ReadMemStats(&after)
		allocated = after.TotalAlloc - before.TotalAlloc
		runtime.GC()
		runtime.ReadMemStats(&after)
		return after.HeapAlloc - min(before.HeapAlloc, after.HeapAlloc), allocated / uint64(times)
	}
	refuse(100) // fills pools
	const times = 2000
	if kept, allocated := refuse(times); kept > times*10 || allocated > 20_000 {
		t.Errorf("%d refused requests keep %d bytes, and each allocates %d", times, kept, allocated)
	}
	close(release)
	all.Wait()
}
