package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

func everyFieldIsWritten(f *Fixture) {
	p := f.Product(3)
	edited := f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Name, p.Description, p.Price = "Desk", "A desk.", decimal.RequireFromString("99.99")
		p.Images[0] = Finished(p.Images[0], "products/1/1/1-a/")
		img := &p.Images[2]
		img.Status, img.ErrorCode, img.ErrorDetail = catalog.Failed, media.HTTPStatus, "404 not found"
		img.JobState, img.JobID, img.FencingToken = catalog.Processing, uuid.NewString(), 7
		img.UnreportedAttempts, img.Attempts = 2, 3
		img.ReprocessError, img.PipelineHash, img.PoisonSHA256 = media.Corrupt, "another", "00aa"
		img.RequestedAt = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC) // finer than microseconds
		img.DueAt, img.NotBefore = img.RequestedAt.Add(time.Minute), img.RequestedAt.Add(time.Second)
		img.Class, img.Host, img.Traceparent = catalog.Live, "example.org", "trace"
		img.DeferredSince = img.RequestedAt.Add(time.Hour)
		p.Compressed = p.CompressedKeys()
		p.Version++
		return catalog.Change{}
	})
	got := f.Load(p.ID)
	f.Same(got, edited, "the product as read, compared with the result of Edit")
	f.Same(got.Images[1], p.Images[1], "the image that was not edited")
	if got.Name != "Desk" || got.Description != "A desk." || got.Price.String() != "99.99" || got.Version != 2 {
		f.Errorf("got %+v, want the edit", got)
	}
	f.Same(got.Images[0], Finished(p.Images[0], "products/1/1/1-a/"), "the finished image")
	if d := got.Images[0].Dropped; len(d) != 2 || d[1].Reason != media.LargerThanSibling {
		f.Errorf("got %+v dropped, want both", d)
	}
	f.Same(got.Compressed, []string{"products/1/1/1-a/full.jpg"}, "compressed")
	img := got.Images[2]
	if img.FencingToken != 7 || img.UnreportedAttempts != 2 || img.Attempts != 3 || img.ReprocessError != media.Corrupt ||
		img.ErrorDetail != "404 not found" || img.PoisonSHA256 != "00aa" || img.DueAt.Sub(img.RequestedAt) != time.Minute {
		f.Errorf("got %+v, want the edit", img)
	}
}

func oneFieldIsWritten(f *Fixture) {
	p := f.Product(0)
	for name, fn := range map[string]func(p *catalog.Product){
		"name":        func(p *catalog.Product) { p.Name = "Desk" },
		"description": func(p *catalog.Product) { p.Description = "A desk." },
		"price":       func(p *catalog.Product) { p.Price = decimal.RequireFromString("99.99") },
		"compressed":  func(p *catalog.Product) { p.Compressed = []string{"products/1/1/1-a/full.jpg"} },
	} {
		want := f.Change(p.ID, func(p *catalog.Product) catalog.Change { fn(p); return catalog.Change{} })
		f.Same(f.Load(p.ID), want, name)
	}
}

func everyFieldIsCleared(f *Fixture) {
	p := f.Product(1)
	full := f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0] = Finished(p.Images[0], "products/1/1/1-a/")
		p.Compressed = p.CompressedKeys()
		return catalog.Change{}
	})
	if full.Images[0].JobID != "" || len(full.Compressed) != 1 {
		f.Fatalf("got %+v, want a finished image", full)
	}
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		old := p.Images[0]
		p.Images[0] = catalog.Image{
			ID: old.ID, ProductID: old.ProductID, SourceURL: old.SourceURL, Status: catalog.Pending, JobState: catalog.Idle,
		}
		p.Description, p.Compressed = "", nil
		return catalog.Change{}
	})
	got := f.Load(p.ID)
	want := p.Images[0]
	f.Same(got.Images[0], catalog.Image{
		ID: want.ID, ProductID: p.ID, SourceURL: want.SourceURL, Status: catalog.Pending, JobState: catalog.Idle,
	}, "the image")
	if got.Description != "" || len(got.Compressed) != 0 {
		f.Errorf("got %q and %v, want neither", got.Description, got.Compressed)
	}
}

func functionSeesImagesAndTime(f *Fixture) {
	p := f.Product(3)
	_, err := f.Store.Edit(f.Context(), p.ID, func(seen *catalog.Product, now time.Time) (catalog.Change, error) {
		f.Same(*seen, p, "what the function sees")
		if now.Before(p.CreatedAt) || now.Location() != time.UTC {
			f.Errorf("got now %s, want UTC after %s", now, p.CreatedAt)
		}
		return catalog.Change{}, nil
	})
	f.Must(err, "edit")
}

func onlyNewVersionMovesUpdateTime(f *Fixture) {
	p := f.Product(1)
	invisible := f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Images[0].FencingToken++
		return catalog.Change{}
	})
	if !invisible.UpdatedAt.Equal(p.UpdatedAt) {
		f.Errorf("got %s, want still %s: clients do not see a fencing token", invisible.UpdatedAt, p.UpdatedAt)
	}
	visible := f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Version++
		return catalog.Change{}
	})
	if !visible.UpdatedAt.After(p.UpdatedAt) {
		f.Errorf("got %s, want after %s", visible.UpdatedAt, p.UpdatedAt)
	}
	f.Same(f.Load(p.ID), visible, "the product")
}

func unchangedProductIsNotWritten(f *Fixture) {
	p := f.Product(2)
	got := f.Change(p.ID, func(*catalog.Product) catalog.Change { return catalog.Change{} })
	f.Same(got, p, "what Edit returns")
	f.Same(f.Load(p.ID), p, "the product")
}

func functionErrorUndoesEdit(f *Fixture) {
	p := f.Product(1)
	for _, want := range []error{
		errors.New("no"), catalog.ErrSuperseded, fmt.Errorf("call: %w", context.DeadlineExceeded),
	} {
		_, err := f.Store.Edit(f.Context(), p.ID, func(p *catalog.Product, _ time.Time) (catalog.Change, error) {
			p.Version++
			p.Images[0].FencingToken++
			return catalog.Change{Outbox: []catalog.Outgoing{{Message: Message(p.ID)}}}, want
		})
		if err != want { //nolint:errorlint // the error must be unwrapped
			f.Errorf("got %v, want %v itself", err, want)
		}
	}
	f.Same(f.Load(p.ID), p, "the product")
	if sent := f.takeDue(); len(sent) != 0 {
		f.Errorf("got %d messages, want none", len(sent))
	}
}

func functionPanicUndoesEdit(f *Fixture) {
	p := f.Product(1)
	func() {
		defer func() { _ = recover() }()
		_, _ = f.Store.Edit(f.Context(), p.ID, func(p *catalog.Product, _ time.Time) (catalog.Change, error) {
			p.Version++
			panic("a defect")
		})
	}()
	f.Same(f.Load(p.ID), p, "the product")
	f.Change(p.ID, func(p *catalog.Product) catalog.Change { // blocks if the lock is still held
		p.Version++
		return catalog.Change{}
	})
}

func unstorableMessageUndoesEdit(f *Fixture) {
	p := f.Product(1)
	_, err := f.Store.Edit(f.Context(), p.ID, Unfailing(func(p *catalog.Product) catalog.Change {
		p.Version++
		p.Images[0].FencingToken++
		broken := Message(p.ID)
		broken.ID = "not a UUID"
		return catalog.Change{
			Deletions: []catalog.ScheduledDeletion{{Prefix: "products/1/1/1-a/", ImageID: p.Images[0].ID}},
			Outbox:    []catalog.Outgoing{{Message: broken}},
		}
	}))
	if err == nil {
		f.Error("a message without a UUID was accepted")
	}
	f.Same(f.Load(p.ID), p, "the product")
	f.WantError(f.CancelDeletions(p.ID, "products/1/1/1-a/"), catalog.ErrDeletionStarted, "cancel a deletion that was undone")
}

func versionNeverFalls(f *Fixture) {
	p := f.Product(0)
	f.Change(p.ID, func(p *catalog.Product) catalog.Change {
		p.Version = 7 // 6 would be a valid version too
		return catalog.Change{}
	})
	_, err := f.Store.Edit(f.Context(), p.ID, Unfailing(func(p *catalog.Product) catalog.Change {
		p.Version--
		return catalog.Change{}
	}))
	f.WantKind(err, fault.Internal, "an older version")
}

func concurrentEditsAreKept(f *Fixture) {
	const images = 8
	p := f.Product(images)
	Together(images, func(i int) {
		_, err := f.Store.Edit(f.Context(), p.ID, Unfailing(func(p *catalog.Product) catalog.Change {
			p.Images[i] = Finished(p.Images[i], fmt.Sprintf("products/1/%d/1-a/", i))
			p.Compressed = p.CompressedKeys()
			p.Version++
			return catalog.Change{}
		}))
		if err != nil {
			f.Errorf("finish image %d: %v", i, err)
		}
	})
	got := f.Load(p.ID)
	f.Same(got.Compressed, got.CompressedKeys(), "compressed, compared with the images' keys")
	if len(got.Compressed) != images || got.Version != 1+images {
		f.Errorf("got %d compressed and version %d, want %d and %d", len(got.Compressed), got.Version, images, 1+images)
	}
}

func timeIsReadAfterLock(f *Fixture) {
	p := f.Product(0)
	var mu sync.Mutex
	times := map[int64]time.Time{}
	Together(6, func(int) {
		for range 5 {
			_, err := f.Store.Edit(f.Context(), p.ID, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
				p.Version++
				mu.Lock()
				defer mu.Unlock()
				times[p.Version] = now
				return catalog.Change{}, nil
			})
			if err != nil {
				f.Errorf("edit: %v", err)
			}
		}
	})
	for version := int64(3); version <= 31; version++ {
		if times[version].Before(times[version-1]) {
			f.Errorf("version %d is of %s, before version %d of %s", version, times[version], version-1, times[version-1])
		}
	}
}
