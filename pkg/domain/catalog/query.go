package catalog

import (
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/foundation/fault"
)

// Sort is the order of a list. Every order is total: the id decides between equals.
type Sort string

// The orders.
const (
	NewestFirst        Sort = "-id"
	CheapestFirst      Sort = "price"
	MostExpensiveFirst Sort = "-price"
	DefaultLimit            = 20
	MaxLimit                = 100
	MinNameChars            = 3 // a shorter needle has no trigram, so it would walk the whole table
)

// Query asks for one page of products.
type Query struct {
	UserID   UserID // 0: anyone's
	Name     string // a substring, whatever its case; "": any
	MinPrice *decimal.Decimal
	MaxPrice *decimal.Decimal // both inclusive
	Sort     Sort
	Limit    int     // 1 to MaxLimit
	After    *Cursor // where the page before ended
}

// Cursor is a place in an ordered list: right after this product.
type Cursor struct {
	ID    ProductID
	Price decimal.Decimal
}

// Page is a part of a list.
type Page struct {
	Products []Product
	Next     *Cursor // nil at the end
}

// Validate returns every wrong field of the query, or nil. Paths are the filters' names, such as min_price.
func (q Query) Validate() []fault.Field {
	var check fault.Checker
	letters := utf8.RuneCountInString(q.Name)
	switch {
	case q.UserID == 0 && letters == 0:
		check.Add("user_id", "required", "give user_id, or at least three characters of name")
	case q.UserID == 0 && letters < MinNameChars:
		check.Add("name", "too_short", "without user_id, name needs at least three characters")
	case letters > MaxNameChars:
		check.Add("name", "too_long", "at most 200 characters")
	}
	check.Range(q.MinPrice == nil || q.MaxPrice == nil || !q.MinPrice.GreaterThan(*q.MaxPrice), "min_price",
		"min_price is above max_price")
	switch q.Sort {
	case NewestFirst, CheapestFirst, MostExpensiveFirst:
	default:
		check.Add("sort", "unknown_value", "one of -id, price, -price")
	}
	check.Range(q.Limit >= 1 && q.Limit <= MaxLimit, "limit", "a whole number from 1 to 100")
	return check.Fields()
}
