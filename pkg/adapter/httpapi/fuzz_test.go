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

// Whatever If-Match says, the patch is carried out, refused as overtaken, or refused as unreadable; and it is carried out
// only if the product's own tag stands there.
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
			t.Errorf("answer is not JSON: %s", ctx.Response.Body())
		}
		switch status := ctx.Response.StatusCode(); status {
		case 200:
			if text := strings.Trim(header, " \t"); text != "*" && !strings.Contains(text, `.1-`+tag+`"`) {
				t.Errorf("carried out for %q", header)
			}
		case 412, 422:
			if len(fake.patches) != 0 {
				t.Errorf("%d, but carried out", status)
			}
		default:
			t.Errorf("%d %s", status, ctx.Response.Body())
		}
	})
}

// Whatever the key is, the product is made once under a key that fits a table, or the header is refused.
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
					t.Errorf("%q was taken as %q", header, key.Key)
				}
			}
			if len(fake.products) != 1 || len(fake.saved) != 1 {
				t.Errorf("%d products, %d keys", len(fake.products), len(fake.saved))
			}
		case 422:
			if len(fake.products) != 0 {
				t.Error("refused, but a product was made")
			}
		default:
			t.Errorf("%d %s", status, ctx.Response.Body())
		}
	})
}

// visible returns every ASCII character that can be seen.
func visible() string {
	var all []byte
	for c := byte('!'); c <= '~'; c++ {
		all = append(all, c)
	}
	return string(all)
}
