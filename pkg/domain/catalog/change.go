package catalog

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
)

// ProductPatch is a client's change of a product. A nil field stays as it is.
type ProductPatch struct {
	Name        *string
	Description *string
	Price       *decimal.Decimal
	ImageURLs   *[]string
}

// Revisions are the revisions of a product to which a client's change applies. With nil it applies to every revision.
type Revisions []int64

// ErrRevision says that the product has been changed since the client read it.
var ErrRevision = fault.New(fault.Conflict, "revision_mismatch", "the product has been changed since; read it again")

// Normalized returns patch with its texts as they are stored, see [NewProductInput.Normalized].
func (patch ProductPatch) Normalized() ProductPatch {
	if patch.Name != nil {
		patch.Name = new(normalize(*patch.Name))
	}
	if patch.Description != nil {
		patch.Description = new(normalizeLines(*patch.Description))
	}
	return patch
}

// CheckPatch returns every wrong field of the normalized patch.
func CheckPatch(patch ProductPatch) []fault.Field {
	var c checker
	patch = patch.Normalized()
	if patch.Name != nil {
		c.name("product_name", *patch.Name)
	}
	if patch.Description != nil {
		c.text("product_description", *patch.Description, MaxDescriptionChars, invalidLines)
	}
	if patch.Price != nil {
		c.price("product_price", *patch.Price, true)
	}
	if patch.ImageURLs != nil {
		c.imageURLs("product_images", *patch.ImageURLs)
	}
	return c.Fields()
}

// Patch changes a product and queues its new images, in one transaction. An image whose URL stays keeps its row, its
// state and its renditions, at any position; the objects of removed images are deleted after Config.DeletionGrace. A
// patch without effect writes nothing. It returns a fault.Invalid that lists every wrong field, fault.NotFound if the
// product does not exist, ErrRevision if its revision is not in seen, or ErrOutcomeUnknown if the change may have been
// committed.
func (s *Service) Patch(ctx context.Context, id ProductID, patch ProductPatch, seen Revisions, traceparent string,
) (Product, error) {
	patch = patch.Normalized()
	if err := fault.InvalidFields(CheckPatch(patch)); err != nil {
		return Product{}, err
	}
	r := patchRequest{ProductPatch: patch, changedID: s.NewID(), traceparent: traceparent, grace: s.cfg.DeletionGrace}
	if patch.ImageURLs != nil {
		var err error
		if r.hash, err = s.RecordPipeline(ctx); err != nil {
			return Product{}, fmt.Errorf("record pipeline: %w", err)
		}
		for range *patch.ImageURLs {
			r.jobIDs = append(r.jobIDs, s.NewID())
		}
	}
	return s.change(ctx, id, seen, "patch product", func(p *Product, now time.Time) (Change, error) {
		return p.patch(r, now), nil
	})
}

// Delete removes a product and its images; their objects are deleted after Config.DeletionGrace. It returns
// fault.NotFound if the product does not exist or is deleted, and otherwise the same errors as Patch.
func (s *Service) Delete(ctx context.Context, id ProductID, seen Revisions, traceparent string) error {
	changedID := s.NewID()
	_, err := s.change(ctx, id, seen, "delete product", func(p *Product, _ time.Time) (Change, error) {
		return p.markDeleted(s.cfg.DeletionGrace, traceparent, changedID), nil
	})
	return err
}

// change writes a client's change to a product whose revision is in seen, then invalidates the cache. verb names the change
// in errors.
func (s *Service) change(ctx context.Context, id ProductID, seen Revisions, verb string,
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
	if p.Version != before {
		s.afterChange(ctx, p)
	}
	return p, nil
}

// afterChange invalidates the cache and wakes the relay after a visible change.
func (s *Service) afterChange(ctx context.Context, p Product) {
	failpoint.Hit(failpoint.RevisionCommitted)
	s.invalidate(ctx, p.ID, p.Version)
	s.Wake()
}

// checkRevision returns an error if the product is deleted or its revision is not in seen.
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

// patchRequest is a patch, with the random and external values that the pure function Product.patch needs.
type patchRequest struct {
	ProductPatch
	hash                   string   // of the pipeline for new images
	jobIDs                 []string // one for each position
	changedID, traceparent string
	grace                  time.Duration
}

// patch applies r. The Change is empty if r changes nothing.
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
	c.Outbox = append(c.Outbox, p.incrementVersion(r.traceparent, r.changedID))
	return c
}

// replaceImages gives the product the images that r names. Images with the same URL keep their order.
func (p *Product) replaceImages(r patchRequest, now time.Time) Change {
	removed := slices.Clone(p.Images) // minus those that are kept
	p.ImageURLs, p.Images = slices.Clone(*r.ImageURLs), make([]Image, 0, len(*r.ImageURLs))
	for i, source := range p.ImageURLs {
		kept := slices.IndexFunc(removed, func(img Image) bool { return img.SourceURL == source })
		var img Image
		if kept >= 0 {
			img = removed[kept]
			removed = slices.Delete(removed, kept, kept+1)
		} else {
			img = Image{ProductID: p.ID, SourceURL: source, Status: Pending}
			img.request(newJob{hash: r.hash, id: r.jobIDs[i], traceparent: r.traceparent, class: Live}, now)
		}
		img.Position = i
		p.Images = append(p.Images, img)
	}
	var c Change
	for _, img := range removed {
		c.Deletions = append(c.Deletions, img.scheduleAll(r.grace)...)
	}
	return c
}

// markDeleted deletes the product: attempts on its images are superseded, and the deletion of visible objects is scheduled.
func (p *Product) markDeleted(grace time.Duration, traceparent, changedID string) Change {
	var c Change
	for i := range p.Images {
		img := &p.Images[i]
		img.FencingToken++
		img.endJob()
		c.Deletions = append(c.Deletions, img.scheduleAll(grace)...)
	}
	p.Deleted = true
	p.Revision++
	c.Outbox = append(c.Outbox, p.incrementVersion(traceparent, changedID))
	return c
}
