package httpapi_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/url"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// page is a list as a client reads it.
type page struct {
	Products   []json.RawMessage `json:"products"`
	NextCursor *string           `json:"next_cursor"`
}

func (a *api) list(query string) (page, answer) {
	a.t.Helper()
	got := a.get("/products?" + query)
	var p page
	if err := json.Unmarshal([]byte(got.body), &p); err != nil || got.status != 200 {
		a.t.Fatalf("list %s: %d %s: %v", query, got.status, got.body, err)
	}
	return p, got
}

// walk follows the Link headers from query to the end and returns the products' ids.
func (a *api) walk(query string) (ids []int, pages int) {
	a.t.Helper()
	for {
		p, got := a.list(query)
		pages++
		for _, raw := range p.Products {
			var product struct{ ID int }
			if err := json.Unmarshal(raw, &product); err != nil {
				a.t.Fatal(err)
			}
			ids = append(ids, product.ID)
		}
		link := got.header.Get("Link")
		if p.NextCursor == nil {
			if link != "" {
				a.t.Errorf("the last page links to %s", link)
			}
			return ids, pages
		}
		target, ok := strings.CutSuffix(link, `>; rel="next"`)
		if !ok || !strings.HasPrefix(target, "</products?") || !strings.Contains(target, *p.NextCursor) {
			a.t.Fatalf("Link is %q, cursor %q", link, *p.NextCursor)
		}
		query = strings.TrimPrefix(target, "</products?")
	}
}

func seeded(t *testing.T) *api {
	t.Helper()
	a := start(t)
	for i, price := range []string{"3.00", "1.50", "3", "2", "1.5", "10", "0"} {
		a.product(fmt.Sprintf("Lamp %d", i+1), price, "https://a.example/x.jpg")
	}
	return a
}

func TestListProducts(t *testing.T) {
	t.Parallel()
	t.Run("every_order", testListProductsEveryOrder)
	t.Run("empty_array", testListProductsEmptyArray)
	t.Run("items_equal_get", testListProductsItemsEqualGet)
	t.Run("wrong_parameters_are_listed", testListProductsWrongParametersAreListed)
	t.Run("wrong_parameters_are_bounded", testListProductsWrongParametersAreBounded)
	t.Run("broad_search_names_its_parameter", testListProductsBroadSearchNamesItsParameter)
	t.Run("refused_lists_are_503_and_no_error_in_the_log", testListProductsRefusedLists)
}

func testListProductsBroadSearchNamesItsParameter(t *testing.T) {
	t.Parallel()
	a := start(t)
	a.catalog.before = func(context.Context) error {
		return fmt.Errorf("list: %w", fault.InvalidFields([]fault.Field{{Path: "name", Code: "too_broad", Detail: "longer"}}))
	}
	wrong := wants(t, a.get("/products?user_id=1&name=ab"), 422, "invalid_fields")
	if got := fieldsOf(wrong); !slices.Equal(got, []string{"name too_broad"}) {
		t.Errorf("got %v, want the parameter without a slash", got)
	}
}

func testListProductsRefusedLists(t *testing.T) {
	t.Parallel()
	a := start(t)
	for _, code := range []string{"lists_busy", "list_timeout"} {
		a.catalog.before = func(context.Context) error { return fault.New(fault.Unavailable, code, "later") }
		got := a.get("/products?user_id=1")
		wants(t, got, 503, code)
		if got.header.Get("Retry-After") == "" {
			t.Errorf("%s has no Retry-After", code)
		}
		lines := a.logs.FilterField(zapString("code", code)).All()
		if len(lines) != 1 || lines[0].Level != zap.InfoLevel {
			t.Errorf("%s: got the lines %v, want one at info level", code, lines)
		}
	}
}

func testListProductsEveryOrder(t *testing.T) {
	t.Parallel()
	a := seeded(t)
	for _, row := range []struct {
		query string
		want  []int
		pages int
	}{
		{"user_id=1", []int{7, 6, 5, 4, 3, 2, 1}, 1},
		{"user_id=1&limit=7", []int{7, 6, 5, 4, 3, 2, 1}, 1},
		{"user_id=1&limit=3&sort=-id", []int{7, 6, 5, 4, 3, 2, 1}, 3},
		{"user_id=1&limit=2&sort=price", []int{7, 2, 5, 4, 1, 3, 6}, 4},
		{"user_id=1&limit=1&sort=-price", []int{6, 3, 1, 4, 5, 2, 7}, 7},
		{"name=lAmP&limit=3&min_price=1.5&max_price=3&sort=price", []int{2, 5, 4, 1, 3}, 2},
		{"name=Lamp%203", []int{3}, 1},
		{"user_id=1&name=&min_price=&max_price=&sort=&limit=&cursor=", []int{7, 6, 5, 4, 3, 2, 1}, 1},
		{"user_id=9", nil, 1},
	} {
		ids, pages := a.walk(row.query)
		if !slices.Equal(ids, row.want) || pages != row.pages {
			t.Errorf("%s: got %v in %d pages, want %v in %d", row.query, ids, pages, row.want, row.pages)
		}
	}
}

func testListProductsEmptyArray(t *testing.T) {
	t.Parallel()
	a := start(t)
	if got := a.get("/products?user_id=1"); got.body != `{"products":[],"next_cursor":null}` {
		t.Errorf("got %s", got.body)
	}
}

func testListProductsItemsEqualGet(t *testing.T) {
	t.Parallel()
	a := seeded(t)
	p, _ := a.list("user_id=1&limit=3")
	for i, raw := range p.Products {
		if want := a.get(fmt.Sprintf("/products/%d", 7-i)).body; string(raw) != want {
			t.Errorf("item %d is\n%s\nGET returns\n%s", i, raw, want)
		}
	}
}

func TestCursor(t *testing.T) {
	t.Parallel()
	t.Run("filters_are_kept", testCursorFiltersAreKept)
	t.Run("damaged_or_forged", testCursorDamagedOrForged)
}

func testCursorFiltersAreKept(t *testing.T) {
	t.Parallel()
	a := seeded(t)
	p, _ := a.list("user_id=1&name=lamp&min_price=1.50&max_price=10&sort=price&limit=2")
	cursor := "cursor=" + *p.NextCursor
	same := "&user_id=1&name=lamp&min_price=1.5&max_price=10.00&sort=price"
	for _, query := range []string{cursor, cursor + "&limit=100", cursor + same} {
		a.list(query)
		q := a.catalog.queries[len(a.catalog.queries)-1]
		if q.UserID != 1 || q.Name != "lamp" || q.MinPrice.String() != "1.5" || q.MaxPrice.String() != "10" ||
			q.Sort != catalog.CheapestFirst || q.After == nil || q.After.ID != 5 || q.After.Price.String() != "1.5" {
			t.Errorf("%s was read as %+v", query, q)
		}
	}
	other := "&user_id=2&name=Lamp&min_price=1&max_price=9&sort=-price&limit=0"
	wrong := wants(t, a.get("/products?"+cursor+other), 422, "invalid_fields")
	want := []string{
		"limit out_of_range", "max_price cursor_mismatch", "min_price cursor_mismatch", "name cursor_mismatch",
		"sort cursor_mismatch", "user_id cursor_mismatch",
	}
	if got := fieldsOf(wrong); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	wrong = wants(t, a.get("/products?"+cursor+"&min_price=cheap"), 422, "invalid_fields")
	if got := fieldsOf(wrong); !slices.Equal(got, []string{"min_price not_a_number"}) {
		t.Errorf("a filter that cannot be read: %v", got)
	}
	p, _ = a.list("user_id=1&limit=2")
	wrong = wants(t, a.get("/products?cursor="+*p.NextCursor+"&min_price=1"), 422, "invalid_fields")
	if got := fieldsOf(wrong); !slices.Equal(got, []string{"min_price cursor_mismatch"}) {
		t.Errorf("a filter that is not in the cursor: %v", got)
	}
}

// withChecksum returns a cursor of that JSON with a valid checksum.
func withChecksum(body string) string {
	sum := crc32.ChecksumIEEE([]byte(body))
	return base64.RawURLEncoding.EncodeToString(append([]byte(body), byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)))
}

func testCursorDamagedOrForged(t *testing.T) {
	t.Parallel()
	a := seeded(t)
	p, _ := a.list("user_id=1&limit=2")
	good := *p.NextCursor
	cursors := []string{
		"x", "!!!!", "AAAA", good[1:], good[:len(good)-1], good + "A", strings.ToUpper(good),
		withChecksum(``), withChecksum(`{}`), withChecksum(`[]`), withChecksum(`{"v":1,"u":1,"s":"-id","i":0,"p":"1"}`),
		withChecksum(`{"v":2,"u":1,"s":"-id","i":1,"p":"1"}`), withChecksum(`{"v":1,"u":-1,"s":"-id","i":1,"p":"1"}`),
		withChecksum(`{"v":1,"u":1,"s":"-id","i":1,"p":"1e999999"}`),
		withChecksum(`{"v":1,"u":1,"a":"1e-9999","s":"-id","i":1,"p":"1"}`),
		withChecksum(`{"v":1,"u":1,"n":"a\u0000b","s":"-id","i":1,"p":"1"}`),
		withChecksum(`{"v":1,"u":1,"s":"-id","i":1,"p":"1","x":0}`),
		withChecksum(`{"v":1,"u":1,"s":"-id","i":1,"p":"1"} {}`),
	}
	for i := range good {
		other := byte('A')
		if good[i] == 'A' {
			other = 'B'
		}
		cursors = append(cursors, good[:i]+string(other)+good[i+1:])
	}
	for _, cursor := range cursors {
		got := a.get("/products?limit=1000&cursor=" + cursor)
		p := wants(t, got, 422, "invalid_fields")
		if got := fieldsOf(p); !slices.Equal(got, []string{"cursor invalid_cursor", "limit out_of_range"}) {
			t.Errorf("%s: %v", cursor, got)
		}
	}
	forged := withChecksum(`{"v":1,"s":"id","i":1,"p":"1"}`) // a valid encoding of an invalid query
	wrong := wants(t, a.get("/products?cursor="+forged), 422, "invalid_fields")
	if got := fieldsOf(wrong); !slices.Equal(got, []string{"sort unknown_value", "user_id required"}) {
		t.Errorf("forged: %v", got)
	}
}

func testListProductsWrongParametersAreListed(t *testing.T) {
	t.Parallel()
	a := start(t)
	for _, row := range []struct {
		query string
		want  []string
	}{
		{"", []string{"user_id required"}},
		{"name=ab", []string{"name too_short"}},
		{"user_id=abc&name=ab", []string{"user_id not_a_number"}},
		{"user_id=0&min_price=a&max_price=1e999999999&name=%00abc&sort=id&limit=101&page=2", []string{
			"limit out_of_range", "max_price out_of_range", "min_price not_a_number", "name invalid_text", "page unknown_parameter",
			"sort unknown_value", "user_id out_of_range",
		}},
		{"user_id=1&name=%ff%fe", []string{"name invalid_text"}},
		{"user_id=1&limit=x", []string{"limit not_a_number"}},
		{"user_id=%2B1&limit=007", []string{"limit not_a_number", "user_id not_a_number"}},
		{"user_id=+1&limit=1.0", []string{"limit not_a_number", "user_id not_a_number"}},
		{"user_id=01&limit=1e1", []string{"limit not_a_number", "user_id not_a_number"}},
		{"user_id=-5&limit=-0", []string{"limit not_a_number", "user_id out_of_range"}},
		{"user_id=1&min_price=%2B1&max_price=007", []string{"max_price not_a_number", "min_price not_a_number"}},
		{"user_id=1&limit=0", []string{"limit out_of_range"}},
		{"user_id=1&limit=-5&sort=PRICE", []string{"limit out_of_range", "sort unknown_value"}},
		{"user_id=1&user_id=1", []string{"user_id repeated"}},
		{"user_id=&user_id=1", []string{"user_id repeated"}},
		{"user_id=1&min_price=5&max_price=4.99", []string{"min_price out_of_range"}},
		{"user_id=1&name=" + url.QueryEscape(strings.Repeat("é", 201)), []string{"name too_long"}},
		{"user_id=1&User_id=1&a~b/c=1", []string{"User_id unknown_parameter", "a~0b~1c unknown_parameter"}},
		{"user_id=99999999999999999999", []string{"user_id out_of_range"}},
	} {
		p := wants(t, a.get("/products?"+row.query), 422, "invalid_fields")
		if got := fieldsOf(p); !slices.Equal(got, row.want) {
			t.Errorf("%s: got %v, want %v", row.query, got, row.want)
		}
	}
	if len(a.catalog.queries) != 0 {
		t.Errorf("%d queries reached the catalogue", len(a.catalog.queries))
	}
}

func testListProductsWrongParametersAreBounded(t *testing.T) {
	t.Parallel()
	a := start(t)
	var query strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&query, "&x%d=1", i)
	}
	p := wants(t, a.get("/products?user_id=1"+query.String()), 422, "invalid_fields")
	if got := len(p.Errors); got != 100 {
		t.Errorf("%d fields are listed, want 100", got)
	}
}
