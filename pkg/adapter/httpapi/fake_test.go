package httpapi_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

func TestMain(m *testing.M) {
	// Two goroutines of fasthttp outlive their server: one for ten seconds, one for ever.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

const publicURL = "https://img.example/vitrine"

// epoch is the time of every event in the fake catalogue.
var epoch = time.Date(2026, 3, 1, 12, 30, 45, 123456789, time.UTC)

// fakeCatalog is a catalogue in memory. It keeps its arguments without copying them, so that a test can detect strings
// that alias a request's buffer.
type fakeCatalog struct {
	encoder *httpapi.Encoder

	mu       sync.Mutex
	users    []catalog.User
	products []catalog.Product
	inputs   []catalog.NewProductInput
	traces   []string
	queries  []catalog.Query
	patches  []catalog.ProductPatch
	saved    map[catalog.IdempotencyKey]catalog.SavedResponse

	before func(ctx context.Context) error // called first by every method, if set

	uncached atomic.Bool                      // Cached never has the product
	hit      atomic.Pointer[catalog.Document] // what Cached returns at once, if set
}

func (f *fakeCatalog) enter(ctx context.Context) error {
	if f.before != nil {
		return f.before(ctx)
	}
	return nil
}

func (f *fakeCatalog) CreateUser(ctx context.Context, name, email string) (catalog.User, error) {
	if err := f.enter(ctx); err != nil {
		return catalog.User{}, err
	}
	u, err := catalog.NewUser(name, email)
	if err != nil {
		return catalog.User{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, other := range f.users {
		if catalog.EmailKey(other.Email) == catalog.EmailKey(email) {
			return catalog.User{}, fault.New(fault.Conflict, "email_taken", "another user has this e-mail address")
		}
	}
	u.ID, u.CreatedAt = catalog.UserID(len(f.users)+1), epoch
	f.users = append(f.users, u)
	return u, nil
}

func (f *fakeCatalog) User(ctx context.Context, id catalog.UserID) (catalog.User, error) {
	if err := f.enter(ctx); err != nil {
		return catalog.User{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if int(id) > len(f.users) {
		return catalog.User{}, fault.New(fault.NotFound, "user_not_found", "there is no such user")
	}
	return f.users[id-1], nil
}

func (f *fakeCatalog) Create(ctx context.Context, in catalog.NewProductInput, traceparent string) (catalog.Product, error) {
	if err := f.enter(ctx); err != nil {
		return catalog.Product{}, err
	}
	p, err := catalog.NewProduct(in)
	if err != nil {
		return catalog.Product{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if int(in.UserID) > len(f.users) {
		return catalog.Product{}, fault.InvalidFields([]fault.Field{
			{Path: "user_id", Code: "unknown", Detail: "there is no such user"},
		})
	}
	p.ID, p.CreatedAt, p.UpdatedAt = catalog.ProductID(len(f.products)+1), epoch, epoch
	for i := range p.Images {
		p.Images[i].ID = catalog.ImageID(100*int(p.ID) + i)
	}
	f.products = append(f.products, p)
	f.inputs = append(f.inputs, in)
	f.traces = append(f.traces, traceparent)
	return p, nil
}

func (f *fakeCatalog) Cached(ctx context.Context, id catalog.ProductID) (catalog.Document, bool, error) {
	switch doc := f.hit.Load(); {
	case f.uncached.Load():
		return catalog.Document{}, false, nil
	case doc != nil:
		return *doc, true, nil
	}
	doc, err := f.Load(ctx, id)
	return doc, true, err
}

func (f *fakeCatalog) Load(ctx context.Context, id catalog.ProductID) (catalog.Document, error) {
	if err := f.enter(ctx); err != nil {
		return catalog.Document{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if int64(id) > int64(len(f.products)) {
		return catalog.Document{}, fault.New(fault.NotFound, "product_not_found", "there is no such product")
	}
	p := f.products[id-1]
	if p.Deleted {
		return catalog.Document{}, fault.New(fault.NotFound, "product_not_found", "there is no such product")
	}
	body, etag, err := f.encoder.Encode(p)
	return catalog.Document{Version: p.Version, ETag: etag, Body: body}, err
}

func (f *fakeCatalog) List(ctx context.Context, q catalog.Query) (catalog.Page, error) {
	if err := f.enter(ctx); err != nil {
		return catalog.Page{}, err
	}
	if err := fault.InvalidFields(q.Validate()); err != nil {
		return catalog.Page{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queries = append(f.queries, q)
	order := func(a, b catalog.Product) int {
		switch q.Sort {
		case catalog.CheapestFirst:
			return cmp.Or(a.Price.Cmp(b.Price), cmp.Compare(a.ID, b.ID))
		case catalog.MostExpensiveFirst:
			return cmp.Or(b.Price.Cmp(a.Price), cmp.Compare(b.ID, a.ID))
		default:
			return cmp.Compare(b.ID, a.ID)
		}
	}
	var found []catalog.Product
	for _, p := range f.products {
		if !p.Deleted && (q.UserID == 0 || p.UserID == q.UserID) &&
			strings.Contains(strings.ToLower(p.Name), strings.ToLower(q.Name)) &&
			(q.MinPrice == nil || p.Price.GreaterThanOrEqual(*q.MinPrice)) &&
			(q.MaxPrice == nil || p.Price.LessThanOrEqual(*q.MaxPrice)) &&
			(q.After == nil || order(catalog.Product{ID: q.After.ID, Price: q.After.Price}, p) < 0) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, order)
	end, size := 0, 0
	for ; end < min(len(found), q.Limit) && (q.MaxBytes == 0 || size < q.MaxBytes); end++ {
		size += found[end].Size()
	}
	if end == len(found) {
		return catalog.Page{Products: found}, nil
	}
	last := found[end-1]
	return catalog.Page{Products: found[:end], Next: &catalog.Cursor{ID: last.ID, Price: last.Price}}, nil
}

// api is a running server with its fakes.
type api struct {
	t       testing.TB
	server  *httpapi.Server
	catalog *fakeCatalog
	ready   *atomic.Value // of readiness
	logs    *observer.ObservedLogs
	metrics *prometheus.Registry
	client  *http.Client
	stop    func() error // ends Run and returns its error
}

type readiness struct{ err error }

func testConfig() httpapi.Config {
	return httpapi.Config{
		Addr: "127.0.0.1:0", ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second,
		HandlerTimeout: 10 * time.Second, ShutdownTimeout: 20 * time.Second, BodyLimit: 1 << 20, HeaderLimit: 16 << 10,
		MaxConnections: 1000, MaxInFlight: 100, ClientShare: 1,
	}
}

// newDeps returns a server's dependencies, with a fake catalogue.
func newDeps(fake *fakeCatalog, log *zap.Logger, reg *prometheus.Registry) httpapi.Deps {
	fake.encoder = httpapi.NewEncoder(publicURL, 0)
	var ids atomic.Int64
	return httpapi.Deps{
		Catalog: fake, Encoder: fake.encoder, Registry: reg, Log: log, Now: time.Now,
		Ready: func(context.Context) error { return nil },
		NewID: func() string { return fmt.Sprintf("new-%d", ids.Add(1)) },
	}
}

// start runs a server on a free port until the test ends. tune may change its configuration.
func start(t testing.TB, tune ...func(*httpapi.Config)) *api {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	a := &api{
		t: t, catalog: &fakeCatalog{}, ready: &atomic.Value{}, logs: logs, metrics: prometheus.NewRegistry(),
		client: &http.Client{Transport: &http.Transport{}},
	}
	a.ready.Store(readiness{})
	cfg := testConfig()
	for _, f := range tune {
		f(&cfg)
	}
	if wrong := cfg.Validate(); wrong != nil {
		t.Fatalf("configuration: %v", wrong)
	}
	p := newDeps(a.catalog, zap.New(core), a.metrics)
	p.Ready = func(context.Context) error {
		r, _ := a.ready.Load().(readiness)
		return r.err
	}
	a.server = httpapi.New(p, cfg)
	if err := a.server.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.server.Run(ctx) }()
	a.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		a.client.CloseIdleConnections()
		_ = a.stop() // a test that checks the error has called it before
	})
	return a
}

// answer is a complete response.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request; headers are "Name: value".
func (a *api) do(method, path, body string, headers ...string) answer {
	a.t.Helper()
	url := "http://" + a.server.Addr() + path
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	if resp.Close { // the client removes the header
		resp.Header.Set("Connection", "close")
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (a *api) get(path string, headers ...string) answer {
	a.t.Helper()
	return a.do(http.MethodGet, path, "", headers...)
}

func (a *api) post(path, body string, headers ...string) answer {
	a.t.Helper()
	return a.do(http.MethodPost, path, body, append([]string{"Content-Type: application/json"}, headers...)...)
}

// user adds a user to the catalogue.
func (a *api) user() {
	a.t.Helper()
	name := fmt.Sprintf("user%d", len(a.catalog.users)+1)
	if _, err := a.catalog.CreateUser(context.Background(), name, name+"@example.com"); err != nil {
		a.t.Fatal(err)
	}
}

// product posts a product of the first user, and fails the test unless it is accepted.
func (a *api) product(name, price string, urls ...string) answer {
	a.t.Helper()
	if len(a.catalog.users) == 0 {
		a.user()
	}
	body, err := json.Marshal(map[string]any{
		"user_id": 1, "product_name": name, "product_price": price, "product_images": append([]string{}, urls...),
	})
	if err != nil {
		a.t.Fatal(err)
	}
	got := a.post("/products", string(body))
	if got.status != http.StatusCreated {
		a.t.Fatalf("create %s: %d %s", name, got.status, got.body)
	}
	return got
}

// problem is a problem as a client reads it.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Instance  string `json:"instance"`
	Code      string `json:"code"`
	RequestID string `json:"request_id"`
	Errors    []struct {
		In      string `json:"in"`
		Pointer string `json:"pointer"`
		Code    string `json:"code"`
		Detail  string `json:"detail"`
	} `json:"errors"`
}

// problemOf reads an answer as a problem and checks what every problem must have.
func problemOf(t testing.TB, got answer) problem {
	t.Helper()
	if mime := got.header.Get("Content-Type"); mime != "application/problem+json" {
		t.Fatalf("content type is %q, status %d, body %s", mime, got.status, got.body)
	}
	var p problem
	if err := json.Unmarshal([]byte(got.body), &p); err != nil {
		t.Fatalf("problem %s: %v", got.body, err)
	}
	if documented := tableOf(t, "### Field codes"); len(p.Errors) > 0 {
		for _, f := range p.Errors {
			if documented[f.Code] == "" || f.Detail == "" {
				t.Errorf("field code %q is not documented, or has no detail", f.Code)
			}
			inBody := f.In == "body" && (f.Pointer == "" || f.Pointer[0] == '/')
			if !inBody && (f.In != "query" && f.In != "header" || strings.HasPrefix(f.Pointer, "/")) {
				t.Errorf("field %q is in %q", f.Pointer, f.In)
			}
		}
	}
	switch {
	case p.Type != "https://vitrine.io/problems/"+p.Code || p.Code == "" || p.Title == "" || p.Detail == "":
		t.Errorf("problem is not complete: %s", got.body)
	case p.Status != got.status:
		t.Errorf("problem says %d, the response %d", p.Status, got.status)
	case p.RequestID == "" || p.RequestID != got.header.Get("X-Request-Id"):
		t.Errorf("problem's request id is %q, the header's %q", p.RequestID, got.header.Get("X-Request-Id"))
	case got.header.Get("Cache-Control") != "no-store":
		t.Errorf("a problem may be stored: %q", got.header.Get("Cache-Control"))
	case p.Code == "outcome_unknown": // Retry-After depends on the request
	case (p.Status == 503 || p.Status == 429 || p.Code == "idempotency_in_progress") != (got.header.Get("Retry-After") != ""):
		t.Errorf("status %d with Retry-After %q", p.Status, got.header.Get("Retry-After"))
	}
	return p
}

// wants checks the status and the code of a problem, and returns it.
func wants(t testing.TB, got answer, status int, code string) problem {
	t.Helper()
	p := problemOf(t, got)
	if p.Status != status || p.Code != code {
		t.Errorf("got %d %s, want %d %s: %s", p.Status, p.Code, status, code, got.body)
	}
	return p
}

// fieldsOf returns a problem's fields as "pointer code", sorted.
func fieldsOf(p problem) []string {
	var fields []string
	for _, f := range p.Errors {
		fields = append(fields, f.Pointer+" "+f.Code)
	}
	slices.Sort(fields)
	return fields
}

// eventually waits until done returns true, at most ten seconds.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("%s did not happen", what)
		case <-tick.C:
		}
	}
}
