package maintenance

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// checkOwners checks the owner marks of all buckets whose objects the rows name.
func (a *Auditor) checkOwners(ctx context.Context) error {
	if err := a.checkOwner(ctx, a.Bucket); err != nil || a.Originals == nil {
		return err
	}
	return a.checkOwner(ctx, a.Originals)
}

// checkOriginals looks for the originals of images of one product. One listing serves all of them, unless it is too long.
func (a *Auditor) checkOriginals(ctx context.Context, results []checkResult) {
	if a.Originals == nil {
		return
	}
	var listed []Object
	if len(results) > 1 {
		prefix := originalsPrefix + formatID(int64(results[0].ProductID)) + "/"
		if found, more, err := a.Originals.Page(ctx, prefix, "", maxObjects); err == nil && !more {
			listed = found
		}
	}
	for i := range results {
		r := &results[i]
		if r.Original.Key == "" || r.err != nil {
			continue
		}
		r.original = true
		want := []Object{r.Original}
		if listed != nil && missingKey(want, listed) == "" {
			continue
		}
		key, err := missingIn(ctx, a.Originals, r.ImageID, want)
		r.lost, r.err = key != "", err
	}
}

// tooManyLost returns the reason to forget no original of a batch, or "". If more are lost than accidents explain, the
// bucket may come back. The scan continues all the same, because the renditions in the other bucket have to be checked.
func (a *Auditor) tooManyLost(b batch, shard Shard) string {
	if !a.cfg.tooMany(len(b.lost), b.originals) {
		return ""
	}
	a.Log.Error("too many originals are missing; their images keep them", zap.String("scan", shard.Scan),
		zap.Int("shard", shard.Number), zap.String("reason", tooManyOriginalsMissing), zap.Int("missing", len(b.lost)),
		zap.Int("originals", b.originals), zap.String("first", b.lost[0].Original.Key))
	return tooManyOriginalsMissing
}

// forget removes the lost originals of a batch from their images, and returns how many it could not. It requests no image
// again: its renditions are complete, and its source may no longer exist.
func (a *Auditor) forget(ctx context.Context, b batch) (failed int, err error) {
	var errs []error
	for _, p := range b.lost {
		err := a.Catalog.ForgetOriginal(ctx, p.ProductID, p.ImageID, p.Original.Key)
		switch {
		case errors.Is(err, catalog.ErrDone), fault.Is(err, fault.NotFound): // it was replaced, or is gone
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("forget the original of image %d: %w", p.ImageID, err))
			continue
		}
		a.metrics.lost.Inc()
		a.Log.Error("an original is missing; its image forgets it", zap.Int64("product_id", int64(p.ProductID)),
			zap.Int64("image_id", int64(p.ImageID)), zap.String("key", p.Original.Key))
	}
	return len(errs), a.tolerate(ctx, errs, b.originals)
}
