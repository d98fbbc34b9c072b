package httpapi_test

import (
	"encoding/json"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/httpapi"
)

// direct returns a server's handler without a network.
func direct(tb testing.TB) (*fakeCatalog, fasthttp.RequestHandler) {
	tb.Helper()
	fake := &fakeCatalog{users: make([]catalog.User, 1)}
	return fake, httpapi.New(parts(fake, zap.NewNop(), prometheus.NewRegistry()), testConfig()).Handler()
}

// Whatever the body is, the answer is a product or a problem that names the client's mistake, and what reaches the
// catalogue is valid.
func FuzzCreateProduct(f *testing.F) {
	for _, body := range []string{
		`{"user_id":1,"product_name":"x","product_description":"y","product_images":["http://a.example"],"product_price":"1.10"}`,
		`{"user_id":1,"product_name":"x","product_price":1e2}`, `{"user_id":1,"product_price":1e999999999}`, `{"a":1,"a":2}`,
		`{"product_images":[1,null,"",{}]}`, `[]`, `null`, `{`, "\xff", `{"\ud800":"\u0000"}`, `{"":0,"/":1,"~":2}`,
	} {
		f.Add(body)
	}
	fake, handle := direct(f)
	f.Fuzz(func(t *testing.T, body string) {
		fake.products, fake.inputs = nil, nil
		var ctx fasthttp.RequestCtx
		ctx.Request.Header.SetMethod(fasthttp.MethodPost)
		ctx.Request.SetRequestURI("/products")
		ctx.Request.Header.SetContentType("application/json")
		ctx.Request.SetBodyString(body)
		handle(&ctx)
		if !json.Valid(ctx.Response.Body()) {
			t.Errorf("answer is not JSON: %s", ctx.Response.Body())
		}
		switch status := ctx.Response.StatusCode(); status {
		case 201:
			if wrong := catalog.CheckProduct(fake.inputs[0]); wrong != nil {
				t.Errorf("the catalogue was given %v", wrong)
			}
		case 400, 422:
			if len(fake.inputs) != 0 {
				t.Errorf("%d, but a product was made", status)
			}
		default:
			t.Errorf("%d %s", status, ctx.Response.Body())
		}
	})
}

// Whatever the query string is, the answer is a page or a problem that names the client's mistake, and what reaches the
// catalogue is valid.
func FuzzListProducts(f *testing.F) {
	for _, query := range []string{
		"user_id=1", "name=lamp&sort=price&limit=1", "cursor=AAAA", "user_id=1&min_price=1e9&max_price=-0", "%zz=%", "name=%00%ff",
		"cursor=" + sealed(`{"v":1,"u":1,"n":"x","a":"1","b":"2","s":"price","i":1,"p":"1.5"}`), "a&a&b=&=c&cursor=x&cursor=y",
	} {
		f.Add(query)
	}
	fake, handle := direct(f)
	f.Fuzz(func(t *testing.T, query string) {
		fake.queries = nil
		var ctx fasthttp.RequestCtx
		ctx.Request.SetRequestURI("/products")
		ctx.Request.URI().SetQueryString(query)
		handle(&ctx)
		if !json.Valid(ctx.Response.Body()) {
			t.Errorf("answer is not JSON: %s", ctx.Response.Body())
		}
		switch status := ctx.Response.StatusCode(); status {
		case 200:
			if wrong := fake.queries[0].Validate(); wrong != nil {
				t.Errorf("the catalogue was given %v", wrong)
			}
		case 422:
		default:
			t.Errorf("%d %s", status, ctx.Response.Body())
		}
	})
}
