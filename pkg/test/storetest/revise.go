package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
	"go.uber.org/zap"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/pipeline"
)

func revisionRaces() []test {
	return []test{
		{name: "a picture that finishes while it is dropped is published or goes", run: dropAgainstFinish},
		{name: "a picture that finishes while it moves is published at its new place", run: moveAgainstFinish},
		{name: "a picture that finishes while its product is deleted leaves nothing", run: deleteAgainstFinish},
		{name: "a picture that finishes while it is asked for anew is made again", run: reprocessAgainstFinish},
		{name: "of two that change what both have seen one is told", run: patchAgainstPatch},
		{name: "of two that delete one product one is told that it is gone", run: deleteAgainstDelete},
	}
}

// deaf is a cache that holds nothing.
type deaf struct{}

func (deaf) Get(context.Context, catalog.ProductID) (catalog.Document, bool, error) {
	return catalog.Document{}, false, nil
}

func (deaf) Fill(context.Context, catalog.ProductID, catalog.Document, time.Time) (catalog.FillOutcome, error) {
	return catalog.TooSlow, nil
}

func (deaf) Forget(context.Context, catalog.ProductID, int64) error { return nil }

// service returns the catalogue on the store. All intents are due at once, so that a look tells which there are.
func (b *bench) service() *catalog.Service {
	revision := pipeline.Seal(pipeline.Default())
	return catalog.New(catalog.Parts{
		Store: b.Store, Pipelines: b.Pipelines, Cache: deaf{}, Pipeline: func() *pipeline.Revision { return revision },
		NewID: uuid.NewString, Random: func() float64 { return 0.5 }, Now: time.Now, Log: zap.NewNop(),
	}, catalog.Config{LoadTimeout: time.Minute, ForgetTimeout: time.Minute})
}

// rounds is how often two meet: often enough that each of them wins now and then.
const rounds = 25

// meeting is a product with two pictures, of which an attempt has made the first.
type meeting struct {
	*catalog.Service
	p catalog.Product
	a catalog.Attempt
}

func (b *bench) meet(s *catalog.Service) meeting {
	b.Helper()
	p, err := s.Create(b.ctx(), catalog.NewProductInput{
		UserID: b.user().ID, Name: "Lamp", Price: decimal.New(1250, -2), PriceSet: true,
		ImageURLs: []string{"https://example.com/a.jpg", "https://example.com/b.jpg"},
	}, "")
	b.must(err, "create")
	r := catalog.Request{ProductID: p.ID, ImageID: p.Images[0].ID, Ticket: p.Images[0].Ticket}
	a, err := s.Begin(b.ctx(), r, "", 0)
	b.must(err, "begin")
	return meeting{s, p, a}
}

// against finishes the attempt while fn changes the product, and returns the product, whether the attempt finished, and the
// prefixes that will be deleted.
func (b *bench) against(s *catalog.Service, fn func(m meeting) error) (
	m meeting, after catalog.Product, won bool, going []string,
) {
	b.Helper()
	m = b.meet(s)
	var finish, change error
	together(2, func(i int) {
		if i == 0 {
			finish = m.Finish(b.ctx(), m.a, catalog.Result{Renditions: []catalog.Rendition{
				{Name: "full", Format: pipeline.JPEG, Key: m.a.Prefix + "full.jpg", Default: true},
			}})
			return
		}
		change = fn(m)
	})
	b.must(change, "change the product")
	if finish != nil && !errors.Is(finish, catalog.ErrSuperseded) {
		b.Fatalf("finish: %v", finish)
	}
	after = b.load(m.p.ID)
	if !after.Deleted {
		b.same(after.Compressed, after.CompressedKeys(), "compressed, beside what the pictures say")
	}
	return m, after, finish == nil, b.doom(100, time.Hour)
}

// settledAs reports objects that are both visible and about to go, or neither.
func (b *bench) settledAs(m meeting, after catalog.Product, going []string) (visible bool) {
	b.Helper()
	visible = slices.Contains(after.Compressed, m.a.Prefix+"full.jpg")
	if goes := slices.Contains(going, m.a.Prefix); goes == visible {
		b.Fatalf("the objects below %s are visible: %v, will be deleted: %v", m.a.Prefix, visible, goes)
	}
	return visible
}

func dropAgainstFinish(b *bench) {
	s, wins := b.service(), 0
	for range rounds {
		m, after, won, going := b.against(s, func(m meeting) error {
			_, err := m.Patch(b.ctx(), m.p.ID, catalog.ProductPatch{ImageURLs: &[]string{"https://example.com/b.jpg"}}, nil, "")
			return err
		})
		if won {
			wins++
		}
		if b.settledAs(m, after, going) || len(after.Images) != 1 || after.Images[0].ID != m.p.Images[1].ID {
			b.Fatalf("got %+v, want the second picture alone", after)
		}
	}
	b.Logf("finished first %d times of %d", wins, rounds)
}

func moveAgainstFinish(b *bench) {
	s := b.service()
	for range rounds {
		urls := []string{"https://example.com/b.jpg", "https://example.com/c.jpg", "https://example.com/a.jpg"}
		m, after, won, going := b.against(s, func(m meeting) error {
			_, err := m.Patch(b.ctx(), m.p.ID, catalog.ProductPatch{ImageURLs: &urls}, nil, "")
			return err
		})
		if !won || !b.settledAs(m, after, going) {
			b.Fatalf("got %+v, want the attempt's outcome: its picture stayed", after)
		}
		img := after.Images[2]
		if img.ID != m.a.ImageID || img.Status != catalog.Ready || after.Revision != 2 || after.Version != 3 {
			b.Fatalf("got %+v, want the picture at its new place", after)
		}
	}
}

func deleteAgainstFinish(b *bench) {
	s, wins := b.service(), 0
	for range rounds {
		m, after, won, going := b.against(s, func(m meeting) error { return m.Delete(b.ctx(), m.p.ID, nil, "") })
		if won {
			wins++
		}
		if b.settledAs(m, after, going) || !after.Deleted {
			b.Fatalf("got %+v, want it deleted", after)
		}
	}
	b.Logf("finished first %d times of %d", wins, rounds)
}

func reprocessAgainstFinish(b *bench) {
	s, wins := b.service(), 0
	for range rounds {
		m, after, won, going := b.against(s, func(m meeting) error {
			_, err := m.Reprocess(b.ctx(), m.p.ID, m.a.ImageID, "")
			return err
		})
		img := after.Images[0]
		if visible := b.settledAs(m, after, going); visible != won || (img.Status == catalog.Ready) != won {
			b.Fatalf("got %+v and visible %v, want what the attempt finished, if it did: %v", img, visible, won)
		}
		if img.Work != catalog.Queued || img.Ticket == m.a.Ticket {
			b.Fatalf("got %+v, want it asked for anew", img)
		}
		if won {
			wins++
		}
	}
	b.Logf("finished first %d times of %d", wins, rounds)
}

func patchAgainstPatch(b *bench) {
	const clients = 4
	s := b.service()
	for range rounds / 2 {
		m := b.meet(s)
		var mu sync.Mutex
		var winner []string
		refused := 0
		together(clients, func(i int) {
			urls := []string{fmt.Sprintf("https://example.com/client-%d.jpg", i), "https://example.com/a.jpg"}
			_, err := m.Patch(b.ctx(), m.p.ID, catalog.ProductPatch{ImageURLs: &urls}, catalog.Revisions{1}, "")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				winner = urls
			case errors.Is(err, catalog.ErrRevision):
				refused++
			default:
				b.Errorf("patch: %v", err)
			}
		})
		got := b.load(m.p.ID)
		if refused != clients-1 || got.Revision != 2 || got.Version != 2 || got.Images[1].ID != m.a.ImageID {
			b.Fatalf("%d refused, and %+v: want one winner", refused, got)
		}
		b.same(got.ImageURLs, winner, "product_images")
	}
}

func deleteAgainstDelete(b *bench) {
	const clients = 4
	s := b.service()
	for range rounds / 2 {
		m := b.meet(s)
		var mu sync.Mutex
		done := 0
		together(clients, func(int) {
			err := m.Delete(b.ctx(), m.p.ID, nil, "")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done++
			}
		})
		if got := b.load(m.p.ID); done != 1 || got.Version != 2 || !got.Deleted {
			b.Fatalf("deleted %d times, and %+v: want once", done, got)
		}
	}
}
