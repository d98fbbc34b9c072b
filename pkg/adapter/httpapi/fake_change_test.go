package httpapi_test

import (
	"context"
	"slices"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
)

// The changes of the fake catalogue. They have only those rules of the real catalogue that the tests of HTTP need.

func (f *fakeCatalog) CreateOnce(ctx context.Context, in catalog.NewProductInput, key catalog.IdempotencyKey,
	respond func(catalog.Product) (catalog.SavedResponse, error), traceparent string,
) (catalog.SavedResponse, bool, error) {
	return f.once(ctx, key, func() (catalog.SavedResponse, error) {
		p, err := f.Create(ctx, in, traceparent)
		if err != nil {
			return nil, err
		}
		return respond(p)
	})
}

func (f *fakeCatalog) CreateUserOnce(ctx context.Context, name, email string, key catalog.IdempotencyKey,
	respond func(catalog.User) (catalog.SavedResponse, error),
) (catalog.SavedResponse, bool, error) {
	return f.once(ctx, key, func() (catalog.SavedResponse, error) {
		u, err := f.CreateUser(ctx, name, email)
		if err != nil {
			return nil, err
		}
		return respond(u)
	})
}

func (f *fakeCatalog) ReprocessOnce(ctx context.Context, id catalog.ProductID, image catalog.ImageID,
	key catalog.IdempotencyKey, respond func(catalog.Product) (catalog.SavedResponse, error), traceparent string,
) (catalog.SavedResponse, bool, error) {
	return f.once(ctx, key, func() (catalog.SavedResponse, error) {
		p, err := f.Reprocess(ctx, id, image, traceparent)
		if err != nil {
			return nil, err
		}
		return respond(p)
	})
}

// once calls act, and saves the response that it returns, unless one is saved.
func (f *fakeCatalog) once(ctx context.Context, key catalog.IdempotencyKey, act func() (catalog.SavedResponse, error),
) (catalog.SavedResponse, bool, error) {
	if err := f.enter(ctx); err != nil {
		return nil, false, err
	}
	f.mu.Lock()
	for earlier, saved := range f.saved {
		if earlier.Principal == key.Principal && earlier.Key == key.Key {
			f.mu.Unlock()
			if earlier.Fingerprint != key.Fingerprint {
				return nil, false, catalog.ErrKeyReused
			}
			return saved, true, nil
		}
	}
	f.mu.Unlock()
	saved, err := act()
	if err != nil {
		return nil, false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.saved == nil {
		f.saved = map[catalog.IdempotencyKey]catalog.SavedResponse{}
	}
	f.saved[key] = saved
	return saved, false, nil
}

func (f *fakeCatalog) Patch(ctx context.Context, id catalog.ProductID, patch catalog.ProductPatch, seen catalog.Revisions,
	traceparent string,
) (catalog.Product, error) {
	if err := f.enter(ctx); err != nil {
		return catalog.Product{}, err
	}
	if err := fault.InvalidFields(catalog.CheckPatch(patch)); err != nil {
		return catalog.Product{}, err
	}
	return f.change(id, seen, traceparent, func(p *catalog.Product) error {
		f.patches = append(f.patches, patch)
		if patch == (catalog.ProductPatch{}) {
			return nil
		}
		if patch.Name != nil {
			p.Name = *patch.Name
		}
		if patch.Description != nil {
			p.Description = *patch.Description
		}
		if patch.Price != nil {
			p.Price = *patch.Price
		}
		if patch.ImageURLs != nil {
			f.rearrange(p, *patch.ImageURLs)
		}
		p.Version++
		p.Revision++
		return nil
	})
}

// rearrange gives the product one image for each URL: an existing one, or a new one with the next id.
func (f *fakeCatalog) rearrange(p *catalog.Product, urls []string) {
	had := p.Images
	p.ImageURLs, p.Images = urls, nil
	for i, url := range urls {
		img := catalog.Image{ID: catalog.ImageID(100*int(p.ID) + len(had) + i), SourceURL: url, Status: catalog.Pending}
		if old := slices.IndexFunc(had, func(img catalog.Image) bool { return img.SourceURL == url }); old >= 0 {
			img = had[old]
		}
		img.Position = i
		p.Images = append(p.Images, img)
	}
	p.Compressed = p.CompressedKeys()
}

func (f *fakeCatalog) Delete(ctx context.Context, id catalog.ProductID, seen catalog.Revisions, traceparent string) error {
	if err := f.enter(ctx); err != nil {
		return err
	}
	_, err := f.change(id, seen, traceparent, func(p *catalog.Product) error {
		p.Deleted = true
		return nil
	})
	return err
}

func (f *fakeCatalog) Reprocess(ctx context.Context, id catalog.ProductID, image catalog.ImageID, traceparent string,
) (catalog.Product, error) {
	if err := f.enter(ctx); err != nil {
		return catalog.Product{}, err
	}
	return f.change(id, nil, traceparent, func(p *catalog.Product) error {
		at := slices.IndexFunc(p.Images, func(img catalog.Image) bool { return img.ID == image })
		if at < 0 {
			return fault.New(fault.NotFound, "image_not_found", "the product has no such image")
		}
		if img := &p.Images[at]; img.Status == catalog.Failed {
			img.Status, img.ErrorCode, img.ErrorDetail = catalog.Pending, "", ""
		}
		p.Images[at].Attempts, p.Images[at].JobState = 0, catalog.Queued
		p.Version++
		return nil
	})
}

func (f *fakeCatalog) change(id catalog.ProductID, seen catalog.Revisions, traceparent string,
	fn func(*catalog.Product) error,
) (catalog.Product, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if int64(id) > int64(len(f.products)) || f.products[id-1].Deleted {
		return catalog.Product{}, fault.New(fault.NotFound, "product_not_found", "there is no such product")
	}
	p := &f.products[id-1]
	if seen != nil && !slices.Contains(seen, p.Revision) {
		return catalog.Product{}, catalog.ErrRevision
	}
	f.traces = append(f.traces, traceparent)
	if err := fn(p); err != nil {
		return catalog.Product{}, err
	}
	return *p, nil
}
