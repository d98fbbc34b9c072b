package maintenance

import (
	"context"
	"errors"
	"fmt"
	"math"
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
	checkConcurrency = 8    // listings at a time
	maxObjects       = 1000 // maximum of objects of one listing that are compared; an image has far fewer
)

// Checked is the result of one batch of checked images.
type Checked struct {
	Images  int             // images that were checked
	Missing int             // images that were requested again, because objects are missing
	Failed  int             // images that could not be checked or requested again
	Next    catalog.ImageID // where the next call continues; 0 if no image is left
}

func (a *Auditor) planRows(ctx context.Context) ([]Range, error) {
	_, images, err := a.References.Extent(ctx)
	if err != nil {
		return nil, fmt.Errorf("read extent: %w", err)
	}
	return rowRanges(images), nil
}

// scanRows checks one batch of images.
func (a *Auditor) scanRows(ctx context.Context, shard Shard, until time.Time) (stepResult, error) {
	cursor, last, err := parseIDs(shard)
	if err != nil {
		return stepResult{}, err
	}
	b, err := a.find(ctx, catalog.ImageID(cursor), catalog.ImageID(last), a.cfg.Rows, until)
	if err != nil {
		return stepResult{}, err
	}
	if missing := newlyMissing(b.incomplete); a.cfg.tooMany(len(missing), b.images) {
		return stepResult{}, &haltError{tooManyMissing, fmt.Sprintf("objects of %d of %d images are missing, the first being %s",
			len(missing), b.images, missing[0].key)}
	}
	if _, _, err := a.reprocess(ctx, b, func(int) time.Duration { return 0 }); err != nil {
		return stepResult{}, err
	}
	stopped := a.tooManyLost(b, shard)
	if stopped == "" {
		if _, err := a.forget(ctx, b); err != nil {
			return stepResult{}, err
		}
	}
	if b.next == 0 || int64(b.next) >= last {
		return stepResult{Position{shard.Until, 1, true, stopped}, a.cfg.Rows}, nil
	}
	first, _ := strconv.ParseInt(shard.After, 10, 64)
	progress := share(float64(int64(b.next)-first), float64(last-first))
	return stepResult{Position{Cursor: formatID(int64(b.next)), Progress: progress, Stopped: stopped}, a.cfg.Rows}, nil
}

// CheckRows checks the ready and idle images among up to limit images with ids above after. If an object of an image is
// missing or has another size, it requests the image again; the n-th one, from 0, is due after delay(n). It removes
// originals of which the same is true from their images. It does not stop at [AuditorConfig].ToleratedShare. An image that
// cannot be checked is logged and counted. CheckRows returns an error if the database or a bucket is unavailable, if more
// images fail than [AuditorConfig] tolerates, or if an owner mark does not name this installation. It may be repeated.
func (a *Auditor) CheckRows(ctx context.Context, after catalog.ImageID, limit int, delay func(n int) time.Duration,
) (Checked, error) {
	b, err := a.find(ctx, after, math.MaxInt64, limit, a.Now().Add(a.cfg.Lease/2))
	if err != nil {
		return Checked{}, err
	}
	missing, failed, err := a.reprocess(ctx, b, delay)
	if err != nil {
		return Checked{}, err
	}
	unforgotten, err := a.forget(ctx, b)
	if err != nil {
		return Checked{}, err
	}
	return Checked{Images: b.images, Missing: missing, Failed: b.failed + failed + unforgotten, Next: b.next}, nil
}

// batch is a batch of checked images.
type batch struct {
	images     int // images that were checked, failures included
	failed     int
	incomplete []incomplete
	originals  int             // images with an original that was checked
	lost       []Published     // of them, those whose original is missing or has another size
	next       catalog.ImageID // where the next batch begins; 0 if no image is left
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

// find reads up to limit images with ids above after, up to last, and checks those that are published. It begins no check
// after the time until, except for the first one.
func (a *Auditor) find(ctx context.Context, after, last catalog.ImageID, limit int, until time.Time) (batch, error) {
	if err := a.checkOwners(ctx); err != nil {
		return batch{}, err
	}
	images, next, err := a.References.Published(ctx, after, last, limit)
	if err != nil {
		return batch{}, fmt.Errorf("list published images: %w", err)
	}
	b := batch{next: next}
	groups := byProduct(images)
	results := make([][]checkResult, len(groups))
	var checks errgroup.Group
	checks.SetLimit(checkConcurrency)
	for i, group := range groups {
		checks.Go(func() error {
			if i == 0 || a.Now().Before(until) { // when it begins: it may have waited
				results[i] = a.checkGroup(ctx, group)
			}
			return nil
		})
	}
	_ = checks.Wait() // no function returns an error
	if begun := slices.IndexFunc(results, func(r []checkResult) bool { return r == nil }); begun >= 0 {
		results, b.next = results[:begun], groups[begun-1][len(groups[begun-1])-1].ImageID
	}
	errs := b.add(slices.Concat(results...))
	a.metrics.rows.Add(float64(b.images - b.failed))
	return b, a.tolerate(ctx, errs, b.images)
}

// add adds the results of images and returns the errors among them.
func (b *batch) add(results []checkResult) (errs []error) {
	for _, r := range results {
		b.images++
		if r.err != nil {
			errs = append(errs, r.err)
			continue
		}
		if r.key != "" {
			b.incomplete = append(b.incomplete, r.incomplete)
		}
		if r.original {
			b.originals++
		}
		if r.lost {
			b.lost = append(b.lost, r.Published)
		}
	}
	b.failed = len(errs)
	return errs
}

// tolerate counts and logs the errors of single images among total. It returns an error if their cause is not in the images:
// if the database or the bucket is unavailable, or if more fail than [AuditorConfig] tolerates.
func (a *Auditor) tolerate(ctx context.Context, errs []error, total int) error {
	if len(errs) == 0 {
		return nil
	}
	if err := a.checkOwners(ctx); err != nil {
		return err
	}
	if a.cfg.tooMany(len(errs), total) {
		return fmt.Errorf("%d of %d images failed: %w", len(errs), total, errs[0])
	}
	for _, err := range errs {
		a.metrics.errors.Inc()
		a.Log.Warn("image not checked", zap.Error(err))
	}
	return nil
}

// byProduct groups images of the same product that follow each other.
func byProduct(images []Published) [][]Published {
	var groups [][]Published
	for i, p := range images {
		if i == 0 || p.ProductID != images[i-1].ProductID {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], p)
	}
	return groups
}

// checkResult is the result for one image. It is complete if both key and err are empty.
type checkResult struct {
	incomplete
	original bool // it has an original, which was checked
	lost     bool // the original is missing or has another size
	err      error
}

// checkGroup checks images of one product. One listing of the product's objects serves all of them, unless there are too
// many objects.
func (a *Auditor) checkGroup(ctx context.Context, images []Published) []checkResult {
	results := make([]checkResult, len(images))
	var listed []Object
	if len(images) > 1 {
		prefix := imagesPrefix + formatID(int64(images[0].ProductID)) + "/"
		if found, more, err := a.Bucket.Page(ctx, prefix, "", maxObjects); err == nil && !more {
			listed = found
		}
	}
	for i, p := range images {
		results[i].incomplete.Published = p
		if listed == nil || missingKey(p.Objects, listed) != "" {
			results[i].key, results[i].err = a.checkImage(ctx, p)
		}
	}
	a.checkOriginals(ctx, results)
	return results
}

// checkImage returns the key of a missing object, or "". If one is missing, it reads the row again and repeats the check,
// because the image may have been reprocessed after the first read: it then has other objects, and the old ones are
// deleted.
func (a *Auditor) checkImage(ctx context.Context, p Published) (string, error) {
	key, err := a.missing(ctx, p)
	if err != nil || key == "" {
		return "", err
	}
	current, _, err := a.References.Published(ctx, p.ImageID-1, p.ImageID, 1)
	if err != nil {
		return "", fmt.Errorf("read image %d again: %w", p.ImageID, err)
	}
	if len(current) == 0 || current[0].FencingToken != p.FencingToken {
		return "", nil // deleted, queued or processing: a later pass checks it
	}
	return a.missing(ctx, current[0])
}

// reprocess requests the incomplete images of a batch again, and returns how many it has requested and how many failed. An
// image whose last request failed is requested again only after [AuditorConfig].MinAge, because its source may no longer
// exist.
func (a *Auditor) reprocess(ctx context.Context, b batch, delay func(n int) time.Duration,
) (requested, failed int, err error) {
	var errs []error
	for _, p := range b.incomplete {
		filter := catalog.Filter{Status: catalog.Ready}
		if p.ReprocessError != "" {
			filter.OlderThan = a.cfg.MinAge
		}
		err := a.Catalog.ReprocessIf(ctx, p.ProductID, p.ImageID, filter, delay(requested))
		switch {
		case errors.Is(err, catalog.ErrDone), fault.Is(err, fault.NotFound):
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("request image %d again: %w", p.ImageID, err))
			continue
		}
		requested++
		a.metrics.missing.Inc()
		a.Log.Error("an object of an image is missing; the image is requested again",
			zap.Int64("product_id", int64(p.ProductID)), zap.Int64("image_id", int64(p.ImageID)), zap.String("key", p.key))
	}
	return requested, len(errs), a.tolerate(ctx, errs, b.images)
}

// missing returns the first of an image's objects that is not in the bucket with its size, or "".
func (a *Auditor) missing(ctx context.Context, p Published) (string, error) {
	return missingIn(ctx, a.Bucket, p.ImageID, p.Objects)
}

// missingIn returns the first of the objects of an image, which have one prefix, that is not in the bucket with its size, or
// "".
func missingIn(ctx context.Context, bucket BucketReader, image catalog.ImageID, objects []Object) (string, error) {
	if len(objects) == 0 {
		return "", nil
	}
	first := objects[0].Key
	found, more, err := bucket.Page(ctx, first[:strings.LastIndexByte(first, '/')+1], "", maxObjects)
	if err == nil && more {
		err = fmt.Errorf("more than %d objects", maxObjects)
	}
	if err != nil {
		return "", fmt.Errorf("list objects of image %d: %w", image, err)
	}
	return missingKey(objects, found), nil
}

// missingKey returns the first of the objects that is not among found with its size, or "".
func missingKey(objects, found []Object) string {
	for _, want := range objects {
		if !slices.ContainsFunc(found, func(o Object) bool { return o.Key == want.Key && o.Size == want.Size }) {
			return want.Key
		}
	}
	return ""
}
