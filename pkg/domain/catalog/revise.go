package catalog

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

// ProductPatch is what a client wants changed. What is nil stays.
type ProductPatch struct {
	Name        *string
	Description *string
	Price       *decimal.Decimal
	ImageURLs   *[]string
}

// Revisions are those that a client has seen and whose change it wants to make. nil: whatever the product's revision is.
type Revisions []int64

// ErrRevision says that somebody else has changed the product since the client saw it.
var ErrRevision = fault.New(fault.Conflict, "revision_mismatch", "the product has been changed since; read it again")

// CheckPatch returns every wrong field.
func CheckPatch(patch ProductPatch) []fault.Field {
	var c checker
	if patch.Name != nil {
		c.text("product_name", *patch.Name, 1, MaxNameChars)
	}
	if patch.Description != nil {
		c.text("product_description", *patch.Description, 0, MaxDescriptionChars)
	}
	if patch.Price != nil {
		c.price("product_price", *patch.Price, true)
	}
	if patch.ImageURLs != nil {
		c.imageURLs("product_images", *patch.ImageURLs)
	}
	return c.wrong
}

// Patch changes a product and asks for the pictures that are new to it, in one transaction. A picture whose URL stays keeps
// its row, its state and its renditions, wherever it stands now; the objects of those that go are deleted after the grace. A
// patch that changes nothing writes nothing. fault.Invalid lists every wrong field; fault.NotFound if there is no such
// product; ErrRevision if its revision is not one of seen; ErrOutcomeUnknown as for Create.
func (s *Service) Patch(ctx context.Context, id ProductID, patch ProductPatch, seen Revisions, traceparent string,
) (Product, error) {
	if err := fault.InvalidFields(CheckPatch(patch)); err != nil {
		return Product{}, err
	}
	r := patchRequest{ProductPatch: patch, changedID: s.NewID(), traceparent: traceparent, grace: s.cfg.DeletionGrace}
	if patch.ImageURLs != nil {
		var err error
		if r.hash, err = s.recordPipeline(ctx); err != nil {
			return Product{}, fmt.Errorf("record pipeline: %w", err)
		}
		for range *patch.ImageURLs {
			r.jobIDs = append(r.jobIDs, s.NewID())
		}
	}
	return s.revise(ctx, id, seen, "patch product", func(p *Product, now time.Time) (Change, error) {
		return p.patch(r, now), nil
	})
}

// Delete removes a product and its pictures; their objects are deleted after the grace. fault.NotFound if there is no such
// product, or no longer; ErrRevision and ErrOutcomeUnknown as for Patch.
func (s *Service) Delete(ctx context.Context, id ProductID, seen Revisions, traceparent string) error {
	changedID := s.NewID()
	_, err := s.revise(ctx, id, seen, "delete product", func(p *Product, _ time.Time) (Change, error) {
		return p.markDeleted(s.cfg.DeletionGrace, traceparent, changedID), nil
	})
	return err
}

// Reprocess asks for a picture anew, with the pipeline in force, whatever its state: work on it is superseded, and its tries
// count from zero. A picture that is ready stays visible until it is replaced. fault.NotFound if there is no such product or
// picture.
func (s *Service) Reprocess(ctx context.Context, product ProductID, image ImageID, traceparent string) (Product, error) {
	return s.reprocess(ctx, product, image, 0, traceparent, func(*Image, time.Time) bool { return true })
}

// Replay asks anew for a picture that was given up by the attempt with that fence, as a dead event tells it. ErrDone if
// anything has happened to it since; fault.NotFound as for Reprocess.
func (s *Service) Replay(ctx context.Context, product ProductID, image ImageID, fence int64) error {
	_, err := s.reprocess(ctx, product, image, 0, "", func(img *Image, _ time.Time) bool {
		return img.JobState == Idle && img.FencingToken == fence && (img.Status == Failed || img.ReprocessError != "")
	})
	return err
}

// ReprocessIf asks anew for a picture that was selected, not before delay has passed. ErrDone if it is in work, or is no longer
// what was selected; fault.NotFound as for Reprocess.
func (s *Service) ReprocessIf(ctx context.Context, product ProductID, image ImageID, which Filter, delay time.Duration) error {
	_, err := s.reprocess(ctx, product, image, delay, "", func(img *Image, now time.Time) bool {
		return img.JobState == Idle && which.Matches(*img, now)
	})
	return err
}

// Filter says which pictures are meant. What is zero does not matter.
type Filter struct {
	Status       Status
	Code         media.Code    // why it failed, or why it could not be remade
	OlderThan    time.Duration // since it was last asked for
	PipelineHash string        // the specification that was last asked for
}

// Matches reports whether the picture is one of those meant.
func (s Filter) Matches(img Image, now time.Time) bool {
	return (s.Status == "" || img.Status == s.Status) &&
		(s.Code == "" || img.ErrorCode == s.Code || img.ReprocessError == s.Code) &&
		(s.OlderThan == 0 || now.Sub(img.RequestedAt) > s.OlderThan) &&
		(s.PipelineHash == "" || img.PipelineHash == s.PipelineHash)
}

// BulkResult is what became of one call that asks for many pictures anew.
type BulkResult struct {
	Requested int           // asked for
	Skipped   int           // selected, but in work or changed before their turn came
	Next      ImageID       // the last picture looked at: the next call goes on after it; 0 if none are left
	Spread    time.Duration // until the last of those requested is due
}

func (s *Service) reprocess(ctx context.Context, product ProductID, image ImageID, delay time.Duration, traceparent string,
	wanted func(*Image, time.Time) bool,
) (Product, error) {
	hash, err := s.recordPipeline(ctx)
	if err != nil {
		return Product{}, fmt.Errorf("record pipeline: %w", err)
	}
	ask := reprocessRequest{hash: hash, jobID: s.NewID(), changedID: s.NewID(), traceparent: traceparent, delay: delay}
	return s.revise(ctx, product, nil, "reprocess picture", func(p *Product, now time.Time) (Change, error) {
		img := p.image(image)
		if img == nil {
			return Change{}, fault.New(fault.NotFound, "image_not_found", "the product has no such picture")
		}
		if !wanted(img, now) {
			return Change{}, ErrDone
		}
		return p.reprocess(img, ask, now), nil
	})
}

// revise writes a client's change to a product of which it has seen those revisions, and tells the cache.
func (s *Service) revise(ctx context.Context, id ProductID, seen Revisions, verb string,
	fn func(*Product, time.Time) (Change, error),
) (Product, error) {
	var before int64
	p, err := s.Store.Edit(ctx, id, func(p *Product, now time.Time) (Change, error) {
		if err := p.checkRevision(seen); err != nil {
			return Change{}, err
		}
		before = p.Version
		return fn(p, now)
	})
	if err != nil {
		return Product{}, fmt.Errorf("%s: %w", verb, err)
	}
	failpoint.Hit(failpoint.RevisionCommitted)
	if p.Version != before {
		s.invalidate(ctx, p.ID, p.Version)
		s.Wake()
	}
	return p, nil
}

// checkRevision says why a client that has seen those revisions may not change the product, or nil.
func (p *Product) checkRevision(seen Revisions) error {
	switch {
	case p.Deleted:
		return fault.New(fault.NotFound, "product_not_found", "there is no such product")
	case seen != nil && !slices.Contains(seen, p.Revision):
		return ErrRevision
	default:
		return nil
	}
}

// patchRequest is a patch with everything that carrying it out takes.
type patchRequest struct {
	ProductPatch
	hash                   string   // of the specification for new pictures
	jobIDs                 []string // one for each place
	changedID, traceparent string
	grace                  time.Duration
}

// patch carries a revision out, as far as it changes anything.
func (p *Product) patch(r patchRequest, now time.Time) Change {
	var c Change
	changed := false
	if r.Name != nil && *r.Name != p.Name {
		p.Name, changed = *r.Name, true
	}
	if r.Description != nil && *r.Description != p.Description {
		p.Description, changed = *r.Description, true
	}
	if r.Price != nil && !r.Price.Equal(p.Price) {
		p.Price, changed = *r.Price, true
	}
	if r.ImageURLs != nil && !slices.Equal(*r.ImageURLs, p.ImageURLs) {
		c, changed = p.replaceImages(r, now), true
	}
	if !changed {
		return Change{}
	}
	p.Revision++
	c.Outbox = append(c.Outbox, p.bumpVersion(r.traceparent, r.changedID))
	return c
}

// replaceImages gives the product the pictures that the revision names. Of two pictures with one URL the first place is the
// first one's.
func (p *Product) replaceImages(r patchRequest, now time.Time) Change {
	left := slices.Clone(p.Images)
	p.ImageURLs, p.Images = slices.Clone(*r.ImageURLs), make([]Image, 0, len(*r.ImageURLs))
	for i, source := range p.ImageURLs {
		had := slices.IndexFunc(left, func(img Image) bool { return img.SourceURL == source })
		var img Image
		if had >= 0 {
			img = left[had]
			left = slices.Delete(left, had, had+1)
		} else {
			img = Image{ProductID: p.ID, SourceURL: source, Status: Pending, PipelineHash: r.hash, RequestedAt: now}
			img.queue(r.jobIDs[i], now, 0)
		}
		img.Position = i
		p.Images = append(p.Images, img)
	}
	c := Change{Announce: func(p Product) []Outgoing {
		var out []Outgoing
		for _, img := range p.Images {
			if slices.Contains(r.jobIDs, img.JobID) {
				out = append(out, img.jobMessage(r.traceparent, 0))
			}
		}
		return out
	}}
	for _, img := range left {
		c.Deletions = append(c.Deletions, img.scheduleDeletion(r.grace)...)
	}
	return c
}

// markDeleted ends the product: what works on its pictures holds them no longer, and what clients saw of them goes.
func (p *Product) markDeleted(grace time.Duration, traceparent, changedID string) Change {
	var c Change
	for i := range p.Images {
		img := &p.Images[i]
		img.FencingToken++
		img.JobState, img.JobID, img.DueAt = Idle, "", time.Time{}
		c.Deletions = append(c.Deletions, img.scheduleDeletion(grace)...)
	}
	p.Deleted = true
	p.Revision++
	c.Outbox = append(c.Outbox, p.bumpVersion(traceparent, changedID))
	return c
}
