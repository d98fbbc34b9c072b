package httpapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/domain/catalog"
)

// direct returns a server's handler without a network.
func direct(tb testing.TB) (*fakeCatalog, fasthttp.RequestHandler) {
	tb.Helper()
	fake := &fakeCatalog{users: make([]catalog.User, 1)}
	return fake, httpapi.New(newDeps(fake, zap.NewNop(), prometheus.NewRegistry()), testConfig()).Handler()
}

// FuzzCreateProduct checks for any body that the response is a product or a 4xx problem, and that only valid input reaches
// the catalogue.
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
			t.Errorf("response is not JSON: %s", ctx.Response.Body())
		}
		switch status := ctx.Response.StatusCode(); status {
		case 201:
			if wrong := catalog.CheckProduct(fake.inputs[0]); wrong != nil {
				t.Errorf("invalid input reached the catalogue: %v", wrong)
			}
		case 400, 422:
			if len(fake.inputs) != 0 {
				t.Errorf("%d, but a product was created", status)
			}
		default:
			t.Errorf("%d %s", status, ctx.Response.Body())
		}
	})
}

// FuzzListProducts checks for any query string that the response is a page or a 4xx problem, and that only valid queries
// reach the catalogue.
func FuzzListProducts(f *testing.F) {
	for _, query := range []string{
		"user_id=1", "name=lamp&sort=price&limit=1", "cursor=AAAA", "user_id=1&min_price=1e9&max_price=-0", "%zz=%", "name=%00%ff",
		"cursor=" + withChecksum(`{"v":1,"u":1,"n":"x","a":"1","b":"2","s":"price","i":1,"p":"1.5"}`),
		"a&a&b=&=c&cursor=x&cursor=y",
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
			t.Errorf("response is not JSON: %s", ctx.Response.Body())
		}
		switch status := ctx.Response.StatusCode(); status {
		case 200:
			if wrong := fake.queries[0].Validate(); wrong != nil {
				t.Errorf("invalid input reached the catalogue: %v", wrong)
			}
		case 422:
		default:
			t.Errorf("%d %s", status, ctx.Response.Body())
		}
	})
}

// FuzzIfMatch checks for any If-Match that a patch is applied or gets 412 or 422, and that it is applied only if the header
// has the product's tag.
func FuzzIfMatch(f *testing.F) {
	tag := httpapi.NewEncoder(publicURL, 0).Tag()
	for _, header := range []string{
		`*`, `"1.1-` + tag + `"`, `"9.1-` + tag + `", "x"`, `W/"1.1-` + tag + `"`, `"1.2-` + tag + `"`, `"`, `,`,
		`"é" "`, "", "W/",
	} {
		f.Add(header)
	}
	fake, handle := direct(f)
	f.Fuzz(func(t *testing.T, header string) {
		fake.products, fake.patches = []catalog.Product{{ID: 1, Version: 1, Revision: 1}}, nil
		var ctx fasthttp.RequestCtx
		ctx.Request.Header.SetMethod(fasthttp.MethodPatch)
		ctx.Request.SetRequestURI("/products/1")
		ctx.Request.Header.SetContentType("application/json")
		ctx.Request.Header.Set("If-Match", header)
		ctx.Request.SetBodyString(`{}`)
		handle(&ctx)
		if !json.Valid(ctx.Response.Body()) {
			t.Errorf("response is not JSON: %s", ctx.Response.Body())
		}
		switch status := ctx.Response.StatusCode(); status {
		case 200:
			if text := strings.Trim(header, " \t"); text != "*" && !strings.Contains(text, `.1-`+tag+`"`) {
				t.Errorf("applied for %q", header)
			}
		case 412, 422:
			if len(fake.patches) != 0 {
				t.Errorf("%d, but applied", status)
			}
		default:
			t.Errorf("%d %s", status, ctx.Response.Body())
		}
	})
}

// FuzzIdempotencyKey checks for any key that one product is created under a key of at most 255 visible ASCII characters,
// or that the header is rejected.
func FuzzIdempotencyKey(f *testing.F) {
	for _, header := range []string{`a`, `"a"`, `"a\"b"`, `"`, `\`, `"\`, ``, ` `, `é`, "\x00", strings.Repeat("k", 256)} {
		f.Add(header)
	}
	fake, handle := direct(f)
	f.Fuzz(func(t *testing.T, header string) {
		fake.products, fake.inputs, fake.saved = nil, nil, nil
		var ctx fasthttp.RequestCtx
		ctx.Request.Header.SetMethod(fasthttp.MethodPost)
		ctx.Request.SetRequestURI("/products")
		ctx.Request.Header.SetContentType("application/json")
		ctx.Request.Header.Set("Idempotency-Key", header)
		ctx.Request.SetBodyString(`{"user_id":1,"product_name":"x","product_price":"1"}`)
		handle(&ctx)
		switch status := ctx.Response.StatusCode(); status {
		case 201:
			for key := range fake.saved {
				if len(key.Key) < 1 || len(key.Key) > 255 || strings.Trim(key.Key, visible()) != "" {
					t.Errorf("%q was read as %q", header, key.Key)
				}
			}
			if len(fake.products) != 1 || len(fake.saved) != 1 {
				t.Errorf("%d products, %d keys", len(fake.products), len(fake.saved))
			}
		case 422:
			if len(fake.products) != 0 {
				t.Error("refused, but a product was created")
			}
		default:
			t.Errorf("%d %s", status, ctx.Response.Body())
		}
	})
}

// visible returns every visible ASCII character.
func visible() string {
	var all []byte
	for c := byte('!'); c <= '~'; c++ {
		all = append(all, c)
	}
	return string(all)
}
