package catalog_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

func TestCheckProduct(t *testing.T) {
	t.Parallel()
	type in = catalog.NewProductInput
	for name, row := range map[string]struct {
		change func(*in)
		want   []string // "path code"
	}{
		"valid":         {func(*in) {}, nil},
		"no_images":     {func(p *in) { p.ImageURLs = nil }, nil},
		"no_user":       {func(p *in) { p.UserID = 0 }, []string{"user_id required"}},
		"negative_user": {func(p *in) { p.UserID = -5 }, []string{"user_id out_of_range"}},
		"empty_name":    {func(p *in) { p.Name = " " }, []string{"product_name required"}},
		"longest_name":  {func(p *in) { p.Name = strings.Repeat("ä", 200) }, nil},
		"name_too_long": {func(p *in) { p.Name = strings.Repeat("ä", 201) }, []string{"product_name too_long"}},
		"nul_in_name":   {func(p *in) { p.Name = "a\x00" }, []string{"product_name invalid_text"}},
		"invalid_utf8":  {func(p *in) { p.Description = "\xff" }, []string{"product_description invalid_text"}},
		"description_too_long": {
			func(p *in) { p.Description = strings.Repeat("x", 10001) }, []string{"product_description too_long"},
		},
		"no_price":              {func(p *in) { p.PriceSet = false }, []string{"product_price required"}},
		"zero_price":            {func(p *in) { p.Price = decimal.Zero }, nil},
		"highest_price":         {func(p *in) { p.Price = dec("9999999999.99") }, nil},
		"price_too_high":        {func(p *in) { p.Price = dec("10000000000") }, []string{"product_price out_of_range"}},
		"negative_price":        {func(p *in) { p.Price = dec("-0.01") }, []string{"product_price out_of_range"}},
		"three_decimals":        {func(p *in) { p.Price = dec("1.001") }, []string{"product_price too_precise"}},
		"trailing_zero_decimal": {func(p *in) { p.Price = dec("1.010") }, nil},
		"twenty_images":         {func(p *in) { p.ImageURLs = slices.Repeat(p.ImageURLs, 20) }, nil},
		"twenty_one_images": {
			func(p *in) { p.ImageURLs = slices.Repeat(p.ImageURLs, 21) }, []string{"product_images too_many"},
		},
		"all_fields_wrong": {func(p *in) {
			*p = in{ImageURLs: []string{"ok", "https://a.b/c"}}
		}, []string{"user_id required", "product_name required", "product_price required", "product_images[0] invalid_scheme"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := input("https://example.com/a.jpg")
			row.change(&p)
			if got := fieldCodes(catalog.CheckProduct(p)); !slices.Equal(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
			if _, err := catalog.NewProduct(p); (err == nil) != (row.want == nil) {
				t.Errorf("NewProduct: %v", err)
			}
		})
	}
}

func dec(s string) decimal.Decimal { return decimal.RequireFromString(s) }

func fieldCodes(fields []fault.Field) []string {
	var out []string
	for _, f := range fields {
		out = append(out, f.Path+" "+f.Code)
	}
	return out
}

func TestCheckImageURL(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"http://example.com":                      "",
		"HTTPS://example.com:8443/a%20b?c=d#e":    "",
		"http://127.0.0.1/":                       "", // the worker rejects forbidden addresses
		"http://[::1]:80/":                        "",
		"":                                        "required",
		"ftp://example.com/a":                     "invalid_scheme",
		"file:///etc/passwd":                      "invalid_scheme",
		"javascript:alert(1)":                     "invalid_scheme",
		"//example.com/a":                         "invalid_scheme",
		"http:///a":                               "invalid_url",
		"http://":                                 "invalid_url",
		"http://u:p@example.com/":                 "userinfo",
		"http://u@example.com/":                   "userinfo",
		"http://example.com:0/":                   "invalid_url",
		"http://example.com:65536/":               "invalid_url",
		"http://example.com:x/":                   "invalid_url",
		"http://example.com/a b":                  "invalid_url",
		"http://example.com/\n":                   "invalid_url",
		"http://exa\xffmple.com/":                 "invalid_url",
		"http://%zz/":                             "invalid_url",
		"http://a.b/" + strings.Repeat("c", 2037): "",
		"http://a.b/" + strings.Repeat("c", 2038): "too_long",
	} {
		t.Run(raw, func(t *testing.T) {
			t.Parallel()
			got := ""
			if fields := catalog.CheckProduct(input(raw)); len(fields) > 0 {
				got = fields[0].Code
			}
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestCheckUser(t *testing.T) {
	t.Parallel()
	for email, want := range map[string]string{
		"ada@example.com":                       "",
		"ada+tag@sub.example.com":               "",
		"":                                      "required",
		"ada":                                   "invalid_email",
		"Ada <ada@example.com>":                 "invalid_email",
		"ada@example.com\r\nBcc: x@example.com": "invalid_email",
		strings.Repeat("a", 250) + "@b.cd":      "too_long",
	} {
		got := ""
		if fields := catalog.CheckUser("Ada", email); len(fields) > 0 {
			got = fields[0].Code
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", email, got, want)
		}
	}
}

func TestQueryValidate(t *testing.T) {
	t.Parallel()
	low, high := decimal.NewFromInt(1), decimal.NewFromInt(2)
	good := catalog.Query{UserID: 1, Sort: catalog.NewestFirst, Limit: 20}
	for name, row := range map[string]struct {
		change func(*catalog.Query)
		want   []string
	}{
		"user":                  {func(*catalog.Query) {}, nil},
		"user and a short name": {func(q *catalog.Query) { q.Name = "a" }, nil},
		"three letters":         {func(q *catalog.Query) { q.UserID, q.Name = 0, "äöü" }, nil},
		"two letters":           {func(q *catalog.Query) { q.UserID, q.Name = 0, "äö" }, []string{"name too_short"}},
		"three other characters": {
			func(q *catalog.Query) { q.UserID, q.Name = 0, "!!!" }, []string{"name too_short"},
		},
		"two words of two letters": {
			func(q *catalog.Query) { q.UserID, q.Name = 0, "ab cd" }, []string{"name too_short"},
		},
		"neither user nor name": {func(q *catalog.Query) { q.UserID = 0 }, []string{"user_id required"}},
		"name too long":         {func(q *catalog.Query) { q.Name = strings.Repeat("x", 201) }, []string{"name too_long"}},
		"equal prices":          {func(q *catalog.Query) { q.MinPrice, q.MaxPrice = &low, &low }, nil},
		"prices crossed": {
			func(q *catalog.Query) { q.MinPrice, q.MaxPrice = &high, &low }, []string{"min_price out_of_range"},
		},
		"unknown sort":   {func(q *catalog.Query) { q.Sort = "name" }, []string{"sort unknown_value"}},
		"no limit":       {func(q *catalog.Query) { q.Limit = 0 }, []string{"limit out_of_range"}},
		"limit too high": {func(q *catalog.Query) { q.Limit = 101 }, []string{"limit out_of_range"}},
	} {
		q := good
		row.change(&q)
		if got := fieldCodes(q.Validate()); !slices.Equal(got, row.want) {
			t.Errorf("%s: got %q, want %q", name, got, row.want)
		}
	}
}

func TestSearchable(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"": false, "ab": false, "abc": true, "a1b": true, "123": true, "a!b": false, "a!bcd": true, "12 34": false, "!!!": false,
		"%%%": false, "a_b": false, "кофе": true, "чай": true, "до": false, "珈琲": false, "コーヒー": true, "커피잔": true,
		"เก้าอี้": true, "ตู้เย็น": false, "कुर्सी": true, "\xff\xfe\xfd": false, "½½½": false, "Ⅷ世紀": true,
	} {
		if got := catalog.Searchable(name); got != want {
			t.Errorf("%q: got %t, want %t", name, got, want)
		}
	}
}

func TestImageStatus(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		images []catalog.Status
		want   catalog.ImageStatus
	}{
		{nil, catalog.AllReady},
		{[]catalog.Status{catalog.Ready, catalog.Ready}, catalog.AllReady},
		{[]catalog.Status{catalog.Ready, catalog.Failed, catalog.Pending}, catalog.AnyPending},
		{[]catalog.Status{catalog.Failed, catalog.Failed}, catalog.AllFailed},
		{[]catalog.Status{catalog.Failed, catalog.Ready}, catalog.Partial},
	} {
		var p catalog.Product
		for _, s := range row.images {
			p.Images = append(p.Images, catalog.Image{Status: s})
		}
		if got := p.ImageStatus(); got != row.want {
			t.Errorf("%v: got %s, want %s", row.images, got, row.want)
		}
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	classes := map[media.Class]int{}
	for code, class := range media.Codes() {
		if code.Class() != class || class < media.Permanent || class > media.Deferrable {
			t.Errorf("%s is of class %d, the table says %d", code, code.Class(), class)
		}
		if s := string(code); s != strings.ToLower(s) || strings.ContainsAny(s, " -") {
			t.Errorf("%q is not a code", s)
		}
		classes[class]++
	}
	if len(classes) != 3 {
		t.Errorf("got %v, want all three classes used", classes)
	}
	if got := media.Code("unknown").Class(); got != media.Deferrable {
		t.Errorf("an unknown code is of class %d, want Deferrable: no attempt may be counted", got)
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	cause := errors.New("refused")
	f := media.Fail(media.ConnectFailed, "no connection", cause)
	wrapped := errors.Join(errors.New("fetch"), f)
	if media.FailureOf(wrapped) != f || !errors.Is(wrapped, cause) || media.FailureOf(cause) != nil {
		t.Error("FailureOf and errors.Is must see through wrapping")
	}
	if got, want := f.Error(), "connect_failed: no connection: refused"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	if got := (catalog.Config{}).Validate(); len(got) != 3 {
		t.Errorf("got %v, want three wrong fields", got)
	}
	if got := (catalog.Config{LoadTimeout: 1, InvalidateTimeout: 1, DeletionGrace: 1}).Validate(); got != nil {
		t.Errorf("got %v, want none", got)
	}
}
