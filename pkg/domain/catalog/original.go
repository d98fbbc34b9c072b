package catalog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"vitrine.io/pkg/foundation/fault"
)

// The originals have a bucket of their own. Its keys begin with another directory than those of renditions, so that a
// prefix alone says in which bucket its objects are.
const (
	renditionsDir = "products/"
	originalsDir  = "originals/"
)

// IsOriginal reports whether a key, or the prefix of an attempt, belongs to the bucket of the originals.
func IsOriginal(key string) bool { return strings.HasPrefix(key, originalsDir) }

// Original is a kept source. The zero value is none.
type Original struct {
	Key    string // in the bucket of the originals
	SHA256 string // of its bytes, in hex
	Bytes  int64
}

// originalPrefix returns the prefix of the original of the attempt that has begun. nonce is another one than that of its
// renditions, because their URLs are public.
func (img *Image) originalPrefix(product ProductID, nonce string) string {
	return fmt.Sprintf("%s%d/%d/%d-%s/", originalsDir, product, img.ID, img.FencingToken, nonce)
}

// jobOriginal returns the original that the image's job has to read: only jobs of backfills read one. A client that asks for
// an image again wants what its URL serves now.
func (img *Image) jobOriginal() Original {
	if img.Backfill.ID == 0 || img.OriginalKey == "" {
		return Original{}
	}
	return Original{Key: img.OriginalKey, SHA256: img.SourceSHA256, Bytes: img.SourceBytes}
}

// adoptOriginal makes the original that the attempt has stored that of the image. The one before it is deleted after grace,
// and also if the attempt has stored none and has read another source. It must be called before SourceSHA256 changes.
func (img *Image) adoptOriginal(r Result, grace time.Duration) []ScheduledDeletion {
	if r.OriginalKey == img.OriginalKey || r.OriginalKey == "" && r.SourceSHA256 == img.SourceSHA256 {
		return nil
	}
	deletions := img.scheduleOriginal(grace)
	img.OriginalKey = r.OriginalKey
	return deletions
}

// scheduleAll returns the deletions of the image's visible objects and of its original.
func (img *Image) scheduleAll(grace time.Duration) []ScheduledDeletion {
	return append(img.scheduleDeletion(grace), img.scheduleOriginal(grace)...)
}

// scheduleOriginal returns the deletion of the image's original.
func (img *Image) scheduleOriginal(grace time.Duration) []ScheduledDeletion {
	if img.OriginalKey == "" {
		return nil
	}
	prefix := img.OriginalKey[:strings.LastIndexByte(img.OriginalKey, '/')+1]
	return []ScheduledDeletion{{Prefix: prefix, ImageID: img.ID, Delay: grace}}
}

// Skip ends the attempt of a backfill that skips images without an original, because the object is missing or damaged. The
// image stays as it is, and the backfill does not request it again. It returns ErrSuperseded under the same condition as
// Finish.
func (s *Service) Skip(ctx context.Context, a Attempt) error {
	return s.recordOutcome(ctx, a, "skip", func(p *Product, _ time.Time) (Change, error) {
		img, err := p.currentImage(a)
		if err != nil {
			return Change{}, err
		}
		if img.Backfill.ID == 0 {
			return Change{}, errNotOfBackfill
		}
		img.BackfillID = img.Backfill.ID
		img.endJob()
		return Change{}, nil
	})
}

// ForgetOriginal removes the original with that key from its image, and schedules the deletion of what is left of it.
// Clients see no change. It returns ErrDone if the image has no such original, and fault.NotFound if the product never
// existed.
func (s *Service) ForgetOriginal(ctx context.Context, product ProductID, image ImageID, key string) error {
	_, err := s.Store.Edit(ctx, product, func(p *Product, _ time.Time) (Change, error) {
		img := p.image(image)
		if p.Deleted || img == nil || key == "" || img.OriginalKey != key {
			return Change{}, ErrDone
		}
		c := Change{Deletions: img.scheduleOriginal(s.cfg.DeletionGrace)}
		img.OriginalKey = ""
		return c, nil
	})
	if err != nil {
		return fmt.Errorf("forget original: %w", err)
	}
	return nil
}

// skips reports whether a backfill skips the image: it needs an original, and there is none.
func (r BackfillRequest) skips(img *Image) bool { return r.SkipMissing && img.OriginalKey == "" }

// errNotOfBackfill says that only an attempt of a backfill can be skipped.
var errNotOfBackfill = fault.New(fault.Internal, "not_of_backfill", "the attempt belongs to no backfill")
