package worker

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
	found, looked, err := a.find(ctx, catalog.ImageID(after), a.cfg.Rows)
	if err != nil {
		return "", err
	}
	if fresh := fresh(found); a.cfg.tooMany(len(fresh), looked.Pictures) {
		return "", &stopped{tooManyMissing, fmt.Sprintf("%d of %d pictures miss objects, the first being %s",
			len(fresh), looked.Pictures, fresh[0].key)}
	}
	if _, err := a.remake(ctx, found, 0); err != nil || looked.Next == 0 {
		return "", err
	}
	return strconv.FormatInt(int64(looked.Next), 10), nil
}

// CheckRows looks at up to limit pictures after that one, and asks anew, not before delay has passed, for those that are
// ready and idle and miss an object or have one of another size, however many they are. A store that is away is an error,
// and so is a bucket that is not marked as this database's: then nothing is missing that was not looked for. Checking the
// same rows again is harmless.
func (a *Auditor) CheckRows(ctx context.Context, after catalog.ImageID, limit int, delay time.Duration) (Checked, error) {
	found, looked, err := a.find(ctx, after, limit)
	if err != nil {
		return Checked{}, err
	}
	if looked.Missing, err = a.remake(ctx, found, delay); err != nil {
		return Checked{}, err
	}
	return looked, nil
}

// find looks at up to limit pictures after that one, and returns those that miss objects.
func (a *Auditor) find(ctx context.Context, after catalog.ImageID, limit int) (found []robbed, looked Checked, err error) {
	if err := a.ours(ctx); err != nil {
		return nil, Checked{}, err
	}
	pictures, err := a.Books.Published(ctx, after, limit)
	if err != nil {
		return nil, Checked{}, fmt.Errorf("list published pictures: %w", err)
	}
	looked.Pictures = len(pictures)
	if len(pictures) == limit {
		looked.Next = pictures[limit-1].ImageID
	}
	found, err = a.robbed(ctx, pictures)
	return found, looked, err
}

// robbed is a picture that misses an object.
type robbed struct {
	Published
	key string
}

// fresh leaves out those that have been asked for and could not be remade: they are known, and may stay so for good.
func fresh(pictures []robbed) []robbed {
	return slices.DeleteFunc(slices.Clone(pictures), func(p robbed) bool { return p.RemakeError != "" })
}

// robbed returns those of the pictures that miss objects.
func (a *Auditor) robbed(ctx context.Context, pictures []Published) ([]robbed, error) {
	keys := make([]string, len(pictures))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(asking)
	for i, p := range pictures {
		group.Go(func() (err error) {
			keys[i], err = a.check(ctx, p)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var found []robbed
	for i, p := range pictures {
		if keys[i] != "" {
			found = append(found, robbed{p, keys[i]})
		}
	}
	return found, nil
}

// check returns the key of an object that a picture misses, or "". It looks twice, with the row read again in between: a
// picture that was remade after its row was read has other objects now, and the ones that were looked for are rightly gone.
func (a *Auditor) check(ctx context.Context, p Published) (string, error) {
	key, err := a.missing(ctx, p)
	if err != nil {
		return "", err
	}
	a.metrics.rows.Inc()
	if key == "" {
		return "", nil
	}
	again, err := a.Books.Published(ctx, p.ImageID-1, 1)
	if err != nil {
		return "", fmt.Errorf("read picture %d again: %w", p.ImageID, err)
	}
	if len(again) == 0 || again[0].Picture != p.Picture || again[0].Fence != p.Fence {
		return "", nil // of another row, or in work: its turn comes again
	}
	return a.missing(ctx, again[0])
}

// remake asks for pictures anew, and says for how many. One that could not be remade is left alone for as long as an
// object has to be old: its source may be gone for good.
func (a *Auditor) remake(ctx context.Context, pictures []robbed, delay time.Duration) (remade int, err error) {
	for _, p := range pictures {
		which := catalog.Selection{Status: catalog.Ready}
		if p.RemakeError != "" {
			which.OlderThan = a.cfg.MinAge
		}
		err := a.Catalog.Remake(ctx, p.ProductID, p.ImageID, which, delay)
		switch {
		case errors.Is(err, catalog.ErrDone), fault.Is(err, fault.NotFound):
			continue
		case err != nil:
			return remade, fmt.Errorf("ask for picture %d anew: %w", p.ImageID, err)
		}
		remade++
		a.metrics.missing.Inc()
		a.Log.Error("an object of a picture is missing; it is asked for anew", zap.Int64("product_id", int64(p.ProductID)),
			zap.Int64("image_id", int64(p.ImageID)), zap.String("key", p.key))
	}
	return remade, nil
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
