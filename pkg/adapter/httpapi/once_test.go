package httpapi_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"vitrine.io/pkg/domain/catalog"
)

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	t.Run("repetition_gets_saved_response", testIdempotencyKeyRepetitionGetsSavedResponse)
	t.Run("fingerprint_ignores_notation", testIdempotencyKeyFingerprintIgnoresNotation)
	t.Run("syntax", testIdempotencyKeySyntax)
	t.Run("reused_or_in_progress", testIdempotencyKeyReusedOrInProgress)
	t.Run("every_post_acts_once", testIdempotencyKeyEveryPostActsOnce)
	t.Run("belongs_to_its_route", testIdempotencyKeyBelongsToItsRoute)
}

// testIdempotencyKeyEveryPostActsOnce repeats a request to each POST route of the server.
func testIdempotencyKeyEveryPostActsOnce(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "1", "https://a.example/1")
	requests := map[string]string{
		"POST /users":    `{"name":"Eve","email":"eve@example.com"}`,
		"POST /products": `{"user_id":1,"product_name":"Sofa","product_price":"1"}`,
		"POST /products/:id/images/:image_id/reprocess": "",
	}
	for _, route := range a.server.Routes() {
		path, post := strings.CutPrefix(route, "POST ")
		if !post {
			continue
		}
		body, known := requests[route]
		if !known {
			t.Fatalf("no request for %s", route)
		}
		path = strings.NewReplacer(":image_id", "100", ":id", "1").Replace(path)
		first := a.post(path, body, "Idempotency-Key: "+"k")
		again := a.post(path, " "+body, "Idempotency-Key: k")
		if body == "" {
			again = a.post(path, "{}", "Idempotency-Key: k")
		}
		if first.status >= 300 || first.status != again.status || first.body != again.body {
			t.Errorf("%s: got %d %s, then %d %s", route, first.status, first.body, again.status, again.body)
		}
		if first.header.Get("Idempotent-Replayed") != "" || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s: headers %v, then %v", route, first.header, again.header)
		}
		for _, name := range []string{"ETag", "Location", "Content-Type", "Cache-Control"} {
			if first.header.Get(name) != again.header.Get(name) {
				t.Errorf("%s: %s is %q, then %q", route, name, first.header.Get(name), again.header.Get(name))
			}
		}
		wants(t, a.post(path, body, "Idempotency-Key: a b"), 422, "invalid_fields")
	}
	if p := a.catalog.products[0]; p.Version != 2 || len(a.catalog.products) != 2 || len(a.catalog.users) != 2 {
		t.Errorf("version %d, %d products, %d users", p.Version, len(a.catalog.products), len(a.catalog.users))
	}
}

func testIdempotencyKeyBelongsToItsRoute(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("Lamp", "1", "https://a.example/1", "https://a.example/2")
	a.product("Sofa", "1", "https://a.example/1")
	a.post("/users", `{"name":"Eve","email":"eve@example.com"}`, "Idempotency-Key: k")
	a.do(http.MethodPost, "/products/1/images/100/reprocess", "", "Idempotency-Key: k")
	a.do(http.MethodPost, "/products/2/images/200/reprocess", "", "Idempotency-Key: k")
	// Keys are kept for a day: with another principal or fingerprint, a new release would repeat or refuse older requests.
	want := []catalog.IdempotencyKey{
		{Principal: "product 1", Key: "k", Fingerprint: "50a029b33e05f87b98a9d411f498eac4c3c2cef04880caa60b98be7a4ae15c59"},
		{Principal: "product 2", Key: "k", Fingerprint: "93a35212c8b46792c7181576cdf4a2b5bba11f81191ff0bb3386e7e9e264047a"},
		{Principal: "users", Key: "k", Fingerprint: "262c33015597437f7307158c2e89d8586f0e1e730e31b348c53fa7a2e2576434"},
	}
	got := slices.SortedFunc(maps.Keys(a.catalog.saved), func(a, b catalog.IdempotencyKey) int {
		return strings.Compare(a.Principal, b.Principal)
	})
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for path, body := range map[string]string{
		"/users": `{"name":"Eve","email":"adam@example.com"}`, "/products/1/images/101/reprocess": "",
	} {
		p := wants(t, a.post(path, body, "Idempotency-Key: k"), 422, "invalid_fields")
		if got := fieldsOf(p); !slices.Equal(got, []string{"Idempotency-Key reused"}) {
			t.Errorf("%s: another request under the key: %q", path, got)
		}
	}
}

func testIdempotencyKeyRepetitionGetsSavedResponse(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	const body = `{"user_id":1,"product_name":"Lamp","product_price":"19.90","product_images":["https://a.example/?a&b"]}`
	plain := a.post("/products", body)
	first := a.post("/products", body, "Idempotency-Key: abc")
	if len(a.catalog.products) != 2 {
		t.Fatalf("%d products", len(a.catalog.products))
	}
	if got := first.header.Get("Idempotent-Replayed"); first.status != 201 || got != "" {
		t.Errorf("first: %d, replayed %q", first.status, got)
	}
	if strings.NewReplacer(`"id":2,`, `"id":1,`, `"id":200`, `"id":100`).Replace(first.body) != plain.body {
		t.Errorf("with a key: %s\nwithout:    %s", first.body, plain.body)
	}
	a.patch("/products/2", `{"product_name":"Changed since"}`)
	repeated := a.post("/products", body, "Idempotency-Key: abc")
	if repeated.status != first.status || repeated.body != first.body {
		t.Errorf("repeated: %d %s", repeated.status, repeated.body)
	}
	if got := repeated.header.Get("Idempotent-Replayed"); got != "true" {
		t.Errorf("repeated: replayed is %q", got)
	}
	for name := range plain.header {
		if name == "X-Request-Id" || name == "Date" {
			continue
		}
		want := strings.Replace(plain.header.Get(name), "/products/1", "/products/2", 1)
		if first.header.Get(name) != want || repeated.header.Get(name) != want {
			t.Errorf("%s is %q, then %q, want %q", name, first.header.Get(name), repeated.header.Get(name), want)
		}
	}
	if len(first.header) != len(plain.header) || len(repeated.header) != len(plain.header)+1 {
		t.Errorf("headers %v, then %v, want %v", first.header, repeated.header, plain.header)
	}
	if len(a.catalog.products) != 2 {
		t.Errorf("%d products", len(a.catalog.products))
	}
}

// once posts a product with a key and returns the key that the catalogue got.
func (a *api) once(body, key string) catalog.IdempotencyKey {
	a.t.Helper()
	a.catalog.saved = nil
	if got := a.post("/products", body, "Idempotency-Key: "+key); got.status != 201 {
		a.t.Fatalf("%s: %d %s", body, got.status, got.body)
	}
	for key := range a.catalog.saved {
		return key
	}
	a.t.Fatal("the catalogue got no key")
	return catalog.IdempotencyKey{}
}

func testIdempotencyKeyFingerprintIgnoresNotation(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	a.user()
	want := a.once(`{"user_id":1,"product_name":"Lamp","product_price":"19.90"}`, "k")
	// Keys are kept for a day. If a new release computed another fingerprint, it would reject repetitions of older
	// requests.
	const fingerprint = "d03721c3e19c4957bfefe79ec7869091d8a32256bbcbc186590951e2d4854007"
	if want != (catalog.IdempotencyKey{Principal: "1", Key: "k", Fingerprint: fingerprint}) {
		t.Errorf("got %+v", want)
	}
	for _, same := range []string{
		`{"product_price":19.9,"product_name":"Lamp","user_id":1}`,
		` { "user_id" : 1 , "product_name" : "\u004camp", "product_price":1.99e1, "product_description":"" , "product_images":[]}`,
	} {
		if got := a.once(same, "k"); got != want {
			t.Errorf("%s: got %+v, want %+v", same, got, want)
		}
	}
	seen := map[string]string{want.Fingerprint: ""}
	for _, other := range []string{
		`{"user_id":2,"product_name":"Lamp","product_price":"19.90"}`,
		`{"user_id":1,"product_name":"lamp","product_price":"19.90"}`,
		`{"user_id":1,"product_name":"Lamp","product_price":"19.91"}`,
		`{"user_id":1,"product_name":"Lamp","product_price":"19.90","product_description":"x"}`,
		`{"user_id":1,"product_name":"Lamp","product_price":"19.90","product_images":["https://a.example/"]}`,
		`{"user_id":1,"product_name":"Lamp","product_price":"19.90","product_images":["https://a.example/","https://b.example/"]}`,
		`{"user_id":1,"product_name":"Lamp","product_price":"19.90","product_images":["https://b.example/","https://a.example/"]}`,
	} {
		got := a.once(other, "k").Fingerprint
		if twin, ok := seen[got]; ok {
			t.Errorf("%s has the fingerprint of %s", other, twin)
		}
		seen[got] = other
	}
}

func testIdempotencyKeySyntax(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	const body = `{"user_id":1,"product_name":"Lamp","product_price":"19.90"}`
	long := strings.Repeat("k", 255)
	for sent, want := range map[string]string{
		`abc`: "abc", `"abc"`: "abc", `  abc  `: "abc", `"a\"b\\c"`: `a"b\c`, `a"b\c`: `a"b\c`, `a"`: `a"`, long: long,
		`"` + long + `"`: long, `!~`: `!~`, `0`: "0",
	} {
		if got := a.once(body, sent); got.Key != want {
			t.Errorf("Idempotency-Key: %s: read %q, want %q", sent, got.Key, want)
		}
	}
	for sent, want := range map[string]string{
		``: "required", `""`: "required", `a b`: "invalid_key", `"a b"`: "invalid_key", "a\tb": "invalid_key", `é`: "invalid_key",
		`"abc`: "invalid_key", `"`: "invalid_key", `"a"b`: "invalid_key", `"a";p=1`: "invalid_key", `"a\`: "invalid_key",
		`"a\n"`: "invalid_key", `"a\"`: "invalid_key", long + "k": "too_long", `"` + long + `k"`: "too_long",
	} {
		p := wants(t, a.post("/products", body, "Idempotency-Key: "+sent), 422, "invalid_fields")
		if got := fieldsOf(p); !slices.Equal(got, []string{"Idempotency-Key " + want}) {
			t.Errorf("Idempotency-Key: %s: %q, want %s", sent, got, want)
		}
	}
	p := wants(t, a.post("/products", `{}`, "Idempotency-Key: a", "Idempotency-Key: a"), 422, "invalid_fields")
	want := []string{"/product_name required", "/product_price required", "/user_id required", "Idempotency-Key repeated"}
	if got := fieldsOf(p); !slices.Equal(got, want) {
		t.Errorf("two keys: %q, want %q", got, want)
	}
}

func testIdempotencyKeyReusedOrInProgress(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	a.user()
	const body = `{"user_id":1,"product_name":"Lamp","product_price":"19.90"}`
	a.post("/products", body, "Idempotency-Key: k")
	p := wants(t, a.post("/products", strings.Replace(body, "Lamp", "Sofa", 1), "Idempotency-Key: k"), 422, "invalid_fields")
	if got := fieldsOf(p); !slices.Equal(got, []string{"Idempotency-Key reused"}) {
		t.Errorf("another product under the same key: %q", got)
	}
	if got := a.post("/products", strings.Replace(body, "1", "2", 1), "Idempotency-Key: k"); got.status != 201 {
		t.Errorf("another user's key: %d %s", got.status, got.body)
	}
	a.catalog.before = func(context.Context) error { return fmt.Errorf("insert: %w", catalog.ErrInProgress) }
	got := a.post("/products", body, "Idempotency-Key: k")
	wants(t, got, 409, "idempotency_in_progress")
	if wait := got.header.Get("Retry-After"); wait != "1" {
		t.Errorf("Retry-After is %q", wait)
	}
}

func TestSavedResponse(t *testing.T) {
	t.Parallel()
	const body = `{"user_id":1,"product_name":"Lamp","product_price":"19.90"}`

	t.Run("of_another_request_names_the_header", func(t *testing.T) {
		t.Parallel()
		a := start(t)
		a.user()
		a.once(body, "k")
		got := a.post("/products", strings.Replace(body, "Lamp", "Sofa", 1), "Idempotency-Key: k")
		const want = `"errors":[{"in":"header","pointer":"Idempotency-Key","code":"reused",` +
			`"detail":"the key was used for another request; use a new one"}]`
		if got.status != 422 || !strings.Contains(got.body, want) {
			t.Errorf("got %d %s, want it to contain %s", got.status, got.body, want)
		}
	})

	t.Run("that_cannot_be_read_is_an_internal_error", func(t *testing.T) {
		t.Parallel()
		a := start(t)
		a.user()
		key := a.once(body, "k")
		for _, saved := range []string{"", "{", `{"id":1,"product_name":"Lamp"}`} {
			a.catalog.saved[key] = catalog.SavedResponse(saved)
			wants(t, a.post("/products", body, "Idempotency-Key: k"), 500, "internal_error")
		}
	})
}
