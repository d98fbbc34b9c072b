package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/fault"
)

const (
	asking    = 8    // pictures whose objects are asked for at a time
	maxPlaced = 1000 // objects of one attempt that are looked at: many times what a pipeline can make
)

// Checked is what a look at rows has found.
type Checked struct {
	Pictures int             // looked at
	Missing  int             // of those asked for anew, because objects of theirs are missing
	Next     catalog.ImageID // the last picture looked at: the next look goes on after it; 0 if none are left
}

// lookAtRows looks at one batch of pictures.
func (a *Auditor) lookAtRows(ctx context.Context, cursor string) (next string, err error) {
	var after int64
	if cursor != "" {
		if after, err = strconv.ParseInt(cursor, 10, 64); err != nil {
			return "", fmt.Errorf("read cursor: %w", err)
		}
	}
	checked, err := a.CheckRows(ctx, catalog.ImageID(after), a.cfg.Rows, 0)
	if err != nil || checked.Next == 0 {
		return "", err
	}
	return strconv.FormatInt(int64(checked.Next), 10), nil
}

// CheckRows looks at up to limit pictures after that one, and asks anew, not before delay has passed, for those that are
// ready and idle and miss an object or have one of another size. A store that is away is an error, and so is a bucket that
// is not marked as this database's: then nothing is missing that was not looked for. Checking the same rows again is
// harmless.
func (a *Auditor) CheckRows(ctx context.Context, after catalog.ImageID, limit int, delay time.Duration) (Checked, error) {
	if err := a.ours(ctx); err != nil {
		return Checked{}, err
	}
	pictures, err := a.Books.Published(ctx, after, limit)
	if err != nil {
		return Checked{}, fmt.Errorf("list published pictures: %w", err)
	}
	checked := Checked{Pictures: len(pictures)}
	if len(pictures) == limit {
		checked.Next = pictures[limit-1].ImageID
	}
	var missing atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(asking)
	for _, p := range pictures {
		group.Go(func() error {
			remade, err := a.check(ctx, p, delay)
			if remade {
				missing.Add(1)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return Checked{}, err
	}
	checked.Missing = int(missing.Load())
	return checked, nil
}

// check asks for a picture anew if objects of it are missing. It looks twice, with the row read again in between: a picture
// that was remade after its row was read has other objects now, and the ones that were looked for are rightly gone.
func (a *Auditor) check(ctx context.Context, p Published, delay time.Duration) (remade bool, err error) {
	key, err := a.missing(ctx, p)
	if err != nil {
		return false, err
	}
	a.metrics.rows.Inc()
	if key == "" {
		return false, nil
	}
	again, err := a.Books.Published(ctx, p.ImageID-1, 1)
	if err != nil {
		return false, fmt.Errorf("read picture %d again: %w", p.ImageID, err)
	}
	if len(again) == 0 || again[0].Picture != p.Picture || again[0].Fence != p.Fence {
		return false, nil // of another row, or in work: its turn comes again
	}
	if key, err = a.missing(ctx, again[0]); key == "" || err != nil {
		return false, err
	}
	err = a.Catalog.Remake(ctx, p.ProductID, p.ImageID, catalog.Selection{Status: catalog.Ready}, delay)
	switch {
	case errors.Is(err, catalog.ErrDone), fault.Is(err, fault.NotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("ask for picture %d anew: %w", p.ImageID, err)
	}
	a.metrics.missing.Inc()
	a.Log.Error("an object of a picture is missing; it is asked for anew", zap.Int64("product_id", int64(p.ProductID)),
		zap.Int64("image_id", int64(p.ImageID)), zap.String("key", key))
	return true, nil
}

// missing returns the first of a picture's objects that is not in the bucket with its size, or "".
func (a *Auditor) missing(ctx context.Context, p Published) (string, error) {
	if len(p.Objects) == 0 {
		return "", nil
	}
	first := p.Objects[0].Key
	found, more, err := a.Bucket.Page(ctx, first[:strings.LastIndexByte(first, '/')+1], "", maxPlaced)
	if err == nil && more {
		err = fmt.Errorf("there are more than %d", maxPlaced)
	}
	if err != nil {
		return "", fmt.Errorf("list objects of picture %d: %w", p.ImageID, err)
	}
	for _, want := range p.Objects {
		if !slices.ContainsFunc(found, func(o Object) bool { return o.Key == want.Key && o.Size == want.Size }) {
			return want.Key, nil
		}
	}
	return "", nil
}
