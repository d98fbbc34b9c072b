package storetest

import (
	"strings"

	"vitrine.io/pkg/domain/catalog"
)

func pageEndsWithItsProducts(f *Fixture) {
	user := f.User().ID
	var created []catalog.Product
	for range 4 {
		draft := f.Draft(1)
		draft.UserID = user
		created = append(created, f.Insert(draft))
	}
	q := catalog.Query{UserID: user, Sort: catalog.NewestFirst, Limit: 4}
	page, err := f.Store.List(f.Context(), q)
	f.Must(err, "list")
	if len(page.Products) != 4 || page.Next != nil {
		f.Errorf("got %d products and next %v, want 4 and none", len(page.Products), page.Next)
	}
	q.Limit = 3
	page, err = f.Store.List(f.Context(), q)
	f.Must(err, "list")
	want := &catalog.Cursor{ID: created[1].ID, Price: created[1].Price}
	f.Same(page.Next, want, "where the next page begins")
	q.UserID = user + 1000
	page, err = f.Store.List(f.Context(), q)
	f.Must(err, "list")
	if len(page.Products) != 0 || page.Products == nil || page.Next != nil {
		f.Errorf("got %+v, want an empty page", page)
	}
}

func pageEndsWithItsBytes(f *Fixture) {
	user := f.User().ID
	var created []catalog.Product
	for range 5 {
		draft := f.Draft(1)
		draft.UserID, draft.Description = user, strings.Repeat("x", 10_000)
		created = append(created, f.Insert(draft))
	}
	for maxBytes, want := range map[int]int{1: 1, 10_000: 1, 20_000: 2, 45_000: 5, 1_000_000: 5} {
		q := catalog.Query{UserID: user, Sort: catalog.NewestFirst, Limit: 100, MaxBytes: maxBytes}
		page, err := f.Store.List(f.Context(), q)
		f.Must(err, "list")
		if len(page.Products) != want || (page.Next == nil) != (want == 5) {
			f.Errorf("%d bytes: got %d products and next %v, want %d", maxBytes, len(page.Products), page.Next, want)
			continue
		}
		var found int
		for pages := 0; ; pages++ { // every page has a product, and all pages have all products
			found += len(page.Products)
			if page.Next == nil || pages > len(created) {
				break
			}
			q.After = page.Next
			page, err = f.Store.List(f.Context(), q)
			f.Must(err, "list the next page")
		}
		if found != len(created) {
			f.Errorf("%d bytes: got %d products on all pages, want %d", maxBytes, found, len(created))
		}
	}
}
