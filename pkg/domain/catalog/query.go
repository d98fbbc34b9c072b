package catalog

import (
	"unicode"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/foundation/fault"
)

// Sort is the order of a list. Every order is total: products with equal prices are ordered by id.
type Sort string

// The orders, and the limits of a query.
const (
	NewestFirst        Sort = "-id"
	CheapestFirst      Sort = "price"
	MostExpensiveFirst Sort = "-price"
	DefaultLimit            = 20
	MaxLimit                = 100
	MinNameRun              = 3 // letters or digits in a row; see Searchable
)

// Query selects one page of products.
type Query struct {
	UserID   UserID           // 0: of all users
	Name     string           // a substring, without regard to case; "": any name
	MinPrice *decimal.Decimal // inclusive; nil: none
	MaxPrice *decimal.Decimal // inclusive; nil: none
	Sort     Sort
	Limit    int     // products on the page, from 1 to MaxLimit
	MaxBytes int     // the page ends after the product with which it reaches this size, by Product.Size; 0: no bound
	After    *Cursor // of the page before; nil: the first page
}

// Cursor is a position in an ordered list: directly after this product.
type Cursor struct {
	ID    ProductID
	Price decimal.Decimal
}

// Page is one page of a list of products.
type Page struct {
	Products []Product
	Next     *Cursor // nil on the last page
}

// Validate returns every wrong field of the query, or nil. Paths are the filters' names, such as min_price.
func (q Query) Validate() []fault.Field {
	var check fault.Checker
	switch {
	case q.UserID == 0 && q.Name == "":
		check.Add("user_id", "required", "give user_id, or at least three letters or digits of name")
	case utf8.RuneCountInString(q.Name) > MaxNameChars:
		check.Add("name", "too_long", "at most 200 characters")
	case q.UserID == 0 && !Searchable(q.Name):
		check.Add("name", "too_short", "without user_id, name needs at least three letters or digits in a row")
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

// Searchable reports whether name has at least MinNameRun letters or digits in a row. An index on parts of names, such as
// trigrams, ignores all other characters: without such a run it cannot find name, and every product would have to be read.
// Marks that spell a word, such as the vowels of Thai and Hindi, count as letters.
func Searchable(name string) bool {
	run := 0
	for _, r := range name {
		if !unicode.In(r, unicode.L, unicode.Nl, unicode.Nd, unicode.Other_Alphabetic) {
			run = 0
			continue
		}
		if run++; run == MinNameRun {
			return true
		}
	}
	return false
}
