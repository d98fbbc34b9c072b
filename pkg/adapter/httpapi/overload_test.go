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

func TestMoreRequestsThanWeTakeAreRefusedAtOnceAndProbesAreNot(t *testing.T) {
	t.Parallel()
	const most = 4
	a := start(t, func(c *httpapi.Config) { c.MaxInFlight = most })
	a.product("x", "1")
	entered, release := a.held()
	answers := make(chan answer, most)
	for range most {
		go func() { answers <- a.get("/products/1") }()
		<-entered
	}
	for _, got := range []answer{
		a.get("/products/1"), a.get("/users/1"), a.get("/products?nonsense"),
		a.post("/products", `{"user_id":1,"product_name":"x","product_price":"1"}`),
		a.post("/products", "not even JSON"), a.patch("/products/1", "{}"),
	} { // what is held is held until all of these are answered
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
	for range most {
		if got := <-answers; got.status != 200 {
			t.Errorf("a request that was taken: %d", got.status)
		}
	}
	if got := a.get("/products/1"); got.status != 200 {
		t.Errorf("when there is room again: %d", got.status)
	}
	for _, line := range a.logs.FilterField(zapString("code", "overloaded")).All() {
		if line.Level > zapcore.InfoLevel {
			t.Errorf("what was shed is logged as %s", line.Level)
		}
	}
	want := `
# HELP vitrine_http_shed_total Requests refused because as many as we take were being worked on.
# TYPE vitrine_http_shed_total counter
vitrine_http_shed_total 6
`
	if err := testutil.GatherAndCompare(a.metrics, strings.NewReader(want), "vitrine_http_shed_total"); err != nil {
		t.Error(err)
	}
}

func TestAHandlerThatPanicsGivesItsPlaceBack(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *httpapi.Config) { c.MaxInFlight = 1 })
	a.product("x", "1")
	entered, release := a.held()
	close(release)
	a.catalog.encoder = nil // the fake's reading panics
	wants(t, a.get("/products/1"), 500, "internal_error")
	<-entered
	wants(t, a.get("/users/9"), 404, "user_not_found")
}

// The test has the process for itself: no other allocates meanwhile.
func TestRefusedRequestsLeaveNothingBehind(t *testing.T) { //nolint:paralleltest // it measures the heap
	fake := &fakeCatalog{users: make([]catalog.User, 1)}
	cfg := testConfig()
	cfg.MaxInFlight, cfg.HandlerTimeout = 1, time.Hour // what is held is held until the end
	handle := httpapi.New(parts(fake, zap.NewNop(), prometheus.NewRegistry()), cfg).Handler()
	a := &api{t: t, catalog: fake}
	entered, release := a.held()
	var all sync.WaitGroup
	all.Go(func() {
		var ctx fasthttp.RequestCtx
		ctx.Request.SetRequestURI("/users/1")
		handle(&ctx)
	})
	<-entered
	body := []byte(`{"user_id":1,"product_name":"` + strings.Repeat("x", 100_000) + `","product_price":"1"}`)
	refuse := func(times int) (kept, made uint64) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range times {
			var ctx fasthttp.RequestCtx
			ctx.Request.Header.SetMethod(fasthttp.MethodPost)
			ctx.Request.SetRequestURI("/products")
			ctx.Request.Header.SetContentType("application/json")
			ctx.Request.SetBodyRaw(body) // read already, by the server underneath
			handle(&ctx)
			if got := ctx.Response.StatusCode(); got != 503 {
				t.Fatalf("status %d", got)
			}
		}
		runtime.ReadMemStats(&after)
		made = after.TotalAlloc - before.TotalAlloc
		runtime.GC()
		runtime.ReadMemStats(&after)
		return after.HeapAlloc - min(before.HeapAlloc, after.HeapAlloc), made / uint64(times)
	}
	refuse(100) // pools and tables are filled
	const times = 2000
	if kept, made := refuse(times); kept > times*10 || made > 20_000 {
		t.Errorf("%d refused requests keep %d bytes, and each allocates %d", times, kept, made)
	}
	close(release)
	all.Wait()
}
