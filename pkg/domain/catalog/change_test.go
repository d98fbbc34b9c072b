package catalog_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// url is the address of the n-th picture that post posts.
func url(n int) string { return fmt.Sprintf("https://example.com/%d.jpg", n) }

// images is a patch of a product's pictures.
func images(urls ...string) catalog.ProductPatch { return catalog.ProductPatch{ImageURLs: &urls} }

// patch patches a product, whatever its revision.
func (h *house) patch(t *testing.T, id catalog.ProductID, patch catalog.ProductPatch) catalog.Product {
	t.Helper()
	p, err := h.Patch(t.Context(), id, patch, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// make makes the product's i-th picture.
func (h *house) make(t *testing.T, p catalog.Product, i int) catalog.Attempt {
	t.Helper()
	a := h.begin(t, p, i)
	if err := h.Finish(t.Context(), a, result(a)); err != nil {
		t.Fatal(err)
	}
	return a
}

// requested returns the pictures that were ever asked for, as often as they were.
func (h *house) requested(t *testing.T) []catalog.ImageID {
	t.Helper()
	var ids []catalog.ImageID
	for _, m := range h.store.sent(event.TypeImageRequested) {
		r, err := event.Decode[event.ImageRequested](m.Message)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, catalog.ImageID(r.ImageID))
	}
	return ids
}

// goes reports a prefix whose objects are not to be deleted after the grace.
func (h *house) goes(t *testing.T, prefix string) {
	t.Helper()
	if in := h.store.intents[prefix]; in == nil || !in.due.Equal(h.store.now.Add(time.Hour)) {
		t.Errorf("the intent of %s is %+v, want due in an hour", prefix, in)
	}
}

func TestPatch(t *testing.T) {
	t.Parallel()

	t.Run("changes what is given and tells everybody", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		woken := h.wakes.Load()
		name, text, price := "Desk", "A desk.", dec("99.99")
		got := h.patch(t, p.ID, catalog.ProductPatch{Name: &name, Description: &text, Price: &price})
		if got.Name != name || got.Description != text || !got.Price.Equal(price) || len(got.Images) != 1 {
			t.Errorf("got %+v", got)
		}
		if got.Version != 2 || got.Revision != 2 || h.cache.tombs[p.ID] != 2 || h.wakes.Load() == woken {
			t.Errorf("got version %d and revision %d, cache told of %d", got.Version, got.Revision, h.cache.tombs[p.ID])
		}
		changed := h.store.sent(event.TypeProductChanged)
		c, err := event.Decode[event.ProductChanged](changed[len(changed)-1].Message)
		if err != nil || c.Version != 2 || c.Deleted {
			t.Errorf("got %+v, %v, want version 2", c, err)
		}
		if got := h.requested(t); len(got) != 1 {
			t.Errorf("pictures %v were asked for, want the first time only", got)
		}
	})

	t.Run("that changes nothing writes nothing", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 2)
		woken := h.wakes.Load()
		price := dec("12.500")
		for name, patch := range map[string]catalog.ProductPatch{
			"empty": {}, "the same": {Name: &p.Name, Description: &p.Description, Price: &price, ImageURLs: &p.ImageURLs},
		} {
			if got := h.patch(t, p.ID, patch); got.Version != 1 || got.Revision != 1 {
				t.Errorf("%s: got version %d and revision %d, want 1", name, got.Version, got.Revision)
			}
		}
		if len(h.store.outbox) != 3 || h.wakes.Load() != woken {
			t.Errorf("got %d messages, want the three of the creation", len(h.store.outbox))
		}
	})

	t.Run("that comes again changes nothing more", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		h.store.outbox = nil // it has been sent
		first := h.patch(t, p.ID, images(url(1), url(0), url(1)))
		again := h.patch(t, p.ID, images(url(1), url(0), url(1)))
		if first.Version != again.Version || !slices.EqualFunc(first.Images, again.Images, sameID) {
			t.Errorf("got version %d after %d, and other pictures", again.Version, first.Version)
		}
		if got := h.requested(t); len(got) != 2 {
			t.Errorf("pictures %v were asked for, want the new ones: one that is kept stays in the queue", got)
		}
	})

	t.Run("lists every wrong field and changes nothing", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 0)
		empty, long, price := "", string(make([]byte, catalog.MaxDescriptionChars+1)), dec("-1")
		_, err := h.Patch(t.Context(), p.ID, catalog.ProductPatch{
			Name: &empty, Description: &long, Price: &price, ImageURLs: &[]string{"ftp://example.com/a.jpg"},
		}, nil, "")
		want := []string{"product_name", "product_description", "product_price", "product_images[0]"}
		if got := fault.From(err); got == nil || len(got.Fields) != len(want) {
			t.Fatalf("got %v, want %v", err, want)
		} else {
			for i, f := range got.Fields {
				if f.Path != want[i] {
					t.Errorf("got %s, want %s", f.Path, want[i])
				}
			}
		}
		if got := h.product(t, p.ID); got.Version != 1 {
			t.Errorf("got %+v", got)
		}
	})

	t.Run("of an unknown or deleted product is not found", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 0)
		if err := h.Delete(t.Context(), p.ID, nil, ""); err != nil {
			t.Fatal(err)
		}
		for _, id := range []catalog.ProductID{p.ID, 99} {
			if _, err := h.Patch(t.Context(), id, images(url(0)), catalog.Revisions{1, 2}, ""); !fault.Is(err, fault.NotFound) {
				t.Errorf("product %d: got %v, want not found", id, err)
			}
		}
	})
}

func sameID(a, b catalog.Image) bool {
	return a.ID == b.ID && a.JobID == b.JobID && a.Position == b.Position
}

func TestPatchOfPictures(t *testing.T) {
	t.Parallel()

	t.Run("a kept URL keeps its row and renditions wherever it stands, the new one is asked for", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 3)
		a, b := h.make(t, p, 0), h.make(t, p, 2)
		before := h.product(t, p.ID)
		got, err := h.Patch(t.Context(), p.ID, images(url(2), url(7), url(0)), nil, "trace")
		if err != nil {
			t.Fatal(err)
		}
		for from, to := range map[int]int{2: 0, 0: 2} {
			want := before.Images[from]
			want.Position = to
			img := got.Images[to]
			if !slices.Equal(img.Renditions, want.Renditions) || !sameID(img, want) || img.FencingToken != want.FencingToken {
				t.Errorf("got %+v, want %+v", img, want)
			}
		}
		if want := []string{b.Prefix + "full.jpg", a.Prefix + "full.jpg"}; !slices.Equal(got.Compressed, want) {
			t.Errorf("got %v, want %v", got.Compressed, want)
		}
		fresh := got.Images[1]
		if fresh.ID <= 3 || fresh.Status != catalog.Pending || fresh.JobState != catalog.Queued ||
			fresh.PipelineHash != inForce().Hash() {
			t.Errorf("got %+v, want a new picture in the queue", fresh)
		}
		requests := h.store.sent(event.TypeImageRequested)
		last := requests[len(requests)-1]
		r, err := event.Decode[event.ImageRequested](last.Message)
		if err != nil || len(requests) != 4 || last.ID != fresh.JobID || r.ImageID != int64(fresh.ID) || r.SourceURL != url(7) ||
			last.Traceparent != "trace" {
			t.Errorf("got %d requests, the last %+v of %+v, %v", len(requests), r, last.Message, err)
		}
		h.make(t, got, 1) // by that ticket
		if _, err := h.store.Pipeline(t.Context(), fresh.PipelineHash); err != nil {
			t.Errorf("the pipeline is not on record: %v", err)
		}
	})

	t.Run("of two with one URL the first place is the first one's", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.patch(t, h.post(t, 0).ID, images(url(0), url(1), url(0)))
		first, other, second := p.Images[0].ID, p.Images[1].ID, p.Images[2].ID
		for _, row := range []struct {
			urls []string
			want []catalog.ImageID // 0 is a new one
		}{
			{[]string{url(0), url(0), url(1)}, []catalog.ImageID{first, second, other}},
			{[]string{url(0), url(0), url(0)}, []catalog.ImageID{first, second, 0}},
			{[]string{url(0)}, []catalog.ImageID{first}},
		} {
			got := h.patch(t, p.ID, images(row.urls...))
			for i, img := range got.Images {
				known := img.ID == first || img.ID == second || img.ID == other
				if row.want[i] == 0 == known || known && img.ID != row.want[i] || img.Position != i {
					t.Errorf("%v: picture %d is %d, want %d", row.urls, i, img.ID, row.want[i])
				}
			}
		}
	})

	t.Run("what clients saw of a picture that goes is deleted after the grace", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 2)
		a, b := h.make(t, p, 0), h.make(t, p, 1)
		got := h.patch(t, p.ID, images(url(1)))
		h.goes(t, a.Prefix)
		if h.store.intents[b.Prefix] != nil {
			t.Error("the kept picture's objects will be deleted")
		}
		if len(got.Images) != 1 || !slices.Equal(got.Compressed, []string{b.Prefix + "full.jpg"}) {
			t.Errorf("got %+v", got)
		}
		back := h.patch(t, p.ID, images(url(0), url(1)))
		if back.Images[0].ID == a.ImageID || len(back.Images[0].Renditions) != 0 {
			t.Errorf("got %+v, want a picture of its own: the old objects are going", back.Images[0])
		}
	})

	t.Run("an attempt whose picture went is superseded, and its objects go", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 2)
		seen := h.make(t, p, 0)
		h.reprocess(t, p, 0)
		a := h.begin(t, p, 0)
		h.patch(t, p.ID, images(url(1)))
		f := media.Fail(media.Timeout, "slow", nil)
		for name, err := range map[string]error{
			"finish":   h.Finish(t.Context(), a, result(a)),
			"fail":     h.Fail(t.Context(), a, f),
			"retry":    h.Retry(t.Context(), a, f, policy()),
			"defer":    h.Defer(t.Context(), a, f, policy(), 0),
			"postpone": h.Postpone(t.Context(), a.Job, policy(), 0),
			"release":  h.Release(t.Context(), a),
		} {
			if !errors.Is(err, catalog.ErrSuperseded) {
				t.Errorf("%s: got %v, want superseded", name, err)
			}
		}
		if _, err := h.Begin(t.Context(), a.Job, budget); !errors.Is(err, catalog.ErrDone) {
			t.Errorf("got %v, want done", err)
		}
		if err := h.Republish(t.Context(), p.ID, a.ImageID, 0); !errors.Is(err, catalog.ErrDone) {
			t.Errorf("got %v, want done", err)
		}
		if h.store.intents[a.Prefix] == nil {
			t.Error("nobody will delete what the attempt has stored")
		}
		h.goes(t, seen.Prefix)
	})

	t.Run("an attempt whose picture moved finishes it", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 2)
		a := h.begin(t, p, 0)
		h.patch(t, p.ID, images(url(1), url(0)))
		if err := h.Finish(t.Context(), a, result(a)); err != nil {
			t.Fatal(err)
		}
		if got := h.product(t, p.ID); got.Images[1].Status != catalog.Ready || got.Revision != 2 || got.Version != 3 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestRevisions(t *testing.T) {
	t.Parallel()
	name := "Desk"
	change := catalog.ProductPatch{Name: &name}

	t.Run("are compared, and whoever saw none of them is told", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		for name, seen := range map[string]catalog.Revisions{"another": {2}, "none": {}} {
			if _, err := h.Patch(t.Context(), p.ID, change, seen, ""); !errors.Is(err, catalog.ErrRevision) {
				t.Errorf("%s: got %v, want a mismatch", name, err)
			}
			if err := h.Delete(t.Context(), p.ID, seen, ""); !errors.Is(err, catalog.ErrRevision) {
				t.Errorf("%s: got %v, want a mismatch", name, err)
			}
		}
		if got := h.product(t, p.ID); got.Version != 1 || got.Revision != 1 {
			t.Errorf("got %+v, want nothing changed", got)
		}
		if got, err := h.Patch(t.Context(), p.ID, change, catalog.Revisions{9, 1}, ""); err != nil || got.Revision != 2 {
			t.Errorf("got %+v, %v, want revision 2", got, err)
		}
	})

	t.Run("are not raised by what workers do", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 2)
		h.make(t, p, 0)
		if err := h.Fail(t.Context(), h.begin(t, p, 1), media.Fail(media.Corrupt, "no", nil)); err != nil {
			t.Fatal(err)
		}
		h.reprocess(t, p, 1)
		if got, err := h.Patch(t.Context(), p.ID, change, catalog.Revisions{1}, ""); err != nil || got.Version != 5 {
			t.Errorf("got %+v, %v, want the patch of what the client saw", got, err)
		}
	})

	t.Run("a repeated patch of unknown outcome is told that it happened", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 0)
		h.store.afterCommit = func() error { return catalog.ErrOutcomeUnknown }
		if _, err := h.Patch(t.Context(), p.ID, change, catalog.Revisions{1}, ""); !errors.Is(err, catalog.ErrOutcomeUnknown) {
			t.Errorf("got %v, want unknown", err)
		}
		h.store.afterCommit = func() error { return nil }
		if _, err := h.Patch(t.Context(), p.ID, change, catalog.Revisions{1}, ""); !errors.Is(err, catalog.ErrRevision) {
			t.Errorf("got %v, want a mismatch: it happened", err)
		}
	})
}

func TestDelete(t *testing.T) {
	t.Parallel()

	t.Run("ends the product, its pictures and what works on them", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 3)
		seen, working := h.make(t, p, 0), h.begin(t, p, 1)
		if err := h.Delete(t.Context(), p.ID, catalog.Revisions{1}, "trace"); err != nil {
			t.Fatal(err)
		}
		h.goes(t, seen.Prefix)
		if h.store.intents[working.Prefix] == nil {
			t.Error("nobody will delete what the attempt has stored")
		}
		gone := h.store.row(p.ID)
		for _, img := range gone.Images {
			if img.JobState != catalog.Idle || img.JobID != "" || !img.DueAt.IsZero() {
				t.Errorf("got %+v, want no work on it", img)
			}
		}
		if gone.Images[1].FencingToken <= working.FencingToken || gone.Revision != 2 {
			t.Errorf("got %+v, want a fence above %d and revision 2", gone, working.FencingToken)
		}
		if err := h.Finish(t.Context(), working, result(working)); !errors.Is(err, catalog.ErrSuperseded) {
			t.Errorf("got %v, want superseded", err)
		}
		if _, err := h.Begin(t.Context(), working.Job, budget); !errors.Is(err, catalog.ErrDone) {
			t.Errorf("got %v, want done", err)
		}
		changed := h.store.sent(event.TypeProductChanged)
		last := changed[len(changed)-1]
		c, err := event.Decode[event.ProductChanged](last.Message)
		if err != nil || !c.Deleted || c.Version != 3 || last.Traceparent != "trace" {
			t.Errorf("got %+v, %v, want a deletion at version 3", c, err)
		}
		if _, err := h.Get(t.Context(), p.ID); !fault.Is(err, fault.NotFound) {
			t.Errorf("got %v, want not found", err)
		}
	})

	t.Run("is not found the second time, and changes nothing", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		if err := h.Delete(t.Context(), p.ID, nil, ""); err != nil {
			t.Fatal(err)
		}
		for _, id := range []catalog.ProductID{p.ID, 99} {
			if err := h.Delete(t.Context(), id, nil, ""); !fault.Is(err, fault.NotFound) {
				t.Errorf("product %d: got %v, want not found", id, err)
			}
		}
		if got := h.store.row(p.ID); got.Version != 2 || len(h.store.sent(event.TypeProductChanged)) != 2 {
			t.Errorf("got version %d, want 2", got.Version)
		}
	})

	t.Run("hides at once what a cache held", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 0)
		if _, err := h.Get(t.Context(), p.ID); err != nil {
			t.Fatal(err)
		}
		if err := h.Delete(t.Context(), p.ID, nil, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Get(t.Context(), p.ID); !fault.Is(err, fault.NotFound) {
			t.Errorf("got %v, want not found", err)
		}
	})
}

// reprocess asks for the product's i-th picture anew.
func (h *house) reprocess(t *testing.T, p catalog.Product, i int) catalog.Image {
	t.Helper()
	got, err := h.Reprocess(t.Context(), p.ID, p.Images[i].ID, "trace")
	if err != nil {
		t.Fatal(err)
	}
	return got.Images[i]
}

func TestReprocess(t *testing.T) {
	t.Parallel()

	t.Run("asks for a failed picture anew, with the pipeline in force", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		h.store.now = h.store.now.Add(25 * time.Hour)
		slow := media.Fail(media.Timeout, "slow", nil)
		if err := h.Fail(t.Context(), h.begin(t, p, 0), slow); err != nil {
			t.Fatal(err)
		}
		next := pipeline.Default()
		next.Spec.Renditions = next.Spec.Renditions[1:]
		h.Pipeline = func() *pipeline.Revision { return pipeline.NewRevision(next) }
		img := h.reprocess(t, p, 0)
		if img.Status != catalog.Pending || img.ErrorCode != "" || img.ErrorDetail != "" || img.Attempts != 0 ||
			img.PipelineHash != next.Hash() || !img.RequestedAt.Equal(h.store.now) {
			t.Errorf("got %+v, want a new request", img)
		}
		if _, err := h.store.Pipeline(t.Context(), next.Hash()); err != nil {
			t.Errorf("the pipeline is not on record: %v", err)
		}
		requests := h.store.sent(event.TypeImageRequested)
		if last := requests[len(requests)-1]; last.ID != img.JobID || last.Traceparent != "trace" {
			t.Errorf("got %+v, want the request of ticket %s", last.Message, img.JobID)
		}
		if got := h.product(t, p.ID); got.Version != 3 || got.Revision != 1 || h.cache.tombs[p.ID] != 3 {
			t.Errorf("got version %d and revision %d, want 3 and 1", got.Version, got.Revision)
		}
		if err := h.Defer(t.Context(), h.begin(t, p, 0), slow, policy(), 0); err != nil {
			t.Errorf("got %v, want its age to count from the new request", err)
		}
	})

	t.Run("a ready picture stays visible until it is replaced", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		old := h.make(t, p, 0)
		if img := h.reprocess(t, p, 0); img.Status != catalog.Ready || len(img.Renditions) != 2 || img.JobState != catalog.Queued {
			t.Errorf("got %+v, want it ready and in the queue", img)
		}
		a := h.make(t, p, 0)
		h.goes(t, old.Prefix)
		if got := h.product(t, p.ID).Compressed; !slices.Equal(got, []string{a.Prefix + "full.jpg"}) {
			t.Errorf("got %v, want the new one", got)
		}
	})

	t.Run("work on the picture is superseded, and its record is done", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		a := h.begin(t, p, 0)
		h.begin(t, p, 0) // the second begin without an outcome: the next would run alone
		img := h.reprocess(t, p, 0)
		slow := media.Fail(media.Timeout, "slow", nil)
		for name, err := range map[string]error{
			"finish":   h.Finish(t.Context(), a, result(a)),
			"retry":    h.Retry(t.Context(), a, slow, policy()),
			"postpone": h.Postpone(t.Context(), a.Job, policy(), 0),
			"release":  h.Release(t.Context(), a),
		} {
			if !errors.Is(err, catalog.ErrSuperseded) {
				t.Errorf("%s: got %v, want superseded", name, err)
			}
		}
		if _, err := h.Begin(t.Context(), a.Job, budget); !errors.Is(err, catalog.ErrDone) {
			t.Errorf("got %v, want done", err)
		}
		b := h.begin(t, p, 0)
		if b.JobID != img.JobID || b.Isolated || b.Number != 1 || b.FencingToken <= a.FencingToken {
			t.Errorf("got %+v, want a first attempt", b)
		}
		if h.store.intents[a.Prefix] == nil {
			t.Error("nobody will delete what the first attempt has stored")
		}
	})

	t.Run("an attempt whose outcome was lost does not take it for its own", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p := h.post(t, 1)
		a := h.begin(t, p, 0)
		rolledBack := h.store.row(p.ID)
		h.store.afterCommit = func() error {
			h.store.afterCommit = func() error { return nil }
			h.store.products[p.ID] = rolledBack // it did not happen; and before it is looked up, somebody asks anew
			h.store.mu.Unlock()
			defer h.store.mu.Lock()
			h.reprocess(t, p, 0)
			return catalog.ErrOutcomeUnknown
		}
		if err := h.Finish(t.Context(), a, result(a)); !errors.Is(err, catalog.ErrOutcomeUnknown) {
			t.Errorf("got %v, want unknown: the picture is not what the attempt made", err)
		}
		if err := h.Finish(t.Context(), a, result(a)); !errors.Is(err, catalog.ErrSuperseded) {
			t.Errorf("got %v, want superseded", err)
		}
	})

	t.Run("of what is not there is not found", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		p, gone := h.post(t, 1), h.post(t, 1)
		if err := h.Delete(t.Context(), gone.ID, nil, ""); err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			product catalog.ProductID
			image   catalog.ImageID
			code    string
		}{
			{99, 1, "product_not_found"}, {gone.ID, gone.Images[0].ID, "product_not_found"},
			{p.ID, gone.Images[0].ID, "image_not_found"},
		} {
			if _, err := h.Reprocess(t.Context(), row.product, row.image, ""); fault.CodeOf(err) != row.code {
				t.Errorf("picture %d of product %d: got %v, want %s", row.image, row.product, err, row.code)
			}
		}
	})
}
