package catalog_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/event"
)

// visible is what a client can see of a product, as text.
func visible(p catalog.Product) string {
	p = clone(p)
	for i := range p.Images {
		img := &p.Images[i]
		*img = catalog.Image{
			ID: img.ID, Status: img.Status, Attempts: img.Attempts, ErrorCode: img.ErrorCode, ErrorDetail: img.ErrorDetail,
			Width: img.Width, Height: img.Height, Renditions: img.Renditions,
		}
	}
	p.Version = 0
	text, _ := json.Marshal(p)
	return string(text)
}

// TestLife drives pictures through random events, with attempts that die, lag and wake up again, and checks after each what
// must always hold.
func TestLife(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := newHouse(t)
		p := h.post(t, rapid.IntRange(1, 3).Draw(rt, "pictures"))
		var attempts []catalog.Attempt // every one that ever began: any may act at any time
		fences := map[catalog.ImageID]int64{}
		finished := map[string]bool{}

		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			before := h.product(t, p.ID)
			step := rapid.SampledFrom([]string{
				"begin", "begin", "finish", "retry", "defer", "fail", "release", "repeat", "dup", "wait",
			}).Draw(rt, "step")
			i := rapid.IntRange(0, len(p.Images)-1).Draw(rt, "picture")
			var err error
			act := func(fn func(catalog.Attempt) error) {
				if len(attempts) > 0 {
					err = fn(attempts[rapid.IntRange(0, len(attempts)-1).Draw(rt, "attempt")])
				}
			}
			f := catalog.Fail(catalog.Timeout, "slow", nil)
			switch step {
			case "begin":
				var a catalog.Attempt
				if a, err = h.Begin(t.Context(), h.ticket(t, p.ID, i), "", budget); err == nil {
					attempts = append(attempts, a)
				}
			case "finish":
				act(func(a catalog.Attempt) error {
					err := h.Finish(t.Context(), a, result(a))
					if err == nil {
						if finished[a.Prefix] {
							rt.Fatalf("attempt %s finished twice", a.Prefix)
						}
						finished[a.Prefix] = true
					}
					return err
				})
			case "retry":
				act(func(a catalog.Attempt) error { return h.Retry(t.Context(), a, f, policy()) })
			case "defer":
				act(func(a catalog.Attempt) error { return h.Defer(t.Context(), a, f, policy(), time.Second) })
			case "dup":
				act(func(a catalog.Attempt) error {
					return h.Defer(t.Context(), catalog.Attempt{Request: a.Request}, f, policy(), time.Second)
				})
			case "fail":
				act(func(a catalog.Attempt) error { return h.Fail(t.Context(), a, f) })
			case "release":
				act(func(a catalog.Attempt) error { return h.Release(t.Context(), a) })
			case "repeat":
				err = h.Repeat(t.Context(), p.ID, p.Images[i].ID, 5*time.Minute)
			case "wait":
				h.store.now = h.store.now.Add(10 * time.Minute)
			}
			if err != nil && !errors.Is(err, catalog.ErrDone) && !errors.Is(err, catalog.ErrSuperseded) &&
				!errors.Is(err, catalog.ErrGivenUp) {
				rt.Fatalf("%s: %v", step, err)
			}
			check(rt, h, before, h.product(t, p.ID), fences)
		}
	})
}

// check holds what must always be true of a product after a step.
func check(rt *rapid.T, h *house, before, after catalog.Product, fences map[catalog.ImageID]int64) {
	if visible(before) != visible(after) && after.Version != before.Version+1 {
		rt.Fatalf("something visible changed and the version went from %d to %d", before.Version, after.Version)
	}
	if after.Version < before.Version {
		rt.Fatalf("the version went from %d to %d", before.Version, after.Version)
	}
	changed := h.store.sent(event.TypeProductChanged)
	if int64(len(changed)) != after.Version {
		rt.Fatalf("%d product.changed for version %d", len(changed), after.Version)
	}
	if !slices.Equal(after.Compressed, after.CompressedKeys()) {
		rt.Fatalf("compressed is %v, pictures say %v", after.Compressed, after.CompressedKeys())
	}
	for _, img := range after.Images {
		if img.Fence < fences[img.ID] {
			rt.Fatalf("a fence fell from %d to %d", fences[img.ID], img.Fence)
		}
		fences[img.ID] = img.Fence
		if (img.Work == catalog.Idle) != (img.Ticket == "") || img.Work == catalog.Idle && img.Status == catalog.Pending {
			rt.Fatalf("picture %d is lost: work %s, ticket %q, status %s", img.ID, img.Work, img.Ticket, img.Status)
		}
		if img.Ticket != "" && !slices.ContainsFunc(h.store.outbox, func(r outRow) bool { return r.ID == img.Ticket }) {
			rt.Fatalf("picture %d waits for ticket %s, which nobody was ever given", img.ID, img.Ticket)
		}
		for _, r := range img.Renditions {
			for prefix := range h.store.intents {
				if len(r.Key) > len(prefix) && r.Key[:len(prefix)] == prefix {
					rt.Fatalf("visible object %s will be deleted by intent %s", r.Key, prefix)
				}
			}
		}
	}
	dead := map[string]bool{}
	for _, m := range h.store.sent(event.TypeImageDead) {
		d, err := event.Decode[event.ImageDead](m.Message)
		if err != nil {
			rt.Fatal(err)
		}
		if key := fmt.Sprint(d.ImageID, d.Fence); dead[key] {
			rt.Fatalf("two dead events for picture and fence %s", key)
		} else {
			dead[key] = true
		}
	}
}
