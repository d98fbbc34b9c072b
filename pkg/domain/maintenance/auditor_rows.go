package maintenance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

const (
	checkConcurrency = 8    // images checked at a time
	maxObjects       = 1000 // maximum of objects of one attempt that are compared; a pipeline renders far fewer
)

// Checked is the result of one batch of checked images.
type Checked struct {
	Images  int             // images that were checked
	Missing int             // images that were requested again, because objects are missing
	Next    catalog.ImageID // the last image that was checked, where the next call continues; 0 if no image is left
}

// scanRows checks one batch of images.
func (a *Auditor) scanRows(ctx context.Context, cursor string) (next string, err error) {
	var after int64
	if cursor != "" {
		if after, err = strconv.ParseInt(cursor, 10, 64); err != nil {
			return "", fmt.Errorf("read cursor: %w", err)
		}
	}
	found, checked, err := a.find(ctx, catalog.ImageID(after), a.cfg.Rows)
	if err != nil {
		return "", err
	}
	if missing := newlyMissing(found); a.cfg.tooMany(len(missing), checked.Images) {
		return "", &haltError{tooManyMissing, fmt.Sprintf("objects of %d of %d images are missing, the first being %s",
			len(missing), checked.Images, missing[0].key)}
	}
	if _, err := a.reprocess(ctx, found, 0); err != nil || checked.Next == 0 {
		return "", err
	}
	return strconv.FormatInt(int64(checked.Next), 10), nil
}

// CheckRows checks up to limit ready and idle images with ids above after. If an object of an image is missing or has
// another size, it requests the image again, due after delay. It does not stop at [AuditorConfig].ToleratedShare. It
// returns an error if the database or the bucket is unavailable, or if the owner mark does not name this installation. It
// may be repeated.
func (a *Auditor) CheckRows(ctx context.Context, after catalog.ImageID, limit int, delay time.Duration) (Checked, error) {
	found, checked, err := a.find(ctx, after, limit)
	if err != nil {
		return Checked{}, err
	}
	if checked.Missing, err = a.reprocess(ctx, found, delay); err != nil {
		return Checked{}, err
	}
	return checked, nil
}

// find checks up to limit images with ids above after, and returns the incomplete ones.
func (a *Auditor) find(ctx context.Context, after catalog.ImageID, limit int,
) (found []incomplete, checked Checked, err error) {
	if err := a.checkOwner(ctx); err != nil {
		return nil, Checked{}, err
	}
	images, err := a.References.Published(ctx, after, limit)
	if err != nil {
		return nil, Checked{}, fmt.Errorf("list published images: %w", err)
	}
	checked.Images = len(images)
	if len(images) == limit {
		checked.Next = images[limit-1].ImageID
	}
	found, err = a.check(ctx, images)
	return found, checked, err
}

// incomplete is an image with a missing object.
type incomplete struct {
	Published
	key string
}

// newlyMissing returns the images whose last request did not fail. The others are known already, and stay incomplete if
// their source no longer exists.
func newlyMissing(images []incomplete) []incomplete {
	return slices.DeleteFunc(slices.Clone(images), func(p incomplete) bool { return p.ReprocessError != "" })
}

// check returns the incomplete images.
func (a *Auditor) check(ctx context.Context, images []Published) ([]incomplete, error) {
	keys := make([]string, len(images))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(checkConcurrency)
	for i, p := range images {
		group.Go(func() (err error) {
			keys[i], err = a.checkImage(ctx, p)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var found []incomplete
	for i, p := range images {
		if keys[i] != "" {
			found = append(found, incomplete{p, keys[i]})
		}
	}
	return found, nil
}

// checkImage returns the key of a missing object, or "". If one is missing, it reads the row again and repeats the check,
// because the image may have been reprocessed after the first read: it then has other objects, and the old ones are
// deleted.
func (a *Auditor) checkImage(ctx context.Context, p Published) (string, error) {
	key, err := a.missing(ctx, p)
	if err != nil {
		return "", err
	}
	a.metrics.rows.Inc()
	if key == "" {
		return "", nil
	}
	current, err := a.References.Published(ctx, p.ImageID-1, 1)
	if err != nil {
		return "", fmt.Errorf("read image %d again: %w", p.ImageID, err)
	}
	if len(current) == 0 || current[0].ImageRef != p.ImageRef || current[0].FencingToken != p.FencingToken {
		return "", nil // deleted, queued or processing: a later scan checks it
	}
	return a.missing(ctx, current[0])
}

// reprocess requests images again, and returns how many. An image whose last request failed is requested again only after
// [AuditorConfig].MinAge, because its source may no longer exist.
func (a *Auditor) reprocess(ctx context.Context, images []incomplete, delay time.Duration) (requested int, err error) {
	for _, p := range images {
		filter := catalog.Filter{Status: catalog.Ready}
		if p.ReprocessError != "" {
			filter.OlderThan = a.cfg.MinAge
		}
		err := a.Catalog.ReprocessIf(ctx, p.ProductID, p.ImageID, filter, delay)
		switch {
		case errors.Is(err, catalog.ErrDone), fault.Is(err, fault.NotFound):
			continue
		case err != nil:
			return requested, fmt.Errorf("request image %d again: %w", p.ImageID, err)
		}
		requested++
		a.metrics.missing.Inc()
		a.Log.Error("an object of an image is missing; the image is requested again",
			zap.Int64("product_id", int64(p.ProductID)), zap.Int64("image_id", int64(p.ImageID)), zap.String("key", p.key))
	}
	return requested, nil
}

// missing returns the first of an image's objects that is not in the bucket with its size, or "".
func (a *Auditor) missing(ctx context.Context, p Published) (string, error) {
	if len(p.Objects) == 0 {
		return "", nil
	}
	first := p.Objects[0].Key
	found, more, err := a.Bucket.Page(ctx, first[:strings.LastIndexByte(first, '/')+1], "", maxObjects)
	if err == nil && more {
		err = fmt.Errorf("more than %d objects", maxObjects)
	}
	if err != nil {
		return "", fmt.Errorf("list objects of image %d: %w", p.ImageID, err)
	}
	for _, want := range p.Objects {
		if !slices.ContainsFunc(found, func(o Object) bool { return o.Key == want.Key && o.Size == want.Size }) {
			return want.Key, nil
		}
	}
	return "", nil
}
