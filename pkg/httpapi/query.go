package httpapi

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shopspring/decimal"
	"github.com/valyala/fasthttp"

	"vitrine.io/pkg/catalog"
)

// params is a query string that is being read: like object, it notes what is wrong and goes on. Its values are copies.
type params struct {
	values map[string]string
	wrong  fieldErrors
}

// listParams are the parameters of GET /products.
func listParams() []string {
	return []string{"user_id", "min_price", "max_price", "name", "sort", "limit", "cursor"}
}

// parseQuery reads the parameters of GET /products. An empty parameter is an absent one. All wrong parameters are told at
// once.
func parseQuery(args *fasthttp.Args) (catalog.Query, error) {
	p := readParams(args, listParams())
	q := catalog.Query{
		UserID:   catalog.UserID(p.positive("user_id", "must be a whole number above zero")),
		Name:     p.text("name"),
		MinPrice: p.price("min_price"),
		MaxPrice: p.price("max_price"),
		Sort:     catalog.Sort(p.values["sort"]),
		Limit:    catalog.DefaultLimit,
	}
	if p.values["limit"] != "" {
		q.Limit = int(p.positive("limit", limitDetail))
	}
	switch {
	case p.values["cursor"] != "":
		q = p.resume(q)
	case q.Sort == "":
		q.Sort = catalog.NewestFirst
	}
	return q, p.wrong.merge(p.checked(q)).orNil()
}

// readParams reads the query string: every parameter once, and only those that are known.
func readParams(args *fasthttp.Args, known []string) *params {
	p := &params{values: map[string]string{}}
	for _, name := range known {
		p.values[name] = ""
	}
	seen := map[string]bool{}
	args.VisitAll(func(key, value []byte) {
		name := string(key)
		_, ok := p.values[name]
		switch {
		case len(p.wrong) >= maxFields:
		case !ok:
			p.refuse(pointer(name)[1:], "unknown_parameter", "there is no such parameter")
		case seen[name]:
			p.refuse(name, "repeated", "stands here more than once")
		default:
			p.values[name] = string(value)
		}
		seen[name] = true
	})
	return p
}

func (p *params) refuse(name, code, detail string) {
	p.wrong.add(name, code, detail)
}

// limitDetail is what the catalogue says of a limit that is out of range: one that cannot be read is told the same.
const limitDetail = "a whole number from 1 to 100"

// positive reads a whole number above zero; one that is absent is 0. detail says what it has to be.
func (p *params) positive(name, detail string) int64 {
	text := p.values[name]
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		p.refuse(name, "out_of_range", detail)
		return 0
	}
	return n
}

// text reads text that Postgres can compare.
func (p *params) text(name string) string {
	text := p.values[name]
	if !storable(text) {
		p.refuse(name, "invalid_text", "not valid text")
		return ""
	}
	return text
}

// storable reports whether Postgres takes the text: it knows neither broken UTF-8 nor the character zero.
func storable(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }

// price reads a price; one that is absent is nil.
func (p *params) price(name string) *decimal.Decimal {
	text := p.values[name]
	if text == "" {
		return nil
	}
	price, wrong := parsePrice(text)
	if wrong != nil {
		p.refuse(name, wrong.Code, wrong.Detail)
		return nil
	}
	return &price
}

// resume returns the query of the cursor, with asked's limit. A filter may be repeated beside a cursor, but it must be the
// cursor's: another one would make a list out of two.
func (p *params) resume(asked catalog.Query) catalog.Query {
	q, ok := decodeCursor(p.values["cursor"])
	if !ok {
		p.refuse("cursor", "invalid_cursor", "not a cursor that this API gave")
		return asked
	}
	q.Limit = asked.Limit
	for _, filter := range []struct {
		name string
		same bool
	}{
		{"user_id", asked.UserID == q.UserID},
		{"min_price", samePrice(asked.MinPrice, q.MinPrice)},
		{"max_price", samePrice(asked.MaxPrice, q.MaxPrice)},
		{"name", asked.Name == q.Name},
		{"sort", asked.Sort == q.Sort},
	} {
		if p.values[filter.name] != "" && !filter.same && !p.wrong.has(filter.name) {
			p.refuse(filter.name, "cursor_mismatch", "is not what the cursor was made for")
		}
	}
	return q
}

// checked returns what the catalogue says is wrong with q. Where a parameter could not be read, a harmless value stands in
// for it, so that nothing is said about others because of it.
func (p *params) checked(q catalog.Query) fieldErrors {
	if p.wrong.has("user_id") || p.wrong.has("cursor") {
		q.UserID = 1
	}
	if q.Sort == "" {
		q.Sort = catalog.NewestFirst
	}
	return inQuery(q.Validate())
}

func samePrice(a, b *decimal.Decimal) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(*b)
}
