package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"testing"
)

const (
	listedProducts = 1_000_000
	productsOfUser = 100
	listReaders    = 4 // clients at a time
)

// listedName is the name of a listed product: every second one is classic, one in fifty thousand a rarissimum.
func listedName(i int) string {
	kind, what := "Modern", "kettle"
	if i%2 == 0 {
		kind = "Classic"
	}
	if i%50_000 == 7 {
		what = "rarissimum"
	}
	return fmt.Sprintf("%s %s of %s, number %d", kind, what, []string{"steel", "copper", "glass", "oak", "clay"}[i/2%5], i)
}

// lists are the questions, each made from a number so that one rarely comes twice. The names are the table's lines.
var lists = []struct {
	name  string
	query func(user int) string
}{
	{"one_user's_newest", func(user int) string { return fmt.Sprintf("user_id=%d", user) }},
	{"one_user's_by_price,_between_two_prices", func(user int) string {
		return fmt.Sprintf("user_id=%d&min_price=200&max_price=700.50&sort=price", user)
	}},
	{"one_user's_by_name", func(user int) string { return fmt.Sprintf("user_id=%d&name=CLASSIC", user) }},
	{"a_rare_name", func(int) string { return "name=rarissimum" }},
	{"a_rare_name_by_price", func(int) string { return "name=rarissimum&sort=-price" }},
	{"a_common_name", func(int) string { return "name=classic" }},
	{"a_common_name_by_price", func(int) string { return "name=classic&sort=price" }},
	{"a_name_that_is_nowhere", func(user int) string { return url.Values{"name": {fmt.Sprintf("nowhere %d", user)}}.Encode() }},
}

// listPath returns the path of the i-th question of its kind. The users come in no order.
func listPath(query func(user int) string, users int) func(i int) string {
	return func(i int) string { return "/products?" + query(i*7919%users+1) }
}

// BenchmarkListProducts is GET /products over HTTP, a page of twenty, at a million products with a picture each.
func BenchmarkListProducts(b *testing.B) {
	const users = listedProducts / productsOfUser
	s := newStage(b)
	s.plant(b, crop{users: users, products: listedProducts, pictures: 1, name: listedName})
	readers := newLoad(b, s.server.Addr(), listReaders)
	for _, list := range lists {
		b.Run(list.name, func(b *testing.B) {
			path := listPath(list.query, users)
			read := side{run: func(n int) (sample, error) { return readers.run(n, path) }}
			read.round(b, min(b.N, 20))
			b.ResetTimer()
			var t tally
			t.add(b.N, read.round(b, b.N))
			t.report(b, "")
		})
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	const users, products = 5, 100 // twenty of each user's
	s := newStage(t)
	s.plant(t, crop{users: users, products: products, pictures: 1, name: listedName})
	reader := newLoad(t, s.server.Addr(), 1)
	want := map[string]int{"a_rare_name": 1, "a_rare_name_by_price": 1, "a_name_that_is_nowhere": 0}
	for _, list := range lists {
		body, err := reader[0].get(listPath(list.query, users)(3))
		must(t, err)
		var page struct {
			Products []json.RawMessage `json:"products"`
		}
		must(t, json.Unmarshal(body, &page))
		n, exact := want[list.name]
		if got := len(page.Products); exact && got != n || !exact && got == 0 {
			t.Errorf("%s: got %d products, want %d (0: any)", list.name, got, n)
		}
	}
}
