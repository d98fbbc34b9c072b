package main_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	chaos "vitrine.io/pkg/test/chaos"
	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

const (
	base  = "http://127.0.0.1:1/1/0/"
	api   = "http://127.0.0.1:2"
	media = "http://pictures.example/x"
)

// healthy is the world after a run in which a picture was made at the second try, another could not be, and one product
// was deleted.
func healthy() *chaos.Snapshot {
	deleted := "2026-03-01T12:30:45Z"
	good, bad := base+"1/"+imageserver.JPEG, base+"2/"+imageserver.Missing
	renditions := []chaos.RenditionRow{
		{Name: "thumb", Format: "webp", Width: 120, Height: 80, Bytes: 900, Key: "products/1/1/2-b/thumb.webp"},
		{Name: "card", Format: "jpeg", Width: 300, Height: 200, Bytes: 5000, Key: "products/1/1/2-b/card.jpg", Default: true},
	}
	w := &chaos.Snapshot{
		PublicURL: media,
		Products: []chaos.ProductRow{
			{
				ID: 1, UserID: 7, Name: "lamp, changed", Description: "token-1", Price: "12.50", URLs: []string{good, bad},
				Compressed: []string{renditions[1].Key}, Version: 4, Revision: 2,
			},
			{ID: 2, UserID: 7, Name: "chair", Description: "token-2", Price: "3", Version: 2, Revision: 2, DeletedAt: &deleted},
		},
		Images: []chaos.ImageRow{
			{
				ID: 1, ProductID: 1, SourceURL: good, Status: "ready", JobState: "idle", FencingToken: 2, Attempts: 1,
				Prefix: "products/1/1/2-b/", Width: 640, Height: 480, Renditions: renditions,
			},
			{ID: 2, ProductID: 1, Position: 1, SourceURL: bad, Status: "failed", JobState: "idle", FencingToken: 1, ErrorCode: "http_status"},
		},
		Deletions: []chaos.DeletionRow{{Prefix: "products/1/1/1-a/", ImageID: 1}},
		Objects: map[string]chaos.Object{
			renditions[0].Key:             {Bytes: 900, Format: "webp", Width: 120, Height: 80},
			renditions[1].Key:             {Bytes: 5000, Format: "jpeg", Width: 300, Height: 200},
			"products/1/1/1-a/thumb.webp": {Bytes: 900, Format: "webp", Width: 120, Height: 80},
			".vitrine/installation":       {Bytes: 36, Err: "not a picture"},
		},
		AfterDeletions: map[string]chaos.Object{renditions[0].Key: {}, renditions[1].Key: {}, ".vitrine/installation": {}},
		Expectations: []*chaos.Expectation{
			{
				Token: "token-1", UserID: 7, Key: "key-1", ID: 1, IDs: []int64{1, 1}, Accepted: true, Name: "lamp", Price: "12.5",
				Images: []string{good, bad}, MaybeNames: []string{"lamp, changed"}, Version: 4,
			},
			{Token: "token-2", UserID: 7, ID: 2, IDs: []int64{2}, Accepted: true, Name: "chair", Price: "3.00", Deleted: true, Version: 1},
			{Token: "token-3", UserID: 7, Name: "never came"},
		},
		Events: []chaos.Event{
			{ID: "d1", Type: "image.dead", ProductID: 1, ImageID: 2, FencingToken: 1, Code: "http_status"},
			{ID: "d1", Type: "image.dead", ProductID: 1, ImageID: 2, FencingToken: 1, Code: "http_status"},
			{ID: "e-again", Type: "product.changed", ProductID: 2, Version: 2, Deleted: true},
			{ID: "e-again", Type: "product.changed", ProductID: 2, Version: 2, Deleted: true},
			{ID: "e-other", Type: "product.changed", ProductID: 2, Version: 1},
		},
	}
	for v := int64(1); v <= 4; v++ {
		w.Events = append(w.Events, chaos.Event{ID: fmt.Sprint("e", v), Type: "product.changed", ProductID: 1, Version: v})
	}
	w.Changes = changes(w)
	answers(w)
	return w
}

// changes is how the rows of a healthy world became what they are.
func changes(w *chaos.Snapshot) []chaos.Change {
	first, second := "ticket-1", "ticket-2"
	product := w.Products[0]
	steps := []chaos.ProductRow{product, product, product, product}
	for i := range steps {
		steps[i].Version = int64(i + 1)
		if i < 3 {
			steps[i].Compressed = nil
		}
		if i < 1 {
			steps[i].Name, steps[i].Revision = "lamp", 1
		}
	}
	var all []chaos.Change
	all = append(all, chaos.Change{Kind: "products", Op: "INSERT", NewProduct: &steps[0]})
	for i := 1; i < len(steps); i++ {
		all = append(all, chaos.Change{Kind: "products", Op: "UPDATE", OldProduct: &steps[i-1], NewProduct: &steps[i]})
	}
	image := func(change func(*chaos.ImageRow)) *chaos.ImageRow {
		row := chaos.ImageRow{
			ID: 1, ProductID: 1, SourceURL: w.Images[0].SourceURL, Status: "pending", JobState: "queued", JobID: &first,
		}
		change(&row)
		return &row
	}
	lives := []*chaos.ImageRow{
		image(func(*chaos.ImageRow) {}),
		image(func(r *chaos.ImageRow) { r.JobState, r.FencingToken, r.Prefix = "processing", 1, "products/1/1/1-a/" }),
		image(func(r *chaos.ImageRow) { r.FencingToken, r.Prefix, r.JobID = 1, "products/1/1/1-a/", &second }), // retried
		image(func(r *chaos.ImageRow) {
			r.JobState, r.FencingToken, r.Prefix, r.JobID = "processing", 2, "products/1/1/2-b/", &second
		}),
		&w.Images[0],
	}
	failing := w.Images[1]
	third := "ticket-3"
	queued, processing := failing, failing
	queued.Status, queued.JobState, queued.FencingToken, queued.ErrorCode, queued.JobID = "pending", "queued", 0, "", &third
	processing.Status, processing.JobState, processing.ErrorCode, processing.JobID = "pending", "processing", "", &third
	for _, life := range [][]*chaos.ImageRow{lives, {&queued, &processing, &w.Images[1]}} {
		all = append(all, chaos.Change{Kind: "images", Op: "INSERT", NewImage: life[0]})
		for i := 1; i < len(life); i++ {
			all = append(all, chaos.Change{Kind: "images", Op: "UPDATE", OldImage: life[i-1], NewImage: life[i]})
		}
	}
	return all
}

// answers is what an API says about a healthy world.
func answers(w *chaos.Snapshot) {
	p := w.Products[0]
	said := client.Product{
		ID: 1, UserID: 7, Name: p.Name, Description: p.Description, Price: "12.50", Sources: p.URLs, Version: 4,
		Compressed: []string{media + "/" + p.Compressed[0]},
	}
	for _, img := range w.Images {
		one := client.Image{ID: img.ID, SourceURL: img.SourceURL, Status: img.Status}
		for range img.Renditions {
			one.Renditions = append(one.Renditions, client.Rendition{})
		}
		if img.ErrorCode != "" {
			one.Error = &client.ImageError{Code: img.ErrorCode}
		}
		said.Images = append(said.Images, one)
	}
	body, err := json.Marshal(said)
	if err != nil {
		panic(err)
	}
	w.Responses = []chaos.ProductResponse{{API: api, ID: 1, Status: 200, Product: said, Body: body}, {API: api, ID: 2, Status: 404}}
	w.Lists = []chaos.ListResponse{{API: api, UserID: 7, Items: []json.RawMessage{body}}}
}

func TestAHealthyWorldPasses(t *testing.T) {
	t.Parallel()
	for _, f := range chaos.Check(healthy()) {
		t.Error(f)
	}
}

// key is an object of a healthy world.
const key = "products/1/1/2-b/card.jpg"

func TestEachRuleSeesWhatItIsFor(t *testing.T) {
	t.Parallel()
	deleted := "2026-03-01T12:30:45Z"
	ticket := "ticket-1"
	last := func(w *chaos.Snapshot) *chaos.Change { return &w.Changes[8] } // the picture becomes ready
	cases := []struct {
		rule, what string
		corrupt    func(*chaos.Snapshot)
	}{
		{"nothing waits any more", "a parked row", func(w *chaos.Snapshot) { w.Outbox, w.Parked = 1, 1 }},
		{"every accepted product exists", "no row", func(w *chaos.Snapshot) { w.Products = w.Products[1:] }},
		{"every accepted product exists", "deleted by nobody", func(w *chaos.Snapshot) { w.Products[0].DeletedAt = &deleted }},
		{"every accepted product exists", "a deletion undone", func(w *chaos.Snapshot) { w.Products[1].DeletedAt = nil }},
		{"every accepted product exists", "another's id", func(w *chaos.Snapshot) { w.Products[0].Description = "token-9" }},
		{"a request with a key makes one product", "two rows", func(w *chaos.Snapshot) {
			twin := w.Products[0]
			twin.ID = 3
			w.Products = append(w.Products, twin)
		}},
		{"a request with a key makes one product", "two answers", func(w *chaos.Snapshot) { w.Expectations[0].IDs = []int64{1, 3} }},
		{"a request with a key makes one product", "no row", func(w *chaos.Snapshot) { w.Products = w.Products[1:] }},
		{"an acknowledged change stays", "a lost name", func(w *chaos.Snapshot) { w.Expectations[0].MaybeNames = nil }},
		{"an acknowledged change stays", "a lost price", func(w *chaos.Snapshot) { w.Expectations[0].Price = "12.51" }},
		{"an acknowledged change stays", "lost pictures", func(w *chaos.Snapshot) { w.Expectations[0].Images = nil }},
		{"an acknowledged change stays", "a lost version", func(w *chaos.Snapshot) { w.Expectations[0].Version = 5 }},
		{"every picture ends", "in work", func(w *chaos.Snapshot) { w.Images[0].JobState = "processing" }},
		{"every picture ends", "pending and forgotten", func(w *chaos.Snapshot) { w.Images[1].Status = "pending" }},
		{"every picture ends", "no reason", func(w *chaos.Snapshot) { w.Images[1].ErrorCode = "" }},
		{"every picture ends", "ready with nothing", func(w *chaos.Snapshot) { w.Images[0].Renditions = nil }},
		{"every picture ends", "a ticket left", func(w *chaos.Snapshot) { w.Images[0].JobID = &ticket }},
		{"a picture is what its source deserves", "a picture of nothing", func(w *chaos.Snapshot) { w.Images[0].SourceURL = base + imageserver.Text }},
		{"a picture is what its source deserves", "a good one failed", func(w *chaos.Snapshot) { w.Images[1].SourceURL = base + imageserver.PNG }},
		{"the product repeats what its pictures say", "an old key", func(w *chaos.Snapshot) { w.Products[0].Compressed[0] = "products/1/1/1-a/card.jpg" }},
		{"the product repeats what its pictures say", "another source", func(w *chaos.Snapshot) { w.Images[0].SourceURL = base + "9/" + imageserver.JPEG }},
		{"the product repeats what its pictures say", "a gap", func(w *chaos.Snapshot) { w.Images[1].Position = 2 }},
		{"every rendition is stored and decodes", "no object", func(w *chaos.Snapshot) { delete(w.Objects, key) }},
		{"every rendition is stored and decodes", "half an object", func(w *chaos.Snapshot) { w.Objects[key] = chaos.Object{Err: "unexpected EOF"} }},
		{"every rendition is stored and decodes", "another size", func(w *chaos.Snapshot) {
			w.Objects[key] = chaos.Object{Bytes: 5000, Format: "jpeg", Width: 300, Height: 201}
		}},
		{"no object without a row or an intent", "an orphan", func(w *chaos.Snapshot) { w.Deletions = nil }},
		{"when all intents have come due, only what rows name is left", "an orphan", func(w *chaos.Snapshot) {
			w.AfterDeletions["products/1/1/1-a/thumb.webp"] = chaos.Object{}
		}},
		{"when all intents have come due, only what rows name is left", "too much deleted", func(w *chaos.Snapshot) { delete(w.AfterDeletions, key) }},
		{"versions only grow, one by one", "back", func(w *chaos.Snapshot) { w.Changes[2].NewProduct.Version = 1 }},
		{"versions only grow, one by one", "two at once", func(w *chaos.Snapshot) { w.Changes[3].NewProduct.Version = 9 }},
		{"versions only grow, one by one", "a revision back", func(w *chaos.Snapshot) { w.Changes[2].OldProduct.Revision = 3 }},
		{"versions only grow, one by one", "a change in silence", func(w *chaos.Snapshot) { w.Changes[3].NewProduct.Version = 3 }},
		{"versions only grow, one by one", "a fence back", func(w *chaos.Snapshot) { last(w).OldImage.FencingToken = 3 }},
		{"each version is told once", "never told", func(w *chaos.Snapshot) { w.Events = w.Events[:len(w.Events)-1] }},
		{"each version is told once", "told as two events", func(w *chaos.Snapshot) {
			w.Events = append(w.Events, chaos.Event{ID: "e9", Type: "product.changed", ProductID: 1, Version: 2})
		}},
		{"each version is told once", "told before its time", func(w *chaos.Snapshot) {
			w.Events = append(w.Events, chaos.Event{ID: "e9", Type: "product.changed", ProductID: 1, Version: 5})
		}},
		{"each version is told once", "of nobody", func(w *chaos.Snapshot) {
			w.Events = append(w.Events, chaos.Event{ID: "e9", Type: "product.changed", ProductID: 9, Version: 1})
		}},
		{"each death is told once", "never told", func(w *chaos.Snapshot) { w.Events = w.Events[2:] }},
		{"each death is told once", "two events", func(w *chaos.Snapshot) { w.Events[1].ID = "d2" }},
		{"each death is told once", "another reason", func(w *chaos.Snapshot) { w.Events[0].Code, w.Events[1].Code = "corrupt", "corrupt" }},
		{"each death is told once", "of the living", func(w *chaos.Snapshot) {
			w.Events = append(w.Events, chaos.Event{ID: "d3", Type: "image.dead", ImageID: 1, FencingToken: 2, Code: "timeout"})
		}},
		{"each death is told once", "an unreadable record", func(w *chaos.Snapshot) {
			w.Events = append(w.Events, chaos.Event{ID: "d4", Type: "record.undecodable", Reason: "no headers"})
		}},
		{"no ticket has two effects", "spent twice", func(w *chaos.Snapshot) {
			w.Changes = append(w.Changes, w.Changes[8])
		}},
		{"no ticket has two effects", "risen from the dead", func(w *chaos.Snapshot) { last(w).NewImage.JobID = &ticket }},
		{"no ticket has two effects", "a record that came again was worked on", func(w *chaos.Snapshot) {
			again := w.Images[0]
			again.JobState, again.FencingToken, again.Prefix = "processing", 3, "products/1/1/3-c/"
			w.Changes = append(w.Changes, chaos.Change{Kind: "images", Op: "UPDATE", OldImage: &w.Images[0], NewImage: &again})
		}},
		{"no ticket has two effects", "shared", func(w *chaos.Snapshot) {
			w.Changes[9].NewImage.JobID, w.Changes[10].OldImage.JobID = w.Changes[6].NewImage.JobID, w.Changes[6].NewImage.JobID
		}},
		{"only who holds the picture publishes", "an attempt that was overtaken", func(w *chaos.Snapshot) { last(w).OldImage.Prefix = "products/1/1/3-c/" }},
		{"only who holds the picture publishes", "nobody at work", func(w *chaos.Snapshot) { last(w).OldImage.JobState = "queued" }},
		{"only who holds the picture publishes", "objects of two attempts", func(w *chaos.Snapshot) {
			w.Images[0].Renditions[1].Key = "products/1/1/1-a/card.jpg"
		}},
		{"both APIs answer what Postgres holds", "an old version", func(w *chaos.Snapshot) { w.Responses[0].Product.Version = 3 }},
		{"both APIs answer what Postgres holds", "another name", func(w *chaos.Snapshot) { w.Responses[0].Product.Name = "lamp" }},
		{"both APIs answer what Postgres holds", "another picture", func(w *chaos.Snapshot) { w.Responses[0].Product.Images[1].Status = "pending" }},
		{"both APIs answer what Postgres holds", "gone", func(w *chaos.Snapshot) { w.Responses[0].Status = 404 }},
		{"both APIs answer what Postgres holds", "not gone", func(w *chaos.Snapshot) { w.Responses[1].Status = 200 }},
		{"lists hold what there is", "one is missing", func(w *chaos.Snapshot) { w.Lists[0].Items = nil }},
		{"lists hold what there is", "an old one", func(w *chaos.Snapshot) { w.Lists[0].Items[0] = json.RawMessage(`{"id":1}`) }},
		{"lists hold what there is", "no list", func(w *chaos.Snapshot) { w.Lists[0].Err = "503" }},
	}
	tested := map[string]bool{}
	for _, c := range cases {
		tested[c.rule] = true
		t.Run(c.rule+": "+c.what, func(t *testing.T) {
			t.Parallel()
			w := healthy()
			c.corrupt(w)
			for _, f := range chaos.Check(w) {
				if f.Rule == c.rule && strings.HasPrefix(f.String(), c.rule+": ") {
					return
				}
			}
			t.Errorf("it does not see it; all that is found is %q", chaos.Check(w))
		})
	}
	for _, rule := range chaos.Rules() {
		if !tested[rule.Name] {
			t.Errorf("no test for %q", rule.Name)
		}
	}
}
