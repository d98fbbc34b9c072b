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
	snap := &chaos.Snapshot{
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
		snap.Events = append(snap.Events, chaos.Event{ID: fmt.Sprint("e", v), Type: "product.changed", ProductID: 1, Version: v})
	}
	snap.Changes = changes(snap)
	answers(snap)
	return snap
}

// changes is how the rows of a healthy world became what they are.
func changes(snap *chaos.Snapshot) []chaos.Change {
	first, second := "ticket-1", "ticket-2"
	product := snap.Products[0]
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
			ID: 1, ProductID: 1, SourceURL: snap.Images[0].SourceURL, Status: "pending", JobState: "queued", JobID: &first,
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
		&snap.Images[0],
	}
	failing := snap.Images[1]
	third := "ticket-3"
	queued, processing := failing, failing
	queued.Status, queued.JobState, queued.FencingToken, queued.ErrorCode, queued.JobID = "pending", "queued", 0, "", &third
	processing.Status, processing.JobState, processing.ErrorCode, processing.JobID = "pending", "processing", "", &third
	for _, life := range [][]*chaos.ImageRow{lives, {&queued, &processing, &snap.Images[1]}} {
		all = append(all, chaos.Change{Kind: "images", Op: "INSERT", NewImage: life[0]})
		for i := 1; i < len(life); i++ {
			all = append(all, chaos.Change{Kind: "images", Op: "UPDATE", OldImage: life[i-1], NewImage: life[i]})
		}
	}
	return all
}

// answers is what an API says about a healthy world.
func answers(snap *chaos.Snapshot) {
	p := snap.Products[0]
	said := client.Product{
		ID: 1, UserID: 7, Name: p.Name, Description: p.Description, Price: "12.50", Sources: p.URLs, Version: 4,
		Compressed: []string{media + "/" + p.Compressed[0]},
	}
	for _, img := range snap.Images {
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
	snap.Responses = []chaos.ProductResponse{{API: api, ID: 1, Status: 200, Product: said, Body: body}, {API: api, ID: 2, Status: 404}}
	snap.Lists = []chaos.ListResponse{{API: api, UserID: 7, Items: []json.RawMessage{body}}}
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
	last := func(snap *chaos.Snapshot) *chaos.Change { return &snap.Changes[8] } // the picture becomes ready
	cases := []struct {
		rule, what string
		corrupt    func(*chaos.Snapshot)
	}{
		{"the outbox is empty", "a parked row", func(snap *chaos.Snapshot) { snap.Outbox, snap.Parked = 1, 1 }},
		{"accepted products exist", "no row", func(snap *chaos.Snapshot) { snap.Products = snap.Products[1:] }},
		{"accepted products exist", "deleted by nobody", func(snap *chaos.Snapshot) { snap.Products[0].DeletedAt = &deleted }},
		{"accepted products exist", "a deletion undone", func(snap *chaos.Snapshot) { snap.Products[1].DeletedAt = nil }},
		{"accepted products exist", "another's id", func(snap *chaos.Snapshot) { snap.Products[0].Description = "token-9" }},
		{"an idempotency key creates one product", "two rows", func(snap *chaos.Snapshot) {
			twin := snap.Products[0]
			twin.ID = 3
			snap.Products = append(snap.Products, twin)
		}},
		{"an idempotency key creates one product", "two answers", func(snap *chaos.Snapshot) { snap.Expectations[0].IDs = []int64{1, 3} }},
		{"an idempotency key creates one product", "no row", func(snap *chaos.Snapshot) { snap.Products = snap.Products[1:] }},
		{"acknowledged changes persist", "a lost name", func(snap *chaos.Snapshot) { snap.Expectations[0].MaybeNames = nil }},
		{"acknowledged changes persist", "a lost price", func(snap *chaos.Snapshot) { snap.Expectations[0].Price = "12.51" }},
		{"acknowledged changes persist", "lost pictures", func(snap *chaos.Snapshot) { snap.Expectations[0].Images = nil }},
		{"acknowledged changes persist", "a lost version", func(snap *chaos.Snapshot) { snap.Expectations[0].Version = 5 }},
		{"images reach a final state", "in work", func(snap *chaos.Snapshot) { snap.Images[0].JobState = "processing" }},
		{"images reach a final state", "pending and forgotten", func(snap *chaos.Snapshot) { snap.Images[1].Status = "pending" }},
		{"images reach a final state", "no reason", func(snap *chaos.Snapshot) { snap.Images[1].ErrorCode = "" }},
		{"images reach a final state", "ready with nothing", func(snap *chaos.Snapshot) { snap.Images[0].Renditions = nil }},
		{"images reach a final state", "a ticket left", func(snap *chaos.Snapshot) { snap.Images[0].JobID = &ticket }},
		{"image status matches its source", "a picture of nothing", func(snap *chaos.Snapshot) { snap.Images[0].SourceURL = base + imageserver.Text }},
		{"image status matches its source", "a good one failed", func(snap *chaos.Snapshot) { snap.Images[1].SourceURL = base + imageserver.PNG }},
		{"product row matches its image rows", "an old key", func(snap *chaos.Snapshot) { snap.Products[0].Compressed[0] = "products/1/1/1-a/card.jpg" }},
		{"product row matches its image rows", "another source", func(snap *chaos.Snapshot) { snap.Images[0].SourceURL = base + "9/" + imageserver.JPEG }},
		{"product row matches its image rows", "a gap", func(snap *chaos.Snapshot) { snap.Images[1].Position = 2 }},
		{"renditions are stored and decode", "no object", func(snap *chaos.Snapshot) { delete(snap.Objects, key) }},
		{"renditions are stored and decode", "half an object", func(snap *chaos.Snapshot) { snap.Objects[key] = chaos.Object{Err: "unexpected EOF"} }},
		{"renditions are stored and decode", "another size", func(snap *chaos.Snapshot) {
			snap.Objects[key] = chaos.Object{Bytes: 5000, Format: "jpeg", Width: 300, Height: 201}
		}},
		{"objects have a row or a scheduled deletion", "an orphan", func(snap *chaos.Snapshot) { snap.Deletions = nil }},
		{"only referenced objects remain after deletions", "an orphan", func(snap *chaos.Snapshot) {
			snap.AfterDeletions["products/1/1/1-a/thumb.webp"] = chaos.Object{}
		}},
		{"only referenced objects remain after deletions", "too much deleted", func(snap *chaos.Snapshot) { delete(snap.AfterDeletions, key) }},
		{"versions increase by one", "back", func(snap *chaos.Snapshot) { snap.Changes[2].NewProduct.Version = 1 }},
		{"versions increase by one", "two at once", func(snap *chaos.Snapshot) { snap.Changes[3].NewProduct.Version = 9 }},
		{"versions increase by one", "a revision back", func(snap *chaos.Snapshot) { snap.Changes[2].OldProduct.Revision = 3 }},
		{"versions increase by one", "a change in silence", func(snap *chaos.Snapshot) { snap.Changes[3].NewProduct.Version = 3 }},
		{"versions increase by one", "a fence back", func(snap *chaos.Snapshot) { last(snap).OldImage.FencingToken = 3 }},
		{"each version has one event", "never told", func(snap *chaos.Snapshot) { snap.Events = snap.Events[:len(snap.Events)-1] }},
		{"each version has one event", "told as two events", func(snap *chaos.Snapshot) {
			snap.Events = append(snap.Events, chaos.Event{ID: "e9", Type: "product.changed", ProductID: 1, Version: 2})
		}},
		{"each version has one event", "told before its time", func(snap *chaos.Snapshot) {
			snap.Events = append(snap.Events, chaos.Event{ID: "e9", Type: "product.changed", ProductID: 1, Version: 5})
		}},
		{"each version has one event", "of nobody", func(snap *chaos.Snapshot) {
			snap.Events = append(snap.Events, chaos.Event{ID: "e9", Type: "product.changed", ProductID: 9, Version: 1})
		}},
		{"each failure has one dead event", "never told", func(snap *chaos.Snapshot) { snap.Events = snap.Events[2:] }},
		{"each failure has one dead event", "two events", func(snap *chaos.Snapshot) { snap.Events[1].ID = "d2" }},
		{"each failure has one dead event", "another reason", func(snap *chaos.Snapshot) { snap.Events[0].Code, snap.Events[1].Code = "corrupt", "corrupt" }},
		{"each failure has one dead event", "of the living", func(snap *chaos.Snapshot) {
			snap.Events = append(snap.Events, chaos.Event{ID: "d3", Type: "image.dead", ImageID: 1, FencingToken: 2, Code: "timeout"})
		}},
		{"each failure has one dead event", "an unreadable record", func(snap *chaos.Snapshot) {
			snap.Events = append(snap.Events, chaos.Event{ID: "d4", Type: "record.undecodable", Reason: "no headers"})
		}},
		{"a job ID has one effect", "spent twice", func(snap *chaos.Snapshot) {
			snap.Changes = append(snap.Changes, snap.Changes[8])
		}},
		{"a job ID has one effect", "risen from the dead", func(snap *chaos.Snapshot) { last(snap).NewImage.JobID = &ticket }},
		{"a job ID has one effect", "a record that came again was worked on", func(snap *chaos.Snapshot) {
			again := snap.Images[0]
			again.JobState, again.FencingToken, again.Prefix = "processing", 3, "products/1/1/3-c/"
			snap.Changes = append(snap.Changes, chaos.Change{Kind: "images", Op: "UPDATE", OldImage: &snap.Images[0], NewImage: &again})
		}},
		{"a job ID has one effect", "shared", func(snap *chaos.Snapshot) {
			snap.Changes[9].NewImage.JobID, snap.Changes[10].OldImage.JobID = snap.Changes[6].NewImage.JobID, snap.Changes[6].NewImage.JobID
		}},
		{"only the current attempt publishes", "an attempt that was overtaken", func(snap *chaos.Snapshot) { last(snap).OldImage.Prefix = "products/1/1/3-c/" }},
		{"only the current attempt publishes", "nobody at work", func(snap *chaos.Snapshot) { last(snap).OldImage.JobState = "queued" }},
		{"only the current attempt publishes", "objects of two attempts", func(snap *chaos.Snapshot) {
			snap.Images[0].Renditions[1].Key = "products/1/1/1-a/card.jpg"
		}},
		{"API responses match Postgres", "an old version", func(snap *chaos.Snapshot) { snap.Responses[0].Product.Version = 3 }},
		{"API responses match Postgres", "another name", func(snap *chaos.Snapshot) { snap.Responses[0].Product.Name = "lamp" }},
		{"API responses match Postgres", "another picture", func(snap *chaos.Snapshot) { snap.Responses[0].Product.Images[1].Status = "pending" }},
		{"API responses match Postgres", "gone", func(snap *chaos.Snapshot) { snap.Responses[0].Status = 404 }},
		{"API responses match Postgres", "not gone", func(snap *chaos.Snapshot) { snap.Responses[1].Status = 200 }},
		{"lists are complete", "one is missing", func(snap *chaos.Snapshot) { snap.Lists[0].Items = nil }},
		{"lists are complete", "an old one", func(snap *chaos.Snapshot) { snap.Lists[0].Items[0] = json.RawMessage(`{"id":1}`) }},
		{"lists are complete", "no list", func(snap *chaos.Snapshot) { snap.Lists[0].Err = "503" }},
	}
	tested := map[string]bool{}
	for _, c := range cases {
		tested[c.rule] = true
		t.Run(c.rule+": "+c.what, func(t *testing.T) {
			t.Parallel()
			snap := healthy()
			c.corrupt(snap)
			for _, f := range chaos.Check(snap) {
				if f.Rule == c.rule && strings.HasPrefix(f.String(), c.rule+": ") {
					return
				}
			}
			t.Errorf("it does not see it; all that is found is %q", chaos.Check(snap))
		})
	}
	for _, rule := range chaos.Rules() {
		if !tested[rule.Name] {
			t.Errorf("no test for %q", rule.Name)
		}
	}
}
