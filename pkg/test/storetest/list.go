package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"vitrine.io/pkg/catalog"
)

func lists() []test {
	return []test{
		{name: "pages of random filters hold every product once, in order", run: pagesBruteForce},
		{name: "wildcards in a name are text", run: wildcards},
		{name: "a name is found whatever its case", run: nameCase},
		{name: "price bounds are inclusive", run: priceBounds},
		{name: "a page ends where its products end", run: lastPage},
	}
}

// names share substrings, differ in case, and hold what LIKE would take for wildcards.
var names = []string{
	"Oak table", "oak TABLE lamp", "Table", "100% oak", "100x oak",
	"oak_lamp", "oak-lamp", `back\slash`, "Ölkännchen", "lamp",
}

// needles are found in some, one or none of names.
var needles = []string{"", "oak", "OAK", "table", "lamp", "100%", "k_l", `k\s`, "ölk", "nowhere"}

// stock adds products with few prices and few names, so that filters and ties hit. It returns them as Product reads them.
func (b *bench) stock(count int) []catalog.Product {
	b.Helper()
	owners := []catalog.UserID{b.user().ID, b.user().ID}
	var all []catalog.Product
	for i := range count {
		draft := b.draft(i % 3)
		draft.UserID, draft.Name = owners[i%7%2], names[i%len(names)]
		draft.Price = decimal.New(int64(i*37%5)*250, -2)
		p := b.insert(draft)
		if i%9 == 4 {
			b.remove(p.ID)
			continue
		}
		all = append(all, b.load(p.ID))
	}
	return all
}

// matching is List without pages, by brute force.
func matching(all []catalog.Product, q catalog.Query) []catalog.Product {
	var found []catalog.Product
	for _, p := range all {
		if (q.UserID == 0 || p.UserID == q.UserID) &&
			strings.Contains(strings.ToLower(p.Name), strings.ToLower(q.Name)) &&
			(q.MinPrice == nil || p.Price.GreaterThanOrEqual(*q.MinPrice)) &&
			(q.MaxPrice == nil || p.Price.LessThanOrEqual(*q.MaxPrice)) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b catalog.Product) int {
		byID := cmp.Compare(a.ID, b.ID)
		switch q.Sort {
		case catalog.CheapestFirst:
			return cmp.Or(a.Price.Cmp(b.Price), byID)
		case catalog.DearestFirst:
			return -cmp.Or(a.Price.Cmp(b.Price), byID)
		default:
			return -byID
		}
	})
	return found
}

// pages follows Next to the end.
func (b *bench) pages(q catalog.Query) ([]catalog.Product, error) {
	var found []catalog.Product
	for {
		page, err := b.Store.List(b.ctx(), q)
		if err != nil {
			return nil, err
		}
		found = append(found, page.Products...)
		switch {
		case page.Next == nil:
			return found, nil
		case len(page.Products) != q.Limit:
			return nil, fmt.Errorf("a page of %d with a next one has %d products", q.Limit, len(page.Products))
		}
		q.After = page.Next
	}
}

func pagesBruteForce(b *bench) {
	all := b.stock(60)
	price := rapid.Custom(func(t *rapid.T) *decimal.Decimal {
		if rapid.Bool().Draw(t, "none") {
			return nil
		}
		d := decimal.New(int64(rapid.IntRange(0, 5).Draw(t, "price"))*250, -2)
		return &d
	})
	sorts := []catalog.Sort{catalog.NewestFirst, catalog.CheapestFirst, catalog.DearestFirst}
	rapid.Check(b.T, func(t *rapid.T) {
		q := catalog.Query{
			UserID:   rapid.SampledFrom([]catalog.UserID{0, all[0].UserID, all[1].UserID, 404}).Draw(t, "user"),
			Name:     rapid.SampledFrom(needles).Draw(t, "name"),
			MinPrice: price.Draw(t, "min"), MaxPrice: price.Draw(t, "max"),
			Sort:  rapid.SampledFrom(sorts).Draw(t, "sort"),
			Limit: rapid.IntRange(5, 70).Draw(t, "limit"),
		}
		got, err := b.pages(q)
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		if g, w := text(got), text(matching(all, q)); g != w {
			t.Errorf("got %s\nwant %s", g, w)
		}
	})
}

// search returns the names of what a query finds, sorted.
func (b *bench) search(q catalog.Query) []string {
	b.Helper()
	q.Sort, q.Limit = catalog.NewestFirst, catalog.MaxLimit
	page, err := b.Store.List(b.ctx(), q)
	b.must(err, "list")
	found := make([]string, 0, len(page.Products))
	for _, p := range page.Products {
		found = append(found, p.Name)
	}
	slices.Sort(found)
	return found
}

// named adds a product with a name.
func (b *bench) named(name, price string) {
	b.Helper()
	draft := b.draft(0)
	draft.Name, draft.Price = name, decimal.RequireFromString(price)
	b.insert(draft)
}

func wildcards(b *bench) {
	for _, name := range []string{"100%", "1000", `a\b`, "a_b", "axb", "?", "@name"} {
		b.named(name, "1")
	}
	for needle, want := range map[string][]string{
		"0%": {"100%"}, "%": {"100%"}, `\`: {`a\b`}, "_": {"a_b"}, "a_b": {"a_b"}, "?": {"?"}, "@name": {"@name"}, "$1": {},
	} {
		b.same(b.search(catalog.Query{Name: needle}), want, "names with "+needle)
	}
}

func nameCase(b *bench) {
	b.named("Große ÖLLAMPE", "1")
	for _, needle := range []string{"große", "öllampe", "ÖlLaMpE", "E Ö"} {
		b.same(b.search(catalog.Query{Name: needle}), []string{"Große ÖLLAMPE"}, "names with "+needle)
	}
}

func priceBounds(b *bench) {
	for _, price := range []string{"9.99", "10.00", "10.01", "20.00", "20.01"} {
		b.named(price, price)
	}
	low, high := decimal.RequireFromString("10"), decimal.RequireFromString("20.000")
	b.same(b.search(catalog.Query{MinPrice: &low, MaxPrice: &high}), []string{"10.00", "10.01", "20.00"}, "10 to 20")
	b.same(b.search(catalog.Query{MaxPrice: &low}), []string{"10.00", "9.99"}, "up to 10")
}

func lastPage(b *bench) {
	user := b.user().ID
	var made []catalog.Product
	for range 4 {
		draft := b.draft(1)
		draft.UserID = user
		made = append(made, b.insert(draft))
	}
	q := catalog.Query{UserID: user, Sort: catalog.NewestFirst, Limit: 4}
	page, err := b.Store.List(b.ctx(), q)
	b.must(err, "list")
	if len(page.Products) != 4 || page.Next != nil {
		b.Errorf("got %d products and next %v, want 4 and none", len(page.Products), page.Next)
	}
	q.Limit = 3
	page, err = b.Store.List(b.ctx(), q)
	b.must(err, "list")
	want := &catalog.Position{ID: made[1].ID, Price: made[1].Price}
	b.same(page.Next, want, "where the next page begins")
	q.UserID = user + 1000
	page, err = b.Store.List(b.ctx(), q)
	b.must(err, "list")
	if len(page.Products) != 0 || page.Products == nil || page.Next != nil {
		b.Errorf("got %+v, want an empty page", page)
	}
}
