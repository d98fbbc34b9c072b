package httpapi_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// lamp returns the body of a valid POST /products in which one field has another value.
func lamp(field, value string) string {
	fields := map[string]string{"user_id": `1`, "product_name": `"Lamp"`, "product_price": `"1"`}
	fields[field] = value
	var parts []string
	for name, value := range fields {
		parts = append(parts, `"`+name+`":`+value)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestText(t *testing.T) {
	t.Parallel()
	t.Run("lone_surrogates_are_refused", testTextLoneSurrogatesAreRefused)
	t.Run("hidden_characters_are_refused", testTextHiddenCharactersAreRefused)
	t.Run("is_normalized", testTextIsNormalized)
}

func testTextLoneSurrogatesAreRefused(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "1")
	for _, text := range []string{
		`\ud800`, `a\udfffb`, `\uD83D`, `\ud83d\ud83d\ude00`, `\ude00\ud83d`, `\ud83d\u0041`, `\ud83d\\ude00`, `\ud83d x`,
		`\\\ud800`,
	} {
		for _, field := range []string{"product_name", "product_description"} {
			p := wants(t, a.post("/products", lamp(field, `"x`+text+`"`)), 422, "invalid_fields")
			if got := fieldsOf(p); !slices.Equal(got, []string{"/" + field + " invalid_text"}) {
				t.Errorf("%s in %s: %q", text, field, got)
			}
			p = wants(t, a.patch("/products/1", `{"`+field+`":"`+text+`"}`), 422, "invalid_fields")
			if got := fieldsOf(p); !slices.Equal(got, []string{"/" + field + " invalid_text"}) {
				t.Errorf("%s in a patch of %s: %q", text, field, got)
			}
		}
		p := wants(t, a.post("/products", lamp("product_images", `["https://a.example/","`+text+`"]`)), 422, "invalid_fields")
		if got := fieldsOf(p); !slices.Equal(got, []string{"/product_images/1 invalid_text"}) {
			t.Errorf("%s in a URL: %q", text, got)
		}
		p = wants(t, a.post("/users", `{"name":"`+text+`","email":"`+text+`@example.com"}`), 422, "invalid_fields")
		if got := fieldsOf(p); !slices.Equal(got, []string{"/email invalid_text", "/name invalid_text"}) {
			t.Errorf("%s in a user: %q", text, got)
		}
	}
	for text, want := range map[string]string{
		`\ud83d\ude00`: "😀", `\uD83D\uDE00\ud83d\ude00!`: "😀😀!", `\\ud800`: `\\ud800`,
		`\u005cud800`: `\\ud800`, `\ufffd`: "\ufffd",
	} {
		got := a.post("/products", lamp("product_name", `"`+text+`"`))
		if got.status != 201 || !strings.Contains(got.body, `"product_name":"`+want+`"`) {
			t.Errorf("%s: %d %s", text, got.status, got.body)
		}
	}
	p := wants(t, a.post("/users", `{"name":"\uD83D","email":"a@example.com"}`), 422, "invalid_fields")
	if want := `must not contain half of a surrogate pair: \uD83D`; p.Errors[0].Detail != want {
		t.Errorf("detail is %q, want %q", p.Errors[0].Detail, want)
	}
	if len(a.catalog.products) != 6 || len(a.catalog.users) != 1 {
		t.Errorf("%d products, %d users", len(a.catalog.products), len(a.catalog.users))
	}
}

func testTextHiddenCharactersAreRefused(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	for _, text := range []string{`\u200b`, `\u001b[31m`, `a\nb`, `\u202e`} {
		p := wants(t, a.post("/products", lamp("product_name", `"x`+text+`y"`)), 422, "invalid_fields")
		if got := fieldsOf(p); !slices.Equal(got, []string{"/product_name invalid_text"}) {
			t.Errorf("%s: %q", text, got)
		}
	}
}

func testTextIsNormalized(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	const nfd, nfc = `e\u0301`, "é"
	for _, key := range []string{"one", "two"} {
		first := a.post("/products", lamp("product_name", `" Caf`+nfd+`\t"`), "Idempotency-Key: "+key)
		again := a.post("/products", lamp("product_name", `"Caf`+nfc+`"`), "Idempotency-Key: "+key)
		if first.status != 201 || !strings.Contains(first.body, `"product_name":"Café"`) || again.body != first.body {
			t.Errorf("got %d %s, then %s", first.status, first.body, again.body)
		}
	}
	if got := a.post("/users", `{"name":" Ren`+nfd+`","email":" e@example.com "}`); !strings.Contains(got.body,
		`"name":"Ren`+nfc+`","email":"e@example.com"`) {
		t.Errorf("got %d %s", got.status, got.body)
	}
	p, _ := a.list("user_id=1&name=" + "Cafe%CC%81")
	if len(p.Products) != 2 {
		t.Errorf("a search in another normal form finds %d products, want 2", len(p.Products))
	}
}

func TestWholeNumber(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	for _, one := range []string{"1", "1.0", "1e0", "10e-1", "0.1e1", "1.000E+0"} {
		if got := a.post("/products", lamp("user_id", one)); got.status != 201 || !strings.Contains(got.body, `"user_id":1,`) {
			t.Errorf("%s: %d %s", one, got.status, got.body)
		}
	}
	for value, want := range map[string]string{
		`1.5`: "wrong_type must be a whole number", `1e-1`: "wrong_type must be a whole number",
		`"1"`: "wrong_type must be a whole number, not a string", `true`: "wrong_type must be a whole number, not a boolean",
		`[1]`: "wrong_type must be a whole number, not an array", `{}`: "wrong_type must be a whole number, not an object",
		`0`: "out_of_range must be at least 1", `-5`: "out_of_range must be at least 1", `-0.0`: "out_of_range must be at least 1",
		`9223372036854775808`:                   "out_of_range is too large a number",
		`-9223372036854775809`:                  "out_of_range is too small a number",
		`1e21`:                                  "out_of_range must have an exponent from -20 to 20",
		`1.00000000000000000000000000000000000`: "out_of_range must have at most 32 characters",
	} {
		p := wants(t, a.post("/products", lamp("user_id", value)), 422, "invalid_fields")
		if len(p.Errors) != 1 || p.Errors[0].Code+" "+p.Errors[0].Detail != want {
			t.Errorf("%s: %+v, want %s", value, p.Errors, want)
		}
	}
}

func TestNull(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	got := a.post("/products", `{"user_id":1,"product_name":"x","product_price":1,"product_images":null,`+
		`"product_description":null}`)
	if got.status != 201 || !strings.Contains(got.body, `"product_description":"",`) ||
		!strings.Contains(got.body, `"product_images":[],`) {
		t.Errorf("optional fields: %d %s", got.status, got.body)
	}
	for field, body := range map[string]string{
		"/user_id":      lamp("user_id", "null"),
		"/product_name": lamp("product_name", "null"), "/product_price": lamp("product_price", "null"),
	} {
		p := wants(t, a.post("/products", body), 422, "invalid_fields")
		if got := fieldsOf(p); !slices.Equal(got, []string{field + " required"}) {
			t.Errorf("%s: %q", body, got)
		}
	}
	p := wants(t, a.post("/products", lamp("product_images", `["https://a.example/",null]`)), 422, "invalid_fields")
	if got := p.Errors[0]; got.Pointer != "/product_images/1" || got.Detail != "must be a string, not null" {
		t.Errorf("an element: %+v", got)
	}
	p = wants(t, a.post("/products", `null`), 422, "invalid_fields")
	if got := p.Errors[0]; got.Pointer != "" || got.Detail != "must be an object, not null" {
		t.Errorf("the body: %+v", got)
	}
}

// TestQueryParameters sends a parameter that does not exist to every route of the server.
func TestQueryParameters(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "1", "https://a.example/1")
	bodies := map[string]string{
		"POST /users": `{"name":"Eve","email":"eve@example.com"}`, "POST /products": lamp("user_id", "1"),
		"PATCH /products/:id": `{"product_name":"Sofa"}`,
	}
	for _, route := range a.server.Routes() {
		method, path, _ := strings.Cut(route, " ")
		path = strings.NewReplacer(":image_id", "100", ":id", "1").Replace(path)
		for query, want := range map[string][]string{
			"dry_run=true": {"dry_run unknown_parameter"},
			"a&b=1&b=2":    {"a unknown_parameter", "b unknown_parameter", "b unknown_parameter"},
			"=1":           {" unknown_parameter"},
		} {
			if route == "GET /products" {
				query += "&user_id=1"
			}
			got := a.do(method, path+"?"+query, bodies[route], "Content-Type: application/json")
			p := wants(t, got, 422, "invalid_fields")
			for _, f := range p.Errors {
				if f.In != "query" {
					t.Errorf("%s?%s: %s is in %q", route, query, f.Pointer, f.In)
				}
			}
			if got := fieldsOf(p); !slices.Equal(got, want) {
				t.Errorf("%s?%s: %q, want %q", route, query, got, want)
			}
		}
	}
	if p := a.catalog.products[0]; p.Version != 1 || p.Deleted || len(a.catalog.products) != 1 || len(a.catalog.users) != 1 {
		t.Errorf("a refused request has changed something: %+v", a.catalog.products)
	}
}

func TestWrongFields(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "1", "https://a.example/1")
	for _, row := range []struct {
		got  answer
		want []string
	}{
		{a.post("/users?x=1", `{"name":""}`, "Idempotency-Key: a b"), []string{
			"body /email required", "body /name required", "header Idempotency-Key invalid_key", "query x unknown_parameter",
		}},
		{a.post("/products?x=1", lamp("user_id", "0"), "Idempotency-Key: a b"), []string{
			"body /user_id out_of_range", "header Idempotency-Key invalid_key", "query x unknown_parameter",
		}},
		{a.post("/products?Idempotency-Key=1", `[]`, "Idempotency-Key: a b"), []string{
			"body  wrong_type", "header Idempotency-Key invalid_key", "query Idempotency-Key unknown_parameter",
		}},
		{a.patch("/products/1?x=1", `{"product_name":""}`, "If-Match: 1"), []string{
			"body /product_name required", "header If-Match invalid_etag", "query x unknown_parameter",
		}},
		{a.do(http.MethodDelete, "/products/1?x=1", "why", "If-Match: 1"), []string{
			"body  unexpected", "header If-Match invalid_etag", "query x unknown_parameter",
		}},
		{a.post("/products/1/images/100/reprocess?x=1", `{"now":true}`, "Idempotency-Key: a b"), []string{
			"body /now unknown_field", "header Idempotency-Key invalid_key", "query x unknown_parameter",
		}},
		{a.get("/products?limit=0&user_id=1"), []string{"query limit out_of_range"}},
	} {
		var got []string
		for _, f := range wants(t, row.got, 422, "invalid_fields").Errors {
			got = append(got, f.In+" "+f.Pointer+" "+f.Code)
		}
		if slices.Sort(got); !slices.Equal(got, row.want) {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
	if a.catalog.products[0].Version != 1 || a.catalog.products[0].Deleted || len(a.catalog.products) != 1 {
		t.Errorf("a refused request has changed something: %+v", a.catalog.products)
	}
}
