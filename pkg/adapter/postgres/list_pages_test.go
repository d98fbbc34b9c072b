package postgres_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/test/storetest"
)

func TestList(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "random_filters_match_brute_force", run: pagesBruteForce},
		{name: "wildcards_in_name_are_literal", run: wildcards},
		{name: "name_matches_in_any_case", run: nameCase},
		{name: "price_bounds_are_inclusive", run: priceBounds},
	})
}

// names share substrings, differ in case, and contain the wildcards of LIKE.
var names = []string{
	"Oak table", "oak TABLE lamp", "Table", "100% oak", "100x oak",
	"oak_lamp", "oak-lamp", `back\slash`, "Ölkännchen", "lamp",
}

// needles are substrings of several, one or none of names.
var needles = []string{"", "oak", "OAK", "table", "lamp", "100%", "k_l", `k\s`, "ölk", "absent"}

// stock adds products with few different prices and names, so that filters match several and prices are equal. It returns
// those that are not deleted.
func (f *fixture) stock(count int) []catalog.Product {
	f.Helper()
	owners := []catalog.UserID{f.User().ID, f.User().ID}
	var all []catalog.Product
	for i := range count {
		draft := f.Draft(i % 3)
		draft.UserID, draft.Name = owners[i%7%2], names[i%len(names)]
		draft.Price = decimal.New(int64(i*37%5)*250, -2)
		p := f.Insert(draft)
		if i%9 == 4 {
			f.Delete(p.ID)
			continue
		}
		all = append(all, f.Load(p.ID))
	}
	return all
}

// matching returns by brute force what List returns on one page without a limit.
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
		case catalog.MostExpensiveFirst:
			return -cmp.Or(a.Price.Cmp(b.Price), byID)
		default:
			return -byID
		}
	})
	return found
}

// pages follows Next to the end.
func (f *fixture) pages(q catalog.Query) ([]catalog.Product, error) {
	var found []catalog.Product
	for {
		page, err := f.store.List(f.Context(), q)
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

func pagesBruteForce(f *fixture) {
	all := f.stock(60)
	price := rapid.Custom(func(t *rapid.T) *decimal.Decimal {
		if rapid.Bool().Draw(t, "none") {
			return nil
		}
		d := decimal.New(int64(rapid.IntRange(0, 5).Draw(t, "price"))*250, -2)
		return &d
	})
	sorts := []catalog.Sort{catalog.NewestFirst, catalog.CheapestFirst, catalog.MostExpensiveFirst}
	rapid.Check(f.T, func(t *rapid.T) {
		q := catalog.Query{
			UserID:   rapid.SampledFrom([]catalog.UserID{0, all[0].UserID, all[1].UserID, 404}).Draw(t, "user"),
			Name:     rapid.SampledFrom(needles).Draw(t, "name"),
			MinPrice: price.Draw(t, "min"), MaxPrice: price.Draw(t, "max"),
			Sort:  rapid.SampledFrom(sorts).Draw(t, "sort"),
			Limit: rapid.IntRange(5, 70).Draw(t, "limit"),
		}
		if !catalog.Searchable(q.Name) && q.Name != "" && q.UserID == 0 { // such a name needs a user
			q.UserID = all[0].UserID
		}
		got, err := f.pages(q)
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		if g, w := storetest.Text(got), storetest.Text(matching(all, q)); g != w {
			t.Errorf("got %s\nwant %s", g, w)
		}
	})
}

// search returns the names of the first user's products that a query finds, sorted.
func (f *fixture) search(q catalog.Query) []string {
	f.Helper()
	q.UserID, q.Sort, q.Limit = 1, catalog.NewestFirst, catalog.MaxLimit
	page, err := f.store.List(f.Context(), q)
	f.Must(err, "list")
	found := make([]string, 0, len(page.Products))
	for _, p := range page.Products {
		found = append(found, p.Name)
	}
	slices.Sort(found)
	return found
}

// named adds a product of the first user with a name.
func (f *fixture) named(name, price string) {
	f.Helper()
	draft := f.Draft(0)
	draft.UserID, draft.Name, draft.Price = 1, name, decimal.RequireFromString(price)
	f.Insert(draft)
}

func wildcards(f *fixture) {
	for _, name := range []string{"100%", "1000", `a\b`, "a_b", "axb", "?", "@name"} {
		f.named(name, "1")
	}
	for needle, want := range map[string][]string{
		"0%": {"100%"}, "%": {"100%"}, `\`: {`a\b`}, "_": {"a_b"}, "a_b": {"a_b"}, "?": {"?"}, "@name": {"@name"}, "$1": {},
	} {
		f.Same(f.search(catalog.Query{Name: needle}), want, "names with "+needle)
	}
}

func nameCase(f *fixture) {
	f.named("Große ÖLLAMPE", "1")
	for _, needle := range []string{"große", "öllampe", "ÖlLaMpE", "E Ö"} {
		f.Same(f.search(catalog.Query{Name: needle}), []string{"Große ÖLLAMPE"}, "names with "+needle)
	}
}

func priceBounds(f *fixture) {
	for _, price := range []string{"9.99", "10.00", "10.01", "20.00", "20.01"} {
		f.named(price, price)
	}
	low, high := decimal.RequireFromString("10"), decimal.RequireFromString("20.000")
	f.Same(f.search(catalog.Query{MinPrice: &low, MaxPrice: &high}), []string{"10.00", "10.01", "20.00"}, "10 to 20")
	f.Same(f.search(catalog.Query{MaxPrice: &low}), []string{"10.00", "9.99"}, "up to 10")
}
