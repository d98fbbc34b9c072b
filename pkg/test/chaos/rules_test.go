package main_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	chaos "vitrine.io/pkg/test/chaos"
	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
	"vitrine.io/pkg/test/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

const (
	base  = "http://127.0.0.1:1/1/0/"
	api   = "http://127.0.0.1:2"
	media = "http://images.example/x"
)

// validSnapshot returns the snapshot of a run in which one image succeeded at the second attempt, another failed, and one
// product was deleted.
func validSnapshot() *chaos.Snapshot {
	deleted := "2026-03-01T12:30:45Z"
	good, bad := base+"1/"+imageserver.JPEG, base+"2/"+imageserver.Missing
	renditions := []chaos.RenditionRow{
		{Name: "thumb", Format: "webp", Width: 120, Height: 80, Bytes: 900, Key: "products/1/1/2-b/thumb.webp"},
		{Name: "card", Format: "jpeg", Width: 300, Height: 200, Bytes: 5000, Key: "products/1/1/2-b/card.jpg", Default: true},
	}
	s := &chaos.Snapshot{
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
				Prefix: "products/1/1/2-b/", Width: 640, Height: 480, Renditions: renditions, OutputHash: "output",
				SourceSHA256: "5a", OriginalKey: original,
			},
			{ID: 2, ProductID: 1, Position: 1, SourceURL: bad, Status: "failed", JobState: "idle", FencingToken: 1, ErrorCode: "http_status"},
		},
		Backfills: []chaos.BackfillRow{
			{ID: 1, State: "superseded"},
			{ID: 2, State: "complete", TargetOutput: "output", Requested: 1, Failed: 1},
		},
		Deletions: []chaos.DeletionRow{
			{Prefix: "products/1/1/1-a/", ImageID: 1}, {Prefix: "originals/1/1/1-c/", ImageID: 1}, {Prefix: "canary/2/1-d/", ImageID: 1},
		},
		Objects: map[string]chaos.Object{
			renditions[0].Key:             {Bytes: 900, Format: "webp", Width: 120, Height: 80},
			renditions[1].Key:             {Bytes: 5000, Format: "jpeg", Width: 300, Height: 200},
			"products/1/1/1-a/thumb.webp": {Bytes: 900, Format: "webp", Width: 120, Height: 80},
			original:                      {Bytes: 9000, SHA256: "5a", Format: "jpeg", Width: 640, Height: 480},
			"originals/1/1/1-c/source":    {Bytes: 9000, SHA256: "5a"},
			"canary/2/1-d/card.jpg":       {Bytes: 4000},
			".vitrine/installation":       {Bytes: 36, Err: "not an image"},
			"originals/.vitrine":          {Err: "not an image"},
		},
		AfterDeletions: map[string]chaos.Object{
			renditions[0].Key: {}, renditions[1].Key: {}, original: {}, ".vitrine/installation": {}, "originals/.vitrine": {},
		},
		Expectations: []*chaos.Expectation{
			{
				Token: "token-1", UserID: 7, Key: "key-1", ID: 1, IDs: []int64{1, 1}, Accepted: true, Name: "lamp", Price: "12.5",
				Images: []string{good, bad}, MaybeNames: []string{"lamp, changed"}, Version: 4,
			},
			{Token: "token-2", UserID: 7, ID: 2, IDs: []int64{2}, Accepted: true, Name: "chair", Price: "3.00", Deleted: true, Version: 1},
			{Token: "token-3", UserID: 7, Name: "not accepted"},
		},
		Events: []chaos.Event{
			{ID: "d1", Type: "image.dead", ProductID: 1, ImageID: 2, FencingToken: 1, Code: "http_status"},
			{ID: "d1", Type: "image.dead", ProductID: 1, ImageID: 2, FencingToken: 1, Code: "http_status"},
			{ID: "e-repeated", Type: "product.changed", ProductID: 2, Version: 2, Deleted: true},
			{ID: "e-repeated", Type: "product.changed", ProductID: 2, Version: 2, Deleted: true},
			{ID: "e-other", Type: "product.changed", ProductID: 2, Version: 1},
		},
	}
	for v := int64(1); v <= 4; v++ {
		s.Events = append(s.Events, chaos.Event{ID: fmt.Sprint("e", v), Type: "product.changed", ProductID: 1, Version: v})
	}
	s.Changes = rowChanges(s)
	failBackfill(s)
	at, again := "2026-03-01T12:30:45Z", "2026-03-01T12:40:45Z"
	waits, released := &chaos.JobRow{ImageID: 1, JobID: "job-2"}, &chaos.JobRow{ImageID: 1, JobID: "job-2", ReleasedAt: &at}
	s.Jobs = []chaos.JobChange{
		{New: &chaos.JobRow{ImageID: 1, JobID: "job-1", ReleasedAt: &at}},
		{Old: &chaos.JobRow{ImageID: 1, JobID: "job-1", ReleasedAt: &at}, New: waits},
		{Old: waits, New: released},
		{Old: released, New: &chaos.JobRow{ImageID: 1, JobID: "job-2", ReleasedAt: &again}},
		{Old: released},
	}
	addResponses(s)
	return s
}

// rowChanges returns the row history of the valid snapshot.
func rowChanges(s *chaos.Snapshot) []chaos.Change {
	first, second := "job-1", "job-2"
	product := s.Products[0]
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
			ID: 1, ProductID: 1, SourceURL: s.Images[0].SourceURL, Status: "pending", JobState: "queued", JobID: &first,
		}
		change(&row)
		return &row
	}
	succeeding := []*chaos.ImageRow{
		image(func(*chaos.ImageRow) {}),
		image(func(r *chaos.ImageRow) { r.JobState, r.FencingToken, r.Prefix = "processing", 1, "products/1/1/1-a/" }),
		image(func(r *chaos.ImageRow) { r.FencingToken, r.Prefix, r.JobID = 1, "products/1/1/1-a/", &second }), // retried
		image(func(r *chaos.ImageRow) {
			r.JobState, r.FencingToken, r.Prefix, r.JobID = "processing", 2, "products/1/1/2-b/", &second
		}),
		&s.Images[0],
	}
	failing := s.Images[1]
	third := "job-3"
	queued, processing := failing, failing
	queued.Status, queued.JobState, queued.FencingToken, queued.ErrorCode, queued.JobID = "pending", "queued", 0, "", &third
	processing.Status, processing.JobState, processing.ErrorCode, processing.JobID = "pending", "processing", "", &third
	for _, history := range [][]*chaos.ImageRow{succeeding, {&queued, &processing, &s.Images[1]}} {
		all = append(all, chaos.Change{Kind: "images", Op: "INSERT", NewImage: history[0]})
		for i := 1; i < len(history); i++ {
			all = append(all, chaos.Change{Kind: "images", Op: "UPDATE", OldImage: history[i-1], NewImage: history[i]})
		}
	}
	return all
}

// addResponses adds an API's responses to the valid snapshot.
func addResponses(s *chaos.Snapshot) {
	p := s.Products[0]
	response := client.Product{
		ID: 1, UserID: 7, Name: p.Name, Description: p.Description, Price: "12.50", Sources: p.URLs, Version: 4,
		Compressed: []string{media + "/" + p.Compressed[0]},
	}
	for _, img := range s.Images {
		image := client.Image{ID: img.ID, SourceURL: img.SourceURL, Status: img.Status}
		for range img.Renditions {
			image.Renditions = append(image.Renditions, client.Rendition{})
		}
		if img.ErrorCode != "" {
			image.Error = &client.ImageError{Code: img.ErrorCode}
		}
		response.Images = append(response.Images, image)
	}
	body, err := json.Marshal(response)
	if err != nil {
		panic(err)
	}
	s.Responses = []chaos.ProductResponse{
		{API: api, ID: 1, Status: 200, Product: response, Body: body},
		{API: api, ID: 2, Status: 404},
	}
	s.Lists = []chaos.ListResponse{{API: api, UserID: 7, Items: []json.RawMessage{body}}}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	t.Run("valid_snapshot", testCheckValidSnapshot)
	t.Run("violations", testCheckViolations)
}

func testCheckValidSnapshot(t *testing.T) {
	t.Parallel()
	for _, f := range chaos.Check(validSnapshot()) {
		t.Error(f)
	}
}

// A published object of the valid snapshot, and an original.
const (
	key      = "products/1/1/2-b/card.jpg"
	original = "originals/1/1/2-b/source"
)

// violation is a change of the valid snapshot that a rule must detect.
type violation struct {
	rule, condition string
	corrupt         func(*chaos.Snapshot)
}

const deletedAt = "2026-03-01T12:30:45Z"

// becomesReady returns the change with which the first image becomes ready.
func becomesReady(s *chaos.Snapshot) *chaos.Change { return &s.Changes[8] }

// productViolations returns violations of the rules about accepted products and final states.
func productViolations() []violation {
	deleted := deletedAt
	jobID := "job-1"
	return []violation{
		{"the outbox is empty", "parked_row", func(s *chaos.Snapshot) { s.Outbox, s.Parked = 1, 1 }},
		{"accepted products exist", "row_missing", func(s *chaos.Snapshot) { s.Products = s.Products[1:] }},
		{"accepted products exist", "deleted_without_request", func(s *chaos.Snapshot) { s.Products[0].DeletedAt = &deleted }},
		{"accepted products exist", "deletion_lost", func(s *chaos.Snapshot) { s.Products[1].DeletedAt = nil }},
		{"accepted products exist", "row_of_another_product", func(s *chaos.Snapshot) { s.Products[0].Description = "token-9" }},
		{"an idempotency key creates one product", "two_rows", func(s *chaos.Snapshot) {
			duplicate := s.Products[0]
			duplicate.ID = 3
			s.Products = append(s.Products, duplicate)
		}},
		{"an idempotency key creates one product", "two_ids", func(s *chaos.Snapshot) { s.Expectations[0].IDs = []int64{1, 3} }},
		{"an idempotency key creates one product", "row_missing", func(s *chaos.Snapshot) { s.Products = s.Products[1:] }},
		{"acknowledged changes persist", "name_lost", func(s *chaos.Snapshot) { s.Expectations[0].MaybeNames = nil }},
		{"acknowledged changes persist", "price_lost", func(s *chaos.Snapshot) { s.Expectations[0].Price = "12.51" }},
		{"acknowledged changes persist", "images_lost", func(s *chaos.Snapshot) { s.Expectations[0].Images = nil }},
		{"acknowledged changes persist", "version_lost", func(s *chaos.Snapshot) { s.Expectations[0].Version = 5 }},
		{"images reach a final state", "processing", func(s *chaos.Snapshot) { s.Images[0].JobState = "processing" }},
		{"images reach a final state", "pending_without_job", func(s *chaos.Snapshot) { s.Images[1].Status = "pending" }},
		{"images reach a final state", "failed_without_code", func(s *chaos.Snapshot) { s.Images[1].ErrorCode = "" }},
		{"images reach a final state", "ready_without_renditions", func(s *chaos.Snapshot) { s.Images[0].Renditions = nil }},
		{"images reach a final state", "idle_with_job_id", func(s *chaos.Snapshot) { s.Images[0].JobID = &jobID }},
		{"image status matches its source", "invalid_source_ready", func(s *chaos.Snapshot) { s.Images[0].SourceURL = base + imageserver.Text }},
		{"a flood fails no image of its own", "timeout", func(s *chaos.Snapshot) {
			s.Expectations[0].Flood, s.Images[1].ErrorCode = true, "timeout"
		}},
		{"image status matches its source", "valid_source_failed", func(s *chaos.Snapshot) { s.Images[1].SourceURL = base + imageserver.PNG }},
	}
}

// objectViolations returns violations of the rules about product rows and objects.
func objectViolations() []violation {
	return []violation{
		{"product row matches its image rows", "stale_key", func(s *chaos.Snapshot) { s.Products[0].Compressed[0] = "products/1/1/1-a/card.jpg" }},
		{"product row matches its image rows", "source_differs", func(s *chaos.Snapshot) { s.Images[0].SourceURL = base + "9/" + imageserver.JPEG }},
		{"product row matches its image rows", "position_gap", func(s *chaos.Snapshot) { s.Images[1].Position = 2 }},
		{"renditions are stored and decode", "object_missing", func(s *chaos.Snapshot) { delete(s.Objects, key) }},
		{"renditions are stored and decode", "object_truncated", func(s *chaos.Snapshot) { s.Objects[key] = chaos.Object{Err: "unexpected EOF"} }},
		{"renditions are stored and decode", "size_differs", func(s *chaos.Snapshot) {
			s.Objects[key] = chaos.Object{Bytes: 5000, Format: "jpeg", Width: 300, Height: 201}
		}},
		{"originals are stored unchanged", "missing", func(s *chaos.Snapshot) { delete(s.Objects, original) }},
		{"originals are stored unchanged", "not_kept", func(s *chaos.Snapshot) { s.Images[0].OriginalKey = "" }},
		{"originals are stored unchanged", "of_another_source", func(s *chaos.Snapshot) { s.Images[0].SourceSHA256 = "5b" }},
		{"objects have a row or a scheduled deletion", "orphan", func(s *chaos.Snapshot) { s.Deletions = nil }},
		{"only referenced objects remain after deletions", "orphan", func(s *chaos.Snapshot) {
			s.AfterDeletions["products/1/1/1-a/thumb.webp"] = chaos.Object{}
		}},
		{"only referenced objects remain after deletions", "referenced_object_deleted", func(s *chaos.Snapshot) { delete(s.AfterDeletions, key) }},
	}
}

// backfillViolations returns violations of the rule about backfills.
func backfillViolations() []violation {
	const rule = "a backfill makes each image once and forgets none"
	return []violation{
		{rule, "there_is_none", func(s *chaos.Snapshot) { s.Backfills = nil }},
		{rule, "not_complete", func(s *chaos.Snapshot) { s.Backfills[1].State = "running" }},
		{rule, "image_forgotten", func(s *chaos.Snapshot) { s.Images[0].OutputHash = "another" }},
		{rule, "made_without_a_count", func(s *chaos.Snapshot) { makeByBackfill(s, 1) }},
		{rule, "made_twice", func(s *chaos.Snapshot) {
			makeByBackfill(s, 2)
			s.Backfills[1].Requested, s.Backfills[1].Done = 3, 2
		}},
		{rule, "image_lost_in_the_counts", func(s *chaos.Snapshot) { s.Backfills[1].Requested = 2 }},
	}
}

// failBackfill adds to the history that the second backfill tries the image that has failed, and fails.
func failBackfill(s *chaos.Snapshot) {
	jobID := "backfill-failed"
	idle := s.Images[1]
	queued, processing := idle, idle
	queued.JobState, queued.JobID, queued.BackfillID = "queued", &jobID, 2
	processing.JobState, processing.JobID, processing.BackfillID, processing.FencingToken = "processing", &jobID, 2, 2
	for i, c := range s.Changes { // the history so far keeps the image as it was
		if c.NewImage == &s.Images[1] {
			s.Changes[i].NewImage = &idle
		}
	}
	s.Images[1].BackfillID, s.Images[1].FencingToken = 2, 2
	for _, step := range [][2]chaos.ImageRow{{idle, queued}, {queued, processing}, {processing, s.Images[1]}} {
		s.Changes = append(s.Changes, chaos.Change{Kind: "images", Op: "UPDATE", OldImage: &step[0], NewImage: &step[1]})
	}
}

// makeByBackfill adds to the history that the second backfill makes an image that many times.
func makeByBackfill(s *chaos.Snapshot, times int) {
	for n := range times {
		jobID := fmt.Sprint("backfill-", n)
		idle := s.Images[0]
		idle.BackfillID, idle.Renditions = 2, nil
		queued, processing, made := idle, idle, s.Images[0]
		queued.JobState, queued.JobID = "queued", &jobID
		processing.JobState, processing.JobID = "processing", &jobID
		made.BackfillID = 2
		for _, step := range [][2]chaos.ImageRow{{idle, queued}, {queued, processing}, {processing, made}} {
			s.Changes = append(s.Changes, chaos.Change{Kind: "images", Op: "UPDATE", OldImage: &step[0], NewImage: &step[1]})
		}
	}
}

// failsDuringOutage adds an outage and an image of a good source that fails within it.
func failsDuringOutage(s *chaos.Snapshot, code string) {
	now := time.Now()
	before, after := s.Images[0], s.Images[0]
	before.ErrorCode, after.ErrorCode, after.Status = "", code, "failed"
	s.Changes = append(s.Changes, chaos.Change{At: now, Kind: "images", Op: "UPDATE", OldImage: &before, NewImage: &after})
	s.Outages = []chaos.Outage{{Kind: chaos.EgressAway, From: now.Add(-time.Second), To: now.Add(time.Second)}}
}

// historyViolations returns violations of the rules about versions, events and jobs.
func historyViolations() []violation {
	jobID := "job-1"
	return []violation{
		{"versions increase by one", "version_decreases", func(s *chaos.Snapshot) { s.Changes[2].NewProduct.Version = 1 }},
		{"versions increase by one", "version_skipped", func(s *chaos.Snapshot) { s.Changes[3].NewProduct.Version = 9 }},
		{"versions increase by one", "revision_decreases", func(s *chaos.Snapshot) { s.Changes[2].OldProduct.Revision = 3 }},
		{"versions increase by one", "change_without_version", func(s *chaos.Snapshot) { s.Changes[3].NewProduct.Version = 3 }},
		{"versions increase by one", "fencing_token_decreases", func(s *chaos.Snapshot) { becomesReady(s).OldImage.FencingToken = 3 }},
		{"an outage of the network fails no image", "during_it", func(s *chaos.Snapshot) { failsDuringOutage(s, "timeout") }},
		{"an outage of the network fails no image", "at_any_time", func(s *chaos.Snapshot) {
			failsDuringOutage(s, "dns_failed")
			s.Outages = nil
		}},
		{"each version has one event", "event_missing", func(s *chaos.Snapshot) { s.Events = s.Events[:len(s.Events)-1] }},
		{"each version has one event", "two_events", func(s *chaos.Snapshot) {
			s.Events = append(s.Events, chaos.Event{ID: "e9", Type: "product.changed", ProductID: 1, Version: 2})
		}},
		{"each version has one event", "event_of_future_version", func(s *chaos.Snapshot) {
			s.Events = append(s.Events, chaos.Event{ID: "e9", Type: "product.changed", ProductID: 1, Version: 5})
		}},
		{"each version has one event", "event_of_unknown_product", func(s *chaos.Snapshot) {
			s.Events = append(s.Events, chaos.Event{ID: "e9", Type: "product.changed", ProductID: 9, Version: 1})
		}},
		{"each failure has one dead event", "event_missing", func(s *chaos.Snapshot) { s.Events = s.Events[2:] }},
		{"each failure has one dead event", "two_events", func(s *chaos.Snapshot) { s.Events[1].ID = "d2" }},
		{"each failure has one dead event", "code_differs", func(s *chaos.Snapshot) { s.Events[0].Code, s.Events[1].Code = "corrupt", "corrupt" }},
		{"each failure has one dead event", "image_did_not_fail", func(s *chaos.Snapshot) {
			s.Events = append(s.Events, chaos.Event{ID: "d3", Type: "image.dead", ImageID: 1, FencingToken: 2, Code: "timeout"})
		}},
		{"each failure has one dead event", "undecodable_record", func(s *chaos.Snapshot) {
			s.Events = append(s.Events, chaos.Event{ID: "d4", Type: "record.undecodable", Reason: "no headers"})
		}},
		{"a job ID has one effect", "used_twice", func(s *chaos.Snapshot) {
			s.Changes = append(s.Changes, s.Changes[8])
		}},
		{"a job is released once", "twice", func(s *chaos.Snapshot) { s.Jobs = append(s.Jobs, s.Jobs[2]) }},
		{"a job is released once", "taken_back", func(s *chaos.Snapshot) {
			s.Jobs = append(s.Jobs, chaos.JobChange{Old: s.Jobs[2].New, New: s.Jobs[2].Old})
		}},
		{"a job ID has one effect", "reused", func(s *chaos.Snapshot) { becomesReady(s).NewImage.JobID = &jobID }},
		{"a job ID has one effect", "duplicate_record_processed", func(s *chaos.Snapshot) {
			restarted := s.Images[0]
			restarted.JobState, restarted.FencingToken, restarted.Prefix = "processing", 3, "products/1/1/3-c/"
			s.Changes = append(s.Changes, chaos.Change{Kind: "images", Op: "UPDATE", OldImage: &s.Images[0], NewImage: &restarted})
		}},
		{"a job ID has one effect", "shared_by_images", func(s *chaos.Snapshot) {
			s.Changes[9].NewImage.JobID, s.Changes[10].OldImage.JobID = s.Changes[6].NewImage.JobID, s.Changes[6].NewImage.JobID
		}},
		{"only the current attempt publishes", "superseded_attempt", func(s *chaos.Snapshot) { becomesReady(s).OldImage.Prefix = "products/1/1/3-c/" }},
		{"only the current attempt publishes", "not_processing", func(s *chaos.Snapshot) { becomesReady(s).OldImage.JobState = "queued" }},
		{"only the current attempt publishes", "objects_of_two_attempts", func(s *chaos.Snapshot) {
			s.Images[0].Renditions[1].Key = "products/1/1/1-a/card.jpg"
		}},
	}
}

// responseViolations returns violations of the rules about API responses.
func responseViolations() []violation {
	return []violation{
		{"API responses match Postgres", "stale_version", func(s *chaos.Snapshot) { s.Responses[0].Product.Version = 3 }},
		{"API responses match Postgres", "name_differs", func(s *chaos.Snapshot) { s.Responses[0].Product.Name = "lamp" }},
		{"API responses match Postgres", "image_differs", func(s *chaos.Snapshot) { s.Responses[0].Product.Images[1].Status = "pending" }},
		{"API responses match Postgres", "missing", func(s *chaos.Snapshot) { s.Responses[0].Status = 404 }},
		{"API responses match Postgres", "deleted_product_returned", func(s *chaos.Snapshot) { s.Responses[1].Status = 200 }},
		{"lists are complete", "product_missing", func(s *chaos.Snapshot) { s.Lists[0].Items = nil }},
		{"lists are complete", "stale_item", func(s *chaos.Snapshot) { s.Lists[0].Items[0] = json.RawMessage(`{"id":1}`) }},
		{"lists are complete", "request_failed", func(s *chaos.Snapshot) { s.Lists[0].Err = "503" }},
	}
}

func testCheckViolations(t *testing.T) {
	t.Parallel()
	cases := slices.Concat(productViolations(), objectViolations(), historyViolations(), backfillViolations(),
		responseViolations())
	tested := map[string]bool{}
	for _, c := range cases {
		tested[c.rule] = true
		t.Run(strings.ReplaceAll(c.rule, " ", "_")+"/"+c.condition, func(t *testing.T) {
			t.Parallel()
			s := validSnapshot()
			c.corrupt(s)
			for _, f := range chaos.Check(s) {
				if f.Rule == c.rule && strings.HasPrefix(f.String(), c.rule+": ") {
					return
				}
			}
			t.Errorf("no such finding, only %q", chaos.Check(s))
		})
	}
	for _, rule := range chaos.Rules() {
		if !tested[rule.Name] {
			t.Errorf("no test of rule %q", rule.Name)
		}
	}
}
