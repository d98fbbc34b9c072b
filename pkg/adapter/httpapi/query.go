package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/shopspring/decimal"
	"github.com/valyala/fasthttp"
	"golang.org/x/text/unicode/norm"

	"vitrine.io/pkg/domain/catalog"
)

// params reads a query string. Like fieldReader, it records a wrong parameter and continues. Its values are copies.
type params struct {
	values map[string]string
	wrong  fieldErrors
}

// listParams are the parameters of GET /products.
func listParams() []string {
	return []string{"user_id", "min_price", "max_price", "name", "sort", "limit", "cursor"}
}

// parseQuery reads the parameters of GET /products. An empty parameter counts as absent. The error lists all wrong
// parameters.
func parseQuery(args *fasthttp.Args) (catalog.Query, error) {
	p := readParams(args, listParams())
	q := catalog.Query{
		UserID:   catalog.UserID(p.positive("user_id", "a whole number from 1 to 9223372036854775807")),
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

func (p *params) refuse(name, code, detail string) { p.wrong.add(inQuery, name, code, detail) }

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
			p.refuse(name, "repeated", "is given more than once")
		default:
			p.values[name] = string(value)
		}
		seen[name] = true
	})
	return p
}

// limitDetail is what the catalogue says of a limit that is out of range. One that is too large for the catalogue gets the
// same detail.
const limitDetail = "a whole number from 1 to 100"

// plainWhole is a whole number in its only spelling: without a plus, leading zeros, a fraction or an exponent.
var plainWhole = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

// positive reads a whole number above zero, and returns 0 if the parameter is absent. detail is the text for one that is out
// of range.
func (p *params) positive(name, detail string) int64 {
	text := p.values[name]
	if text == "" {
		return 0
	}
	if !plainWhole.MatchString(text) {
		p.refuse(name, "not_a_number", "must be a whole number, in digits without a plus or leading zeros")
		return 0
	}
	n, ok := parseID(text)
	if !ok {
		p.refuse(name, "out_of_range", detail)
		return 0
	}
	return n
}

// text reads a text, in the normal form in which the catalogue stores texts. A text that Postgres cannot store is a wrong
// parameter.
func (p *params) text(name string) string {
	text := p.values[name]
	if !storable(text) {
		p.refuse(name, "invalid_text", "not valid text")
		return ""
	}
	return norm.NFC.String(text)
}

// storable reports whether Postgres accepts the text. It rejects invalid UTF-8 and the character zero.
func storable(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }

// price reads a price, and returns nil if the parameter is absent.
func (p *params) price(name string) *decimal.Decimal {
	text := p.values[name]
	if text == "" {
		return nil
	}
	price, wrong := parseNumber(text)
	if wrong != nil {
		p.refuse(name, wrong.Code, wrong.Detail)
		return nil
	}
	return &price
}

// resume returns the query of the cursor, with requested's limit. A filter may be sent together with a cursor, but must
// have the cursor's value; another value would mix two lists.
func (p *params) resume(requested catalog.Query) catalog.Query {
	q, ok := decodeCursor(p.values["cursor"])
	if !ok {
		p.refuse("cursor", "invalid_cursor", "not a cursor of this API")
		return requested
	}
	q.Limit = requested.Limit
	for _, filter := range []struct {
		name string
		same bool
	}{
		{"user_id", requested.UserID == q.UserID},
		{"min_price", samePrice(requested.MinPrice, q.MinPrice)},
		{"max_price", samePrice(requested.MaxPrice, q.MaxPrice)},
		{"name", requested.Name == q.Name},
		{"sort", requested.Sort == q.Sort},
	} {
		if p.values[filter.name] != "" && !filter.same && !p.wrong.has(inQuery, filter.name) {
			p.refuse(filter.name, "cursor_mismatch", "differs from the value in the cursor")
		}
	}
	return q
}

// checked returns the fields of q that the catalogue rejects. A parameter that could not be read is replaced by a valid
// value before, so that it causes no second error.
func (p *params) checked(q catalog.Query) fieldErrors {
	if p.wrong.has(inQuery, "user_id") || p.wrong.has(inQuery, "cursor") {
		q.UserID = 1
	}
	if q.Sort == "" {
		q.Sort = catalog.NewestFirst
	}
	return queryFields(q.Validate())
}

func samePrice(a, b *decimal.Decimal) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(*b)
}

// cursorVersion is incremented when the format of cursors changes. Older cursors are then rejected, and the client starts
// from the first page.
const cursorVersion = 1

// cursorDTO is a position in a list, with the list's filters and order, so that all pages have the same. It is opaque,
// but not secret: it contains only values that the client has sent or received, and a forged cursor is only another
// query.
type cursorDTO struct {
	Version  int              `json:"v"`
	UserID   int64            `json:"u,omitempty"`
	Name     string           `json:"n,omitempty"`
	MinPrice *decimal.Decimal `json:"a,omitempty"`
	MaxPrice *decimal.Decimal `json:"b,omitempty"`
	Sort     string           `json:"s"`
	ID       int64            `json:"i"`
	Price    decimal.Decimal  `json:"p"`
}

// encodeCursor returns the cursor of the page that begins after next: base64url of JSON and its CRC-32. The CRC-32
// detects a cursor that was truncated or changed in transit.
func encodeCursor(q catalog.Query, next catalog.Cursor) string {
	body, err := encodeJSON(cursorDTO{
		Version: cursorVersion, UserID: int64(q.UserID), Name: q.Name, MinPrice: q.MinPrice, MaxPrice: q.MaxPrice,
		Sort: string(q.Sort), ID: int64(next.ID), Price: next.Price,
	})
	if err != nil {
		panic(fmt.Sprintf("httpapi: a cursor cannot be encoded: %v", err)) // it holds only strings and numbers
	}
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(body, crc32.ChecksumIEEE(body)))
}

// decodeCursor returns the query in a cursor, without a limit, or false if the cursor is not valid.
func decodeCursor(text string) (catalog.Query, bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < crc32.Size {
		return catalog.Query{}, false
	}
	body, sum := raw[:len(raw)-crc32.Size], raw[len(raw)-crc32.Size:]
	if binary.BigEndian.Uint32(sum) != crc32.ChecksumIEEE(body) {
		return catalog.Query{}, false
	}
	var c cursorDTO
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil || dec.More() {
		return catalog.Query{}, false
	}
	if c.Version != cursorVersion || c.ID < 1 || c.UserID < 0 || c.Sort == "" || !storable(c.Name) {
		return catalog.Query{}, false
	}
	for _, price := range []*decimal.Decimal{c.MinPrice, c.MaxPrice, &c.Price} {
		if price != nil && !fitsPrice(*price) {
			return catalog.Query{}, false
		}
	}
	return catalog.Query{
		UserID: catalog.UserID(c.UserID), Name: c.Name, MinPrice: c.MinPrice, MaxPrice: c.MaxPrice, Sort: catalog.Sort(c.Sort),
		After: &catalog.Cursor{ID: catalog.ProductID(c.ID), Price: c.Price},
	}, true
}

// fitsPrice reports whether parseNumber could have read the number. It is checked because a client can compute the
// checksum of a forged cursor.
func fitsPrice(d decimal.Decimal) bool {
	const digits = maxNumberLength + maxNumberExponent
	return d.Exponent() <= digits && d.Exponent() >= -digits && d.NumDigits() <= digits
}
