package storetest

import "vitrine.io/pkg/domain/catalog"

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
