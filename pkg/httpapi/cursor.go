package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/catalog"
)

// cursorVersion is raised when cursors change; older ones are then refused, and the client begins again.
const cursorVersion = 1

// cursorDTO is a place in a list, with the list's filters and order, so that no page can be asked with others. It is opaque,
// not secret: it says nothing that its holder has not asked for, and a forged one is only another query.
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

// encodeCursor returns the cursor of the page that begins after next: base64url of JSON and its CRC-32, which is there to
// notice a cursor that was cut or mangled on its way.
func encodeCursor(q catalog.Query, next catalog.Position) string {
	body, err := encodeJSON(cursorDTO{
		Version: cursorVersion, UserID: int64(q.UserID), Name: q.Name, MinPrice: q.MinPrice, MaxPrice: q.MaxPrice,
		Sort: string(q.Sort), ID: int64(next.ID), Price: next.Price,
	})
	if err != nil {
		panic(fmt.Sprintf("httpapi: a cursor cannot be encoded: %v", err)) // it holds only strings and numbers
	}
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(body, crc32.ChecksumIEEE(body)))
}

// decodeCursor returns the query that a cursor holds, without a limit, or false if it is not one of ours.
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
	if c.Version != cursorVersion || c.ID < 1 || c.UserID < 0 || !storable(c.Name) {
		return catalog.Query{}, false
	}
	for _, price := range []*decimal.Decimal{c.MinPrice, c.MaxPrice, &c.Price} {
		if price != nil && !fitsPrice(*price) {
			return catalog.Query{}, false
		}
	}
	return catalog.Query{
		UserID: catalog.UserID(c.UserID), Name: c.Name, MinPrice: c.MinPrice, MaxPrice: c.MaxPrice, Sort: catalog.Sort(c.Sort),
		After: &catalog.Position{ID: catalog.ProductID(c.ID), Price: c.Price},
	}, true
}

// fitsPrice reports whether a number is one that parsePrice could have read: anybody can compute a checksum.
func fitsPrice(d decimal.Decimal) bool {
	const digits = maxPriceLength + maxPriceExponent
	return d.Exponent() <= digits && d.Exponent() >= -digits && d.NumDigits() <= digits
}
