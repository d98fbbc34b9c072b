package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"vitrine.io/pkg/domain/catalog"
)

const pending = `{"id":%d,"position":%d,"source_url":"%s","status":"pending","attempts":0,"error":null,` +
	`"width":null,"height":null,"source_bytes":null,"bytes_saved":null,"placeholder":null,"reprocess":null,"renditions":[]}`

func TestCreateProduct(t *testing.T) {
	t.Parallel()
	t.Run("response_equals_get", testCreateProductResponseEqualsGet)
	t.Run("optional_fields", testCreateProductOptionalFields)
	t.Run("price_notations", testCreateProductPriceNotations)
	t.Run("wrong_fields_are_listed", testCreateProductWrongFieldsAreListed)
	t.Run("wrong_fields_are_bounded", testCreateProductWrongFieldsAreBounded)
	t.Run("invalid_json", testCreateProductInvalidJSON)
	t.Run("media_types", testCreateProductMediaTypes)
}

func testCreateProductResponseEqualsGet(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	const url = "https://shop.example/a.jpg?w=1&h=2"
	created := a.post("/products", `{"user_id":1,"product_name":"Lamp <b>","product_description":"warm",`+
		`"product_images":["`+url+`","`+url+`"],"product_price":19.9}`)
	want := `{"id":1,"user_id":1,"product_name":"Lamp <b>","product_description":"warm","product_price":"19.90",` +
		`"product_images":["` + url + `","` + url + `"],"compressed_product_images":[],"images":[` +
		fmt.Sprintf(pending, 100, 0, url) + `,` + fmt.Sprintf(pending, 101, 1, url) + `],"image_status":"pending",` +
		`"version":1,"revision":1,"created_at":"2026-03-01T12:30:45.123456Z","updated_at":"2026-03-01T12:30:45.123456Z"}`
	if created.status != 201 || created.body != want {
		t.Fatalf("created: %d\n got %s\nwant %s", created.status, created.body, want)
	}
	if got := created.header.Get("Location"); got != "/products/1" {
		t.Errorf("Location is %q", got)
	}
	read := a.get(created.header.Get("Location"))
	if read.status != 200 || read.body != created.body {
		t.Errorf("read: %d %s", read.status, read.body)
	}
	if got, want := read.header.Get("ETag"), created.header.Get("ETag"); got != want || got == "" {
		t.Errorf("ETag is %q after %q", got, want)
	}
	if got := read.header.Get("Cache-Control"); got != "private, no-cache" {
		t.Errorf("Cache-Control is %q", got)
	}
}

func testCreateProductOptionalFields(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	got := a.post("/products", `{"user_id":1,"product_name":"Lamp","product_price":0}`, "Content-Type: application/json")
	var p struct {
		Description *string  `json:"product_description"`
		Price       string   `json:"product_price"`
		Images      []string `json:"product_images"`
		Status      string   `json:"image_status"`
	}
	if err := json.Unmarshal([]byte(got.body), &p); err != nil || got.status != 201 {
		t.Fatalf("%d %s: %v", got.status, got.body, err)
	}
	if p.Description == nil || p.Price != "0.00" || p.Images == nil || p.Status != "ready" {
		t.Errorf("got %s", got.body)
	}
}

func testCreateProductPriceNotations(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	for price, want := range map[string]string{
		`19.9`: "19.90", `"19.9"`: "19.90", `0`: "0.00", `"0.01"`: "0.01", `-0`: "0.00", `1e2`: "100.00", `"1.5E+1"`: "15.00",
		`990e-2`: "9.90", `1.500`: "1.50", `9999999999.99`: "9999999999.99", `"9999999999.99"`: "9999999999.99",
		`0.1000000000000000000`: "0.10", `4503599627.37`: "4503599627.37", `0e-5`: "0.00",
	} {
		got := a.post("/products", `{"user_id":1,"product_name":"x","product_price":`+price+`}`)
		if got.status != 201 || !strings.Contains(got.body, `"product_price":"`+want+`"`) {
			t.Errorf("%s: got %d %s, want %s", price, got.status, got.body, want)
		}
	}
}

func testCreateProductWrongFieldsAreListed(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	for _, row := range slices.Concat(wrongProducts(), wrongPrices()) {
		p := wants(t, a.post("/products", row.body), 422, "invalid_fields")
		if got := fieldsOf(p); !slices.Equal(got, row.want) {
			t.Errorf("%.120s\n got %q\nwant %q", row.body, got, row.want)
		}
	}
	if len(a.catalog.products) != 0 {
		t.Errorf("%d products were created from wrong bodies", len(a.catalog.products))
	}
}

// wrongBody is a body of POST /products and its errors, as fieldsOf returns them.
type wrongBody struct {
	body string
	want []string
}

func wrongProducts() []wrongBody {
	many := `"` + strings.Repeat(`https://a.example/","`, 20) + `https://a.example/"`
	with := func(field string) string { return `{"user_id":1,"product_name":"x","product_price":"1",` + field + `}` }
	return []wrongBody{
		{`{}`, []string{"/product_name required", "/product_price required", "/user_id required"}},
		{`[]`, []string{" wrong_type"}},
		{`"text"`, []string{" wrong_type"}},
		{`null`, []string{" wrong_type"}},
		{`{"user_id":"1","product_name":2,"product_description":null,"product_images":{},"product_price":true,"a/b~c":0}`,
			[]string{
				"/a~1b~0c unknown_field", "/product_images wrong_type",
				"/product_name wrong_type", "/product_price wrong_type", "/user_id wrong_type",
			}},
		{`{"user_id":0,"product_name":"","product_price":-0.01,"product_images":[1,"ftp://a.example/","",null,"http://u:p@b/"]}`,
			[]string{
				"/product_images/0 wrong_type", "/product_images/1 invalid_scheme", "/product_images/2 required",
				"/product_images/3 wrong_type", "/product_images/4 userinfo", "/product_name required",
				"/product_price out_of_range", "/user_id out_of_range",
			}},
		{`{"user_id":7,"product_name":"x","product_price":"1"}`, []string{"/user_id unknown"}},
		{`{"user_id":1.5,"product_name":"x","product_price":"1"}`, []string{"/user_id wrong_type"}},
		{`{"user_id":1e3,"product_name":"x","product_price":"1"}`, []string{"/user_id unknown"}},
		{`{"user_id":-5,"product_name":"x","product_price":"1"}`, []string{"/user_id out_of_range"}},
		{`{"user_id":-1e19,"product_name":"x","product_price":"1"}`, []string{"/user_id out_of_range"}},
		{`{"user_id":1e999999999,"product_name":"x","product_price":"1"}`, []string{"/user_id out_of_range"}},
		{`{"user_id":null,"product_name":null,"product_price":null,"product_images":[null],"product_description":null}`, []string{
			"/product_images/0 wrong_type", "/product_name required", "/product_price required", "/user_id required",
		}},
		{`{"user_id":9223372036854775808,"product_name":"x","product_price":"1"}`, []string{"/user_id out_of_range"}},
		{with(`"product_images":[` + many + `]`), []string{"/product_images too_many"}},
		{with(`"product_images":["https://a.example/` + strings.Repeat("a", 2048) + `"]`), []string{"/product_images/0 too_long"}},
		{with(`"product_images":["https:///x"]`), []string{"/product_images/0 invalid_url"}},
		{with(`"product_description":"` + strings.Repeat("a", 10001) + `"`), []string{"/product_description too_long"}},
		{with(`"user_id":1`), []string{"/user_id repeated"}},
	}
}

func wrongPrices() []wrongBody {
	price := func(p string) string { return `{"user_id":1,"product_name":"x","product_price":` + p + `}` }
	return []wrongBody{
		{price(`null`), []string{"/product_price required"}},
		{price(`"` + strings.Repeat("a", 40) + `"`), []string{"/product_price not_a_number"}},
		{price(`[1]`), []string{"/product_price wrong_type"}},
		{price(`""`), []string{"/product_price not_a_number"}},
		{price(`"a"`), []string{"/product_price not_a_number"}},
		{price(`"1,5"`), []string{"/product_price not_a_number"}},
		{price(`" 1"`), []string{"/product_price not_a_number"}},
		{price(`"NaN"`), []string{"/product_price not_a_number"}},
		{price(`"0x10"`), []string{"/product_price not_a_number"}},
		{price(`"+1"`), []string{"/product_price not_a_number"}},
		{price(`1.001`), []string{"/product_price too_precise"}},
		{price(`10000000000`), []string{"/product_price out_of_range"}},
		{price(`1e999999999`), []string{"/product_price out_of_range"}},
		{price(`"1e-999999999"`), []string{"/product_price out_of_range"}},
		{price(`"1e99999999999999999999"`), []string{"/product_price out_of_range"}},
		{price(strings.Repeat("9", 33)), []string{"/product_price out_of_range"}},
	}
}

func testCreateProductWrongFieldsAreBounded(t *testing.T) {
	t.Parallel()
	a := start(t)
	body := `{"product_images":[` + strings.Repeat("1,", 200_000) + `1],"` + strings.Repeat("k", 1000) + `":1`
	for i := range 2000 {
		body += fmt.Sprintf(`,"x%d":1`, i)
	}
	p := wants(t, a.post("/products", body+`}`), 422, "invalid_fields")
	if got := len(p.Errors); got != 100 {
		t.Errorf("%d fields are listed, want 100", got)
	}
	p = wants(t, a.post("/users", `{"`+strings.Repeat("é", 1000)+`":1}`), 422, "invalid_fields")
	if got := len(p.Errors[0].Pointer); got > 110 {
		t.Errorf("a pointer has %d bytes", got)
	}
}

func testCreateProductInvalidJSON(t *testing.T) {
	t.Parallel()
	a := start(t)
	for body, detail := range map[string]string{
		``:                         "at byte 0",
		`{`:                        "at byte 1",
		`{"user_id":1,}`:           "at byte 14",
		`{"user_id":01}`:           "at byte 13",
		`{} {}`:                    "at byte 4",
		"{\"name\":\"\xff\"}":      "UTF-8",
		strings.Repeat("[", 1<<15): "depth",
	} {
		p := wants(t, a.post("/products", body), 400, "bad_json")
		if !strings.Contains(p.Detail, detail) {
			t.Errorf("%.30q: detail %q does not say %q", body, p.Detail, detail)
		}
	}
}

func testCreateProductMediaTypes(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	const body = `{"user_id":1,"product_name":"x","product_price":"1"}`
	for _, headers := range [][]string{
		{}, {"Content-Type: text/plain"}, {"Content-Type: application/problem+json"},
		{"Content-Type: multipart/form-data; boundary=x"}, {"Content-Type: application/x-www-form-urlencoded"},
		{"Content-Type: application/json;;"},
		{"Content-Type: application/json; charset=utf-16"}, {"Content-Type: application/json; charset=ISO-8859-1"},
		{`Content-Type: application/json; charset=""`},
		{"Content-Type: application/json", "Content-Encoding: identity", "Content-Encoding: gzip"},
		{"Content-Type: application/json", "Content-Encoding: gzip"},
	} {
		wants(t, a.do(http.MethodPost, "/products", body, headers...), 415, "unsupported_media_type")
	}
	for _, headers := range [][]string{
		{"Content-Type: application/json; charset=utf-8"}, {`Content-Type: application/json; charset="UTF-8"`},
		{"Content-Type: application/json; charset=utf8"}, {"Content-Type: application/json; profile=x"},
		{"Content-Type: application/json", "Content-Encoding: Identity"},
		{"Content-Type: application/json; charset=utf-8"}, {"Content-Type: APPLICATION/JSON"},
		{"Content-Type: application/json", "Content-Encoding: identity"},
	} {
		if got := a.do(http.MethodPost, "/products", body, headers...); got.status != 201 {
			t.Errorf("%v: %d %s", headers, got.status, got.body)
		}
	}
}

func TestGetProduct(t *testing.T) {
	t.Parallel()
	t.Run("unknown_id", testGetProductUnknownID)
	t.Run("if_none_match", testGetProductIfNoneMatch)
	t.Run("if_none_match_lines_are_one_list", testGetProductIfNoneMatchLinesAreOneList)
}

func testGetProductUnknownID(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("x", "1")
	for _, id := range []string{"2", "0", "-1", "+1", "01", "abc", "1.0", "1%20", "9223372036854775808"} {
		wants(t, a.get("/products/"+id), 404, "product_not_found")
	}
}

func testGetProductIfNoneMatch(t *testing.T) {
	t.Parallel()
	a := start(t)
	etag := a.product("x", "1").header.Get("ETag")
	for seen, want := range map[string]int{
		etag: 304, "W/" + etag: 304, "*": 304, `"a", "b,c" ,` + etag: 304, `W/"a",W/` + etag + `, "c"`: 304, `"",` + etag: 304,
		`"a"`: 200, etag[:len(etag)-1]: 200, strings.Trim(etag, `"`): 200, `"a", b, ` + etag: 200, `"` + etag: 200,
	} {
		got := a.get("/products/1", "If-None-Match: "+seen)
		if got.status != want {
			t.Errorf("If-None-Match: %s: got %d, want %d", seen, got.status, want)
		}
		if got.header.Get("ETag") != etag || got.header.Get("Cache-Control") != "private, no-cache" {
			t.Errorf("If-None-Match: %s: headers %v", seen, got.header)
		}
		if want == 304 && (got.body != "" || got.header.Get("Content-Type") != "" || got.header.Get("Content-Length") != "") {
			t.Errorf("304 has a body or a body's headers: %v %q", got.header, got.body)
		}
	}
}

func testGetProductIfNoneMatchLinesAreOneList(t *testing.T) {
	t.Parallel()
	a := start(t)
	etag := a.product("x", "1").header.Get("ETag")
	for _, row := range []struct {
		lines []string
		want  int
	}{
		{[]string{`"a"`, etag}, 304},
		{[]string{etag, `"a"`}, 304},
		{[]string{`"a", "b"`, `"c"`, "W/" + etag}, 304},
		{[]string{``, etag}, 304},
		{[]string{`"a"`, `"b"`}, 200},
		{[]string{`"a"`, `*`}, 200},
	} {
		var headers []string
		for _, line := range row.lines {
			headers = append(headers, "If-None-Match: "+line)
		}
		if got := a.get("/products/1", headers...); got.status != row.want {
			t.Errorf("%q: got %d, want %d", row.lines, got.status, row.want)
		}
	}
}

func testResponseHeadersHeadEqualsGet(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.product("x", "1")
	for _, path := range []string{"/products/1", "/products/9", "/products?user_id=1", "/users/1", "/healthz", "/nowhere"} {
		get, head := a.get(path, "X-Request-Id: same"), a.do(http.MethodHead, path, "", "X-Request-Id: same")
		if head.status != get.status || head.body != "" {
			t.Errorf("%s: HEAD %d %q, GET %d", path, head.status, head.body, get.status)
		}
		if got, want := head.header.Get("Content-Length"), fmt.Sprint(len(get.body)); got != want {
			t.Errorf("%s: HEAD says %s bytes, GET has %s", path, got, want)
		}
		for _, name := range []string{"ETag", "Content-Type", "Cache-Control"} {
			if head.header.Get(name) != get.header.Get(name) {
				t.Errorf("%s: %s is %q with HEAD, %q with GET", path, name, head.header.Get(name), get.header.Get(name))
			}
		}
	}
}

func TestTraceparent(t *testing.T) {
	t.Parallel()
	t.Run("only_valid_is_passed_on", testTraceparentOnlyValidIsPassedOn)
}

func testTraceparentOnlyValidIsPassedOn(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	const valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, row := range []struct{ sent, want string }{
		{valid, valid},
		{"cc" + valid[2:] + "-future", "cc" + valid[2:]},
		{"", ""},
		{"ff" + valid[2:], ""},
		{valid + "-more", ""},
		{"cc" + valid[2:] + "x", ""},
		{strings.ToUpper(valid), ""},
		{"00-00000000000000000000000000000000-b7ad6b7169203331-01", ""},
		{"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", ""},
		{strings.ReplaceAll(valid, "-", "_"), ""},
		{valid[:54], ""},
	} {
		a.post("/products", `{"user_id":1,"product_name":"x","product_price":"1"}`, "traceparent: "+row.sent)
		if got := a.catalog.traces[len(a.catalog.traces)-1]; got != row.want {
			t.Errorf("%s: the catalogue got %q, want %q", row.sent, got, row.want)
		}
	}
}

func TestRequestBuffers(t *testing.T) {
	t.Parallel()
	t.Run("values_are_copied", testRequestBuffersValuesAreCopied)
}

// The arguments of the catalogue must not change when the buffers that they were read from are used for other requests.
// All requests have the same length and differ in every letter, so the test detects every alias.
func testRequestBuffersValuesAreCopied(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.user()
	const letters, rounds = "abcdef12", 50
	trace := func(letter string) string {
		return "00-" + strings.Repeat(letter, 32) + "-" + strings.Repeat(letter, 16) + "-01"
	}
	var all sync.WaitGroup
	for _, each := range letters {
		letter := string(each)
		all.Go(func() {
			for range rounds {
				text := strings.Repeat(letter, 100)
				a.post("/products", `{"user_id":1,"product_name":"`+text+`","product_description":"`+text+`","product_price":"1.1",`+
					`"product_images":["https://`+text[:60]+`.example/"]}`, "traceparent: "+trace(letter), "X-Request-Id: "+text)
				a.get("/products?name="+text+"&sort=price", "X-Request-Id: "+text)
				a.get("/nowhere/"+text, "X-Request-Id: "+text)
			}
		})
	}
	all.Wait()
	seen := textCounts{t: t, times: map[string]int{}}
	a.checkArguments(seen, trace)
	a.checkLog(seen)
	for what, times := range map[string]int{"name": rounds, "description": rounds, "query": rounds, "request id": 3 * rounds} {
		for _, letter := range letters {
			if got := seen.times[what+" "+string(letter)]; got != times {
				t.Errorf("%s of %c was kept %d times, want %d", what, letter, got, times)
			}
		}
	}
}

// textCounts counts texts by their letter. An overwritten text has different letters, or the letter of another request,
// which then has too many.
type textCounts struct {
	t     *testing.T
	times map[string]int
}

func (c textCounts) add(what, text string) {
	if text != strings.Repeat(text[:1], 100) {
		c.t.Errorf("%s has become %q", what, text)
	}
	c.times[what+" "+text[:1]]++
}

// checkArguments checks and counts what the catalogue got.
func (a *api) checkArguments(seen textCounts, trace func(letter string) string) {
	a.t.Helper()
	for i, in := range a.catalog.inputs {
		seen.add("name", in.Name)
		seen.add("description", in.Description)
		if want := "https://" + in.Name[:60] + ".example/"; in.ImageURLs[0] != want {
			a.t.Errorf("url has become %q, want %q", in.ImageURLs[0], want)
		}
		if got, want := a.catalog.traces[i], trace(in.Name[:1]); got != want {
			a.t.Errorf("traceparent has become %q, want %q", got, want)
		}
	}
	for _, q := range a.catalog.queries {
		seen.add("query", q.Name)
		if q.Sort != catalog.CheapestFirst {
			a.t.Errorf("sort has become %q", q.Sort)
		}
	}
}

// checkLog checks and counts what was logged.
func (a *api) checkLog(seen textCounts) {
	a.t.Helper()
	for _, line := range a.logs.FilterMessage("request").All() {
		fields := line.ContextMap()
		id, _ := fields["request_id"].(string)
		seen.add("request id", id)
		if path, _ := fields["path"].(string); strings.HasPrefix(path, "/nowhere/") && path != "/nowhere/"+id {
			a.t.Errorf("path has become %q, want %q", path, "/nowhere/"+id)
		}
	}
}

func testProblemsUnclassifiedErrorHidesCause(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.catalog.before = func(context.Context) error { return fmt.Errorf("store: %w", errSecret) }
	for _, got := range []answer{
		a.get("/products/1"), a.get("/users/1"), a.get("/products?user_id=1"),
		a.post("/users", `{"name":"a","email":"a@example.com"}`),
		a.post("/products", `{"user_id":1,"product_name":"x","product_price":"1"}`),
	} {
		wants(t, got, 500, "internal_error")
		if strings.Contains(got.body, errSecret.Error()) {
			t.Errorf("the cause is shown: %s", got.body)
		}
	}
}
