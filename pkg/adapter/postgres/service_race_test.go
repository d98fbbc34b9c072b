package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/test/storetest"
)

func TestServiceRaces(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "finish_and_drop", run: dropAgainstFinish},
		{name: "finish_and_move", run: moveAgainstFinish},
		{name: "finish_and_delete", run: deleteAgainstFinish},
		{name: "finish_and_reprocess", run: reprocessAgainstFinish},
		{name: "patch_and_patch_one_wins", run: patchAgainstPatch},
		{name: "delete_and_delete_one_wins", run: deleteAgainstDelete},
	})
}

// emptyCache is a cache that contains nothing.
type emptyCache struct{}

func (emptyCache) Get(context.Context, catalog.ProductID) (catalog.Document, bool, error) {
	return catalog.Document{}, false, nil
}

func (emptyCache) Fill(context.Context, catalog.ProductID, catalog.Document, time.Time) (catalog.FillResult, error) {
	return catalog.TooSlow, nil
}

func (emptyCache) Invalidate(context.Context, catalog.ProductID, int64) error { return nil }

// service returns a service on the store. Its scheduled deletions are due at once, so startDue returns all of them.
func (f *fixture) service() *catalog.Service {
	revision := pipeline.NewRevision(pipeline.Default())
	return catalog.New(catalog.Deps{
		Store: f.store, Pipelines: f.store, Cache: emptyCache{}, Pipeline: func() *pipeline.Revision { return revision },
		NewID: uuid.NewString, Random: func() float64 { return 0.5 }, Now: time.Now, Log: zap.NewNop(),
	}, catalog.Config{LoadTimeout: time.Minute, InvalidateTimeout: time.Minute})
}

// rounds is the number of races, so that each call wins some of them.
const rounds = 25

// race is a product with two images, and an attempt that has rendered the first one.
type race struct {
	*catalog.Service
	p catalog.Product
	a catalog.Attempt
}

func (f *fixture) race(s *catalog.Service) race {
	f.Helper()
	p, err := s.Create(f.Context(), catalog.NewProductInput{
		UserID: f.User().ID, Name: "Lamp", Price: decimal.New(1250, -2), PriceSet: true,
		ImageURLs: []string{"https://example.com/a.jpg", "https://example.com/b.jpg"},
	}, "")
	f.Must(err, "create")
	job := catalog.Job{ProductID: p.ID, ImageID: p.Images[0].ID, JobID: p.Images[0].JobID}
	a, err := s.Begin(f.Context(), job, 0)
	f.Must(err, "begin")
	return race{s, p, a}
}

// against finishes the attempt while fn changes the product, and returns the product, whether the attempt finished, and the
// prefixes that will be deleted.
func (f *fixture) against(s *catalog.Service, fn func(m race) error) (
	m race, after catalog.Product, won bool, deleted []string,
) {
	f.Helper()
	m = f.race(s)
	var finish, change error
	storetest.Together(2, func(i int) {
		if i == 0 {
			finish = m.Finish(f.Context(), m.a, catalog.Result{Renditions: []catalog.Rendition{
				{Name: "full", Format: pipeline.JPEG, Key: m.a.Prefix + "full.jpg", Default: true},
			}})
			return
		}
		change = fn(m)
	})
	f.Must(change, "change the product")
	if finish != nil && !errors.Is(finish, catalog.ErrSuperseded) {
		f.Fatalf("finish: %v", finish)
	}
	after = f.Load(m.p.ID)
	if !after.Deleted {
		f.Same(after.Compressed, after.CompressedKeys(), "compressed keys of the product and of its images")
	}
	return m, after, finish == nil, f.startDue(100, time.Hour)
}

// checkObjects ends the test if the attempt's objects are both visible and scheduled for deletion, or neither. It returns
// whether they are visible.
func (f *fixture) checkObjects(m race, after catalog.Product, deleted []string) (visible bool) {
	f.Helper()
	visible = slices.Contains(after.Compressed, m.a.Prefix+"full.jpg")
	if scheduled := slices.Contains(deleted, m.a.Prefix); scheduled == visible {
		f.Fatalf("the objects below %s are visible: %v, will be deleted: %v", m.a.Prefix, visible, scheduled)
	}
	return visible
}

func dropAgainstFinish(f *fixture) {
	s, wins := f.service(), 0
	for range rounds {
		m, after, won, deleted := f.against(s, func(m race) error {
			_, err := m.Patch(f.Context(), m.p.ID, catalog.ProductPatch{ImageURLs: &[]string{"https://example.com/b.jpg"}}, nil, "")
			return err
		})
		if won {
			wins++
		}
		if f.checkObjects(m, after, deleted) || len(after.Images) != 1 || after.Images[0].ID != m.p.Images[1].ID {
			f.Fatalf("got %+v, want only the second image", after)
		}
	}
	f.Logf("finished first %d times of %d", wins, rounds)
}

func moveAgainstFinish(f *fixture) {
	s := f.service()
	for range rounds {
		urls := []string{"https://example.com/b.jpg", "https://example.com/c.jpg", "https://example.com/a.jpg"}
		m, after, won, deleted := f.against(s, func(m race) error {
			_, err := m.Patch(f.Context(), m.p.ID, catalog.ProductPatch{ImageURLs: &urls}, nil, "")
			return err
		})
		if !won || !f.checkObjects(m, after, deleted) {
			f.Fatalf("got %+v, want the outcome of the attempt, because its image is kept", after)
		}
		img := after.Images[2]
		if img.ID != m.a.ImageID || img.Status != catalog.Ready || after.Revision != 2 || after.Version != 3 {
			f.Fatalf("got %+v, want the image at its new position", after)
		}
	}
}

func deleteAgainstFinish(f *fixture) {
	s, wins := f.service(), 0
	for range rounds {
		m, after, won, deleted := f.against(s, func(m race) error { return m.Delete(f.Context(), m.p.ID, nil, "") })
		if won {
			wins++
		}
		if f.checkObjects(m, after, deleted) || !after.Deleted {
			f.Fatalf("got %+v, want it deleted", after)
		}
	}
	f.Logf("finished first %d times of %d", wins, rounds)
}

func reprocessAgainstFinish(f *fixture) {
	s, wins := f.service(), 0
	for range rounds {
		m, after, won, deleted := f.against(s, func(m race) error {
			_, err := m.Reprocess(f.Context(), m.p.ID, m.a.ImageID, "")
			return err
		})
		img := after.Images[0]
		if visible := f.checkObjects(m, after, deleted); visible != won || (img.Status == catalog.Ready) != won {
			f.Fatalf("got %+v and visible %v, want it ready and visible only if the attempt finished: %v", img, visible, won)
		}
		if img.JobState != catalog.Queued || img.JobID == m.a.JobID {
			f.Fatalf("got %+v, want it queued as a new job", img)
		}
		if won {
			wins++
		}
	}
	f.Logf("finished first %d times of %d", wins, rounds)
}

func patchAgainstPatch(f *fixture) {
	const clients = 4
	s := f.service()
	for range rounds / 2 {
		m := f.race(s)
		var mu sync.Mutex
		var winner []string
		refused := 0
		storetest.Together(clients, func(i int) {
			urls := []string{fmt.Sprintf("https://example.com/client-%d.jpg", i), "https://example.com/a.jpg"}
			_, err := m.Patch(f.Context(), m.p.ID, catalog.ProductPatch{ImageURLs: &urls}, catalog.Revisions{1}, "")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				winner = urls
			case errors.Is(err, catalog.ErrRevision):
				refused++
			default:
				f.Errorf("patch: %v", err)
			}
		})
		got := f.Load(m.p.ID)
		if refused != clients-1 || got.Revision != 2 || got.Version != 2 || got.Images[1].ID != m.a.ImageID {
			f.Fatalf("%d refused, and %+v: want one winner", refused, got)
		}
		f.Same(got.ImageURLs, winner, "product_images")
	}
}

func deleteAgainstDelete(f *fixture) {
	const clients = 4
	s := f.service()
	for range rounds / 2 {
		m := f.race(s)
		var mu sync.Mutex
		done := 0
		storetest.Together(clients, func(int) {
			err := m.Delete(f.Context(), m.p.ID, nil, "")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done++
			}
		})
		if got := f.Load(m.p.ID); done != 1 || got.Version != 2 || !got.Deleted {
			f.Fatalf("deleted %d times, and %+v: want once", done, got)
		}
	}
}
