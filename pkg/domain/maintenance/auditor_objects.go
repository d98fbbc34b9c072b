package maintenance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
)

// The prefixes of the renditions and of the originals of all images.
const (
	imagesPrefix    = "products/"
	originalsPrefix = "originals/"
)

// canaryPrefix is the prefix of the objects of canaries. They come before those of images in the order of keys, and belong
// to the first shard. They have scheduled deletions, which a restore of the database may have lost.
const (
	canaryPrefix = "canary/"
	canaryEnd    = "canary0" // comes after all keys with the prefix
)

// listPage is the number of objects that a store returns for one request.
const listPage = 1000

// listing is the scan of the objects of one bucket.
type listing struct {
	*Auditor
	bucket BucketReader
	prefix string
}

func (a listing) plan(ctx context.Context) ([]Range, error) {
	products, _, err := a.References.Extent(ctx)
	if err != nil {
		return nil, fmt.Errorf("read extent: %w", err)
	}
	ranges := objectRanges(a.prefix, products)
	if a.prefix == originalsPrefix {
		ranges[0].After = ProbeKey // which comes before all images
	}
	return ranges, nil
}

// scan checks one batch of objects. It lists the bucket before it reads the rows. A row refers to the objects of an attempt
// before the first of them is stored, so an object that is listed and then has no reference never gets one.
func (a listing) scan(ctx context.Context, shard Shard, until time.Time) (stepResult, error) {
	if err := a.checkOwner(ctx, a.bucket); err != nil {
		return stepResult{}, err
	}
	objects, cursor, more, err := a.list(ctx, shard, until)
	if err != nil {
		return stepResult{}, err
	}
	done := stepResult{Position{shard.Until, 1, true, ""}, len(objects)}
	if more {
		if len(objects) > 0 {
			objects = dropPartialAttempt(objects)
			cursor = objects[len(objects)-1].Key
		}
		done.Position = Position{Cursor: cursor, Progress: objectProgress(a.prefix, shard.Range, cursor)}
	}
	attempts, unrecognized := byAttempt(objects)
	a.metrics.listed.Add(float64(len(objects)))
	if err := a.scheduleOrphans(ctx, attempts); err != nil {
		return stepResult{}, err
	}
	if len(unrecognized) > 0 {
		a.metrics.unrecognized.Add(float64(len(unrecognized)))
		a.Log.Warn("the bucket has objects that no attempt wrote", zap.Int("objects", len(unrecognized)),
			zap.String("first", unrecognized[0]))
	}
	return done, nil
}

// list lists up to [AuditorConfig].Batch objects of the shard, with keys up to after. more reports whether it has others.
func (a listing) list(ctx context.Context, shard Shard, until time.Time,
) (objects []Object, after string, more bool, err error) {
	after, more = shard.Cursor, true
	for first := true; more && len(objects) < a.cfg.Batch && (first || a.Now().Before(until)); first = false {
		var page []Object
		prefix := a.prefix
		if prefix == imagesPrefix && after < canaryEnd {
			prefix = canaryPrefix
		}
		page, more, err = a.bucket.Page(ctx, prefix, after, min(listPage, a.cfg.Batch-len(objects)))
		switch {
		case err != nil:
			return nil, "", false, fmt.Errorf("list objects: %w", err)
		case prefix == canaryPrefix && !more:
			after, more = canaryEnd, true
		case len(page) == 0:
			return objects, after, false, nil
		default:
			after = page[len(page)-1].Key
		}
		if end := slices.IndexFunc(page, func(o Object) bool { return shard.Until != "" && o.Key > shard.Until }); end >= 0 {
			page, more = page[:end], false
		}
		objects = append(objects, page...)
	}
	return objects, after, more, nil
}

// scheduleOrphans schedules the deletion of the attempts that no row refers to.
func (a *Auditor) scheduleOrphans(ctx context.Context, attempts []attempt) error {
	var old []catalog.ScheduledDeletion
	for _, at := range attempts {
		if a.Now().Sub(at.newest) >= a.cfg.MinAge {
			old = append(old, catalog.ScheduledDeletion{Prefix: at.prefix, ImageID: at.image, Delay: a.cfg.Grace})
		}
	}
	if len(old) == 0 {
		return nil
	}
	orphans, err := a.References.Unreferenced(ctx, old)
	if err != nil {
		return fmt.Errorf("find references: %w", err)
	}
	if a.cfg.tooMany(len(orphans), len(attempts)) {
		return &haltError{tooManyOrphans, fmt.Sprintf("no row refers to %d of %d attempts, the first being %s",
			len(orphans), len(attempts), orphans[0].Prefix)}
	}
	if len(orphans) == 0 {
		return nil
	}
	scheduled, err := a.References.ScheduleOrphans(ctx, orphans)
	if err != nil {
		return fmt.Errorf("schedule orphans: %w", err)
	}
	a.metrics.orphans.Add(float64(scheduled))
	for _, o := range orphans {
		a.Log.Warn("orphaned objects scheduled for deletion", zap.String("prefix", o.Prefix),
			zap.Int64("image_id", int64(o.ImageID)))
	}
	return nil
}

// attempt is the part of a listing that one attempt has stored.
type attempt struct {
	prefix string
	image  catalog.ImageID
	newest time.Time // when the newest of its objects was stored
}

// byAttempt groups objects, which are in the order of their keys, and returns the keys that no attempt wrote.
func byAttempt(objects []Object) (attempts []attempt, unrecognized []string) {
	for _, o := range objects {
		prefix, image, ok := catalog.PrefixOf(o.Key)
		if !ok {
			unrecognized = append(unrecognized, o.Key)
			continue
		}
		if last := len(attempts) - 1; last < 0 || attempts[last].prefix != prefix {
			attempts = append(attempts, attempt{prefix: prefix, image: image})
		}
		if at := &attempts[len(attempts)-1]; o.Modified.After(at.newest) {
			at.newest = o.Modified
		}
	}
	return attempts, unrecognized
}

// dropPartialAttempt removes the objects of the last attempt from a batch that is not the last one, because the next
// batch may contain the rest of that attempt. An attempt that fills the whole batch is kept.
func dropPartialAttempt(objects []Object) []Object {
	prefix, _, ok := catalog.PrefixOf(objects[len(objects)-1].Key)
	if !ok {
		return objects
	}
	begin := slices.IndexFunc(objects, func(o Object) bool { return strings.HasPrefix(o.Key, prefix) })
	if begin == 0 {
		return objects
	}
	return objects[:begin]
}
