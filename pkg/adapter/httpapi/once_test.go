package httpapi_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"vitrine.io/pkg/domain/catalog"
)

func TestARequestThatComesAgainIsAnsweredIdentically(t *testing.T) {
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
		t.Errorf("the first: %d, replayed %q", first.status, got)
	}
	if strings.NewReplacer(`"id":2,`, `"id":1,`, `"id":200`, `"id":100`).Replace(first.body) != plain.body {
		t.Errorf("with a key: %s\nwithout:    %s", first.body, plain.body)
	}
	a.patch("/products/2", `{"product_name":"Changed since"}`)
	again := a.post("/products", body, "Idempotency-Key: abc")
	if again.status != first.status || again.body != first.body {
		t.Errorf("again: %d %s", again.status, again.body)
	}
	if got := again.header.Get("Idempotent-Replayed"); got != "true" {
		t.Errorf("again: replayed is %q", got)
	}
	for name := range plain.header {
		if name == "X-Request-Id" || name == "Date" {
			continue
		}
		want := strings.Replace(plain.header.Get(name), "/products/1", "/products/2", 1)
		if first.header.Get(name) != want || again.header.Get(name) != want {
			t.Errorf("%s is %q, then %q, want %q", name, first.header.Get(name), again.header.Get(name), want)
		}
	}
	if len(first.header) != len(plain.header) || len(again.header) != len(plain.header)+1 {
		t.Errorf("headers %v, then %v, want %v", first.header, again.header, plain.header)
	}
	if len(a.catalog.products) != 2 {
		t.Errorf("%d products", len(a.catalog.products))
	}
}

// once sends a product with a key and returns what the catalogue was told of it.
func (a *api) once(body, key string) catalog.IdempotencyKey {
	a.t.Helper()
	a.catalog.saved = nil
	if got := a.post("/products", body, "Idempotency-Key: "+key); got.status != 201 {
		a.t.Fatalf("%s: %d %s", body, got.status, got.body)
	}
	for once := range a.catalog.saved {
		return once
	}
	a.t.Fatal("the catalogue was not told of the key")
	return catalog.IdempotencyKey{}
}

func TestTheSameRequestHasTheSameFingerprintHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	a.user()
	want := a.once(`{"user_id":1,"product_name":"Lamp","product_price":"19.90"}`, "k")
	// Keys live for a day: a release that computes another fingerprint refuses what its predecessor took.
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
		if twin, taken := seen[got]; taken {
			t.Errorf("%s has the fingerprint of %s", other, twin)
		}
		seen[got] = other
	}
}

func TestAKeyIsVisibleASCIIWithOrWithoutQuotes(t *testing.T) {
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
			t.Errorf("Idempotency-Key: %s: took %q, want %q", sent, got.Key, want)
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

func TestAKeyThatIsTakenIsToldApart(t *testing.T) {
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
		const want = `"errors":[{"pointer":"Idempotency-Key","code":"reused",` +
			`"detail":"the key was used for another request; draw a new one"}]`
		if got.status != 422 || !strings.Contains(string(got.body), want) {
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
