package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
)

// patch sends a merge patch.
func (a *api) patch(path, body string, headers ...string) answer {
	a.t.Helper()
	return a.do(http.MethodPatch, path, body, append([]string{"Content-Type: application/merge-patch+json"}, headers...)...)
}

func TestPatchProduct(t *testing.T) {
	t.Parallel()
	t.Run("response_equals_get", testPatchProductResponseEqualsGet)
	t.Run("absent_fields_are_kept", testPatchProductAbsentFieldsAreKept)
	t.Run("wrong_fields_are_listed", testPatchProductWrongFieldsAreListed)
	t.Run("media_types", testPatchProductMediaTypes)
}

func testPatchProductResponseEqualsGet(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "19.90", "https://a.example/1", "https://a.example/2")
	got := a.patch("/products/1", `{"product_name":"Desk lamp","product_description":"warm","product_price":1e1,`+
		`"product_images":["https://a.example/2","https://a.example/3"]}`)
	for _, want := range []string{
		`"product_name":"Desk lamp"`, `"product_description":"warm"`, `"product_price":"10.00"`,
		`"product_images":["https://a.example/2","https://a.example/3"]`, `{"id":101,"position":0,`, `"version":2,"revision":2,`,
	} {
		if !strings.Contains(got.body, want) {
			t.Errorf("%s is not in %s", want, got.body)
		}
	}
	read := a.get("/products/1")
	if got.status != 200 || got.body != read.body || got.header.Get("ETag") != read.header.Get("ETag") ||
		got.header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %v %s\nread %v %s", got.status, got.header, got.body, read.header, read.body)
	}
}

func testPatchProductAbsentFieldsAreKept(t *testing.T) {
	t.Parallel()
	a := start(t)
	created := a.product("Lamp", "19.90", "https://a.example/1")
	if got := a.patch("/products/1", `{}`); got.status != 200 || got.body != created.body {
		t.Errorf("an empty patch: %d %s", got.status, got.body)
	}
	cheap := decimal.RequireFromString("1.50")
	for body, want := range map[string]catalog.ProductPatch{
		`{}`:                           {},
		`{"product_name":"x"}`:         {Name: new("x")},
		`{"product_description":""}`:   {Description: new("")},
		`{"product_description":null}`: {Description: new("")},
		`{"product_price":"1.50"}`:     {Price: &cheap},
		`{"product_images":null}`:      {ImageURLs: new([]string{})},
		`{"product_images":[]}`:        {ImageURLs: new([]string{})},
		`{ "product_images": null, "product_description" : null }`: {ImageURLs: new([]string{}), Description: new("")},
	} {
		if got := a.patch("/products/1", body); got.status != 200 {
			t.Fatalf("%s: %d %s", body, got.status, got.body)
		}
		if got := a.catalog.patches[len(a.catalog.patches)-1]; !samePatch(got, want) {
			t.Errorf("%s was read as %+v, want %+v", body, got, want)
		}
	}
}

func samePatch(a, b catalog.ProductPatch) bool {
	same := func(a, b *string) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }
	return same(a.Name, b.Name) && same(a.Description, b.Description) &&
		(a.Price == nil) == (b.Price == nil) && (a.Price == nil || a.Price.Equal(*b.Price)) &&
		(a.ImageURLs == nil) == (b.ImageURLs == nil) && (a.ImageURLs == nil || slices.Equal(*a.ImageURLs, *b.ImageURLs))
}

func testPatchProductWrongFieldsAreListed(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "19.90")
	for _, row := range []struct {
		body string
		want []string
	}{
		{`{"product_name":null,"product_price":null}`, []string{"/product_name required", "/product_price required"}},
		{`{"product_name":"","product_price":-1,"product_images":["ftp://a.example/",2,""],"product_description":7,"colour":1}`,
			[]string{
				"/colour unknown_field", "/product_description wrong_type", "/product_images/0 invalid_scheme",
				"/product_images/1 wrong_type", "/product_images/2 required", "/product_name required",
				"/product_price out_of_range",
			}},
		{`{"user_id":1}`, []string{"/user_id read_only"}},
		{`{"user_id":null,"Product_name":"x"}`, []string{"/Product_name unknown_field", "/user_id read_only"}},
		{a.get("/products/1").body, []string{
			"/compressed_product_images read_only", "/created_at read_only", "/id read_only", "/image_status read_only",
			"/images read_only", "/revision read_only", "/updated_at read_only", "/user_id read_only", "/version read_only",
		}},
		{`{"product_name":"x","product_name":null}`, []string{"/product_name repeated"}},
		{`{"product_images":{}}`, []string{"/product_images wrong_type"}},
		{`{"product_price":1.999}`, []string{"/product_price too_precise"}},
		{`[]`, []string{" wrong_type"}},
		{`null`, []string{" wrong_type"}},
	} {
		p := wants(t, a.patch("/products/1", row.body), 422, "invalid_fields")
		if got := fieldsOf(p); !slices.Equal(got, row.want) {
			t.Errorf("%.120s\n got %q\nwant %q", row.body, got, row.want)
		}
	}
	p := wants(t, a.patch("/products/1", `{"product_name":""}`, "If-Match: 1"), 422, "invalid_fields")
	if got := fieldsOf(p); !slices.Equal(got, []string{"/product_name required", "If-Match invalid_etag"}) {
		t.Errorf("with a wrong header: %q", got)
	}
	wants(t, a.patch("/products/1", `{`), 400, "bad_json")
	if len(a.catalog.patches) != 0 {
		t.Errorf("%d wrong patches reached the catalogue", len(a.catalog.patches))
	}
}

func testPatchProductMediaTypes(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "19.90")
	for _, kind := range []string{
		"", "text/plain", "application/json-patch+json", "application/x-www-form-urlencoded", "application/merge-patch",
	} {
		got := a.do(http.MethodPatch, "/products/1", `{"product_name":"x"}`, "Content-Type: "+kind)
		wants(t, got, 415, "unsupported_media_type")
		if accept := got.header.Get("Accept-Patch"); accept != "application/merge-patch+json, application/json" {
			t.Errorf("%q: Accept-Patch is %q", kind, accept)
		}
	}
	for _, kind := range []string{
		"application/merge-patch+json", "application/json", "Application/Merge-Patch+JSON; charset=utf-8",
	} {
		if got := a.do(http.MethodPatch, "/products/1", `{"product_name":"x"}`, "Content-Type: "+kind); got.status != 200 {
			t.Errorf("%q: %d %s", kind, got.status, got.body)
		}
	}
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	t.Run("revisions_and_syntax", testIfMatchRevisionsAndSyntax)
	t.Run("other_errors_come_first", testIfMatchOtherErrorsComeFirst)
}

func testIfMatchRevisionsAndSyntax(t *testing.T) {
	t.Parallel()
	a := start(t)
	etag := a.product("Lamp", "19.90", "https://a.example/1").header.Get("ETag")
	tag := tagOf(etag)
	a.catalog.products[0].Version, a.catalog.products[0].Revision = 7, 3
	for seen, want := range map[string]int{
		`"7.3-` + tag + `"`:                   200,
		`"1.3-` + tag + `"`:                   200, // workers have changed the version since
		`"9.3-` + tag + `"`:                   200, // the version is ignored
		`*`:                                   200,
		` * `:                                 200,
		`"x" , ,"1.3-` + tag + `"`:            200,
		`"1.2-` + tag + `","1.3-` + tag + `"`: 200,
		`W/"x","1.3-` + tag + `"`:             200,
		`"1.2-` + tag + `"`:                   412,
		`"1.4-` + tag + `"`:                   412,
		`W/"7.3-` + tag + `"`:                 412,
		`"7.3-00000000"`:                      412, // another installation or format
		`"7.3-` + tag + `x"`:                  412,
		`"7-` + tag + `"`:                     412,
		`"7.03-` + tag + `"`:                  412,
		`".3-` + tag + `"`:                    412,
		`"é"`:                                 412,
		`""`:                                  412,
		`7.3-` + tag:                          422,
		`"7.3-` + tag:                         422,
		`"7.3-` + tag + `" "x"`:               422,
		`"7.3-` + tag + `",*`:                 422,
		`"7.3 -` + tag + `"`:                  422,
		`w/"7.3-` + tag + `"`:                 422,
		`,`:                                   422,
		` `:                                   422,
	} {
		code := map[int]string{412: "revision_mismatch", 422: "invalid_fields"}[want]
		for _, got := range []answer{
			a.patch("/products/1", `{}`, "If-Match: "+seen),
			a.deleteAndRestore("If-Match: " + seen),
		} {
			switch {
			case want != 200:
				if p := wants(t, got, want, code); want == 422 && !slices.Equal(fieldsOf(p), []string{"If-Match invalid_etag"}) {
					t.Errorf("If-Match: %s: %v", seen, fieldsOf(p))
				}
			case got.status != 200 && got.status != 204:
				t.Errorf("If-Match: %s: %d %s", seen, got.status, got.body)
			}
		}
	}
	lines := a.patch("/products/1", `{}`, `If-Match: "1.2-`+tag+`"`, `If-Match: "1.3-`+tag+`"`)
	if lines.status != 200 {
		t.Errorf("a list in two headers: %d %s", lines.status, lines.body)
	}
	wants(t, a.patch("/products/1", `{}`, `If-Match: *`, `If-Match: "1.3-`+tag+`"`), 422, "invalid_fields")
}

// tagOf returns the part of an ETag that does not depend on the product.
func tagOf(etag string) string {
	_, tag, _ := strings.Cut(strings.Trim(etag, `"`), "-")
	return tag
}

// deleteAndRestore deletes the first product and restores it in the fake.
func (a *api) deleteAndRestore(headers ...string) answer {
	a.t.Helper()
	defer func() { a.catalog.products[0].Deleted = false }()
	return a.do(http.MethodDelete, "/products/1", "", headers...)
}

func testIfMatchOtherErrorsComeFirst(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "19.90")
	wants(t, a.patch("/products/1", `{"product_name":""}`, `If-Match: "old"`), 422, "invalid_fields")
	wants(t, a.patch("/products/9", `{}`, `If-Match: "old"`), 404, "product_not_found")
	wants(t, a.patch("/products/9", `{}`, `If-Match: *`), 404, "product_not_found")
}

func TestDeleteProduct(t *testing.T) {
	t.Parallel()
	t.Run("product_is_gone", testDeleteProductProductIsGone)
}

func testDeleteProductProductIsGone(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "19.90")
	got := a.do(http.MethodDelete, "/products/1", "")
	if got.status != 204 || got.body != "" || got.header.Get("Content-Type") != "" {
		t.Errorf("delete: %d %v %q", got.status, got.header, got.body)
	}
	for _, got := range []answer{
		a.do(http.MethodDelete, "/products/1", ""), a.get("/products/1"), a.patch("/products/1", `{}`),
		a.do(http.MethodPost, "/products/1/images/100/reprocess", ""), a.do(http.MethodDelete, "/products/1", "", "If-Match: *"),
	} {
		wants(t, got, 404, "product_not_found")
	}
}

func TestReprocessImage(t *testing.T) {
	t.Parallel()
	t.Run("image_is_pending", testReprocessImageImageIsPending)
}

func testReprocessImageImageIsPending(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "19.90", "https://a.example/1", "https://a.example/2")
	a.catalog.products[0].Images[1].Status = catalog.Failed
	a.catalog.products[0].Images[1].ErrorCode = media.Timeout
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	got := a.do(http.MethodPost, "/products/1/images/101/reprocess", "", "Traceparent: "+trace)
	read := a.get("/products/1")
	if got.status != 202 || got.body != read.body || got.header.Get("ETag") != read.header.Get("ETag") ||
		!strings.Contains(got.body, fmt.Sprintf(pending, 101, 1, "https://a.example/2")) {
		t.Errorf("got %d %v %s", got.status, got.header, got.body)
	}
	if passed := a.catalog.traces[len(a.catalog.traces)-1]; passed != trace {
		t.Errorf("the catalogue got the trace %q", passed)
	}
	for path, code := range map[string]string{
		"/products/1/images/7/reprocess": "image_not_found", "/products/1/images/x/reprocess": "image_not_found",
		"/products/1/images/0101/reprocess": "image_not_found", "/products/9/images/101/reprocess": "product_not_found",
		"/products/x/images/101/reprocess": "product_not_found", "/products/9/images/x/reprocess": "product_not_found",
	} {
		wants(t, a.do(http.MethodPost, path, ""), 404, code)
	}
}

func TestRequestBody(t *testing.T) {
	t.Parallel()
	t.Run("unexpected_body_is_refused", testRequestBodyUnexpectedBodyIsRefused)
}

func testRequestBodyUnexpectedBodyIsRefused(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "19.90", "https://a.example/1")
	for _, got := range []answer{
		a.do(http.MethodDelete, "/products/1", "{}"), a.do(http.MethodDelete, "/products/1", "why"),
	} {
		if p := wants(t, got, 422, "invalid_fields"); !slices.Equal(fieldsOf(p), []string{" unexpected"}) {
			t.Errorf("fields %q", fieldsOf(p))
		}
	}
	const path = "/products/1/images/100/reprocess"
	for body, want := range map[string]string{
		`{"now":true}`: "/now unknown_field", `[]`: " wrong_type", `null`: " wrong_type",
	} {
		if got := fieldsOf(wants(t, a.post(path, body), 422, "invalid_fields")); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: fields %q", body, got)
		}
	}
	wants(t, a.do(http.MethodPost, path, `{}`), 415, "unsupported_media_type")
	wants(t, a.post(path, ` `), 400, "bad_json")
	if a.catalog.products[0].Version != 1 || a.catalog.products[0].Deleted {
		t.Error("a refused request has changed the product")
	}
	if got := a.post(path, ` {} `); got.status != 202 { // some clients send it with every POST
		t.Errorf("an empty object: %d %s", got.status, got.body)
	}
}

func TestOutcomeUnknown(t *testing.T) {
	t.Parallel()
	t.Run("retry_after_only_if_repeatable", testOutcomeUnknownRetryAfterOnlyIfRepeatable)
}

func testOutcomeUnknownRetryAfterOnlyIfRepeatable(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "19.90", "https://a.example/1")
	a.catalog.before = func(context.Context) error { return fmt.Errorf("commit: %w", catalog.ErrOutcomeUnknown) }
	const product = `{"user_id":1,"product_name":"x","product_price":"1"}`
	for _, row := range []struct {
		what string
		got  answer
		wait string
	}{
		{"a create", a.post("/products", product), ""},
		{"a create with a key", a.post("/products", product, "Idempotency-Key: k"), "2"},
		{"a user", a.post("/users", `{"name":"a","email":"a@example.com"}`), ""},
		{"a user with a key", a.post("/users", `{"name":"a","email":"a@example.com"}`, "Idempotency-Key: k"), "2"},
		{"a patch", a.patch("/products/1", `{"product_name":"x"}`), "2"},
		{"a delete", a.do(http.MethodDelete, "/products/1", ""), "2"},
		{"a reprocess", a.do(http.MethodPost, "/products/1/images/100/reprocess", ""), "2"},
	} {
		wants(t, row.got, 503, "outcome_unknown")
		if wait := row.got.header.Get("Retry-After"); wait != row.wait {
			t.Errorf("%s: Retry-After is %q, want %q", row.what, wait, row.wait)
		}
	}
	a.catalog.before = func(context.Context) error { return errors.New("broken") }
	for _, got := range []answer{
		a.patch("/products/1", `{}`), a.do(http.MethodDelete, "/products/1", ""),
		a.do(http.MethodPost, "/products/1/images/100/reprocess", ""), a.post("/products", product, "Idempotency-Key: k"),
	} {
		wants(t, got, 500, "internal_error")
	}
}
