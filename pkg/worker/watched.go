package worker

import (
	"context"
	"errors"
	"io"
	"time"

	"vitrine.io/pkg/catalog"
	"vitrine.io/pkg/media"
	"vitrine.io/pkg/pipeline"
)

// The dependencies of every picture.
const (
	Postgres = "postgres"
	S3       = "s3"
	Encoder  = "codec"
)

// WatchCatalog returns a Catalog that also reports to the breaker of Postgres.
func (b *Breakers) WatchCatalog(inner Catalog) Catalog { return watchedCatalog{inner, b} }

// WatchObjects returns Objects that also report to the breaker of S3.
func (b *Breakers) WatchObjects(inner Objects) Objects { return watchedObjects{inner, b} }

// WatchCodec returns a Codec that also reports to the breaker of the codec.
func (b *Breakers) WatchCodec(inner Codec) Codec { return watchedCodec{inner, b} }

type watchedCatalog struct {
	inner    Catalog
	breakers *Breakers
}

func (w watchedCatalog) report(err error) error {
	w.breakers.reportUnavailable(Postgres, err)
	return err
}

func (w watchedCatalog) Begin(ctx context.Context, r catalog.Request, budget time.Duration) (catalog.Attempt, error) {
	a, err := w.inner.Begin(ctx, r, budget)
	return a, w.report(err)
}

func (w watchedCatalog) Postpone(ctx context.Context, r catalog.Request, policy pipeline.Retry, wait time.Duration) error {
	return w.report(w.inner.Postpone(ctx, r, policy, wait))
}

func (w watchedCatalog) Finish(ctx context.Context, a catalog.Attempt, r catalog.Result) error {
	return w.report(w.inner.Finish(ctx, a, r))
}

func (w watchedCatalog) Retry(ctx context.Context, a catalog.Attempt, f *media.Failure, policy pipeline.Retry) error {
	return w.report(w.inner.Retry(ctx, a, f, policy))
}

func (w watchedCatalog) Defer(ctx context.Context, a catalog.Attempt, f *media.Failure, policy pipeline.Retry,
	wait time.Duration,
) error {
	return w.report(w.inner.Defer(ctx, a, f, policy, wait))
}

func (w watchedCatalog) Fail(ctx context.Context, a catalog.Attempt, f *media.Failure) error {
	return w.report(w.inner.Fail(ctx, a, f))
}

func (w watchedCatalog) Release(ctx context.Context, a catalog.Attempt) error {
	return w.report(w.inner.Release(ctx, a))
}

type watchedObjects struct {
	inner    Objects
	breakers *Breakers
}

func (w watchedObjects) Put(ctx context.Context, key, contentType string, body io.ReadSeeker, size int64) error {
	err := w.inner.Put(ctx, key, contentType, body, size)
	w.breakers.reportUnavailable(S3, err)
	return err
}

type watchedCodec struct {
	inner    Codec
	breakers *Breakers
}

func (w watchedCodec) Render(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
	return w.report(w.inner.Render(ctx, source, spec))
}

func (w watchedCodec) RenderSafe(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
	return w.report(w.inner.RenderSafe(ctx, source, spec))
}

// report reports a codec that could not be started. An image that crashed or hung one had a codec that started.
func (w watchedCodec) report(out media.Rendered, err error) (media.Rendered, error) {
	switch f := media.FailureOf(err); {
	case f != nil && f.Code == media.CodecUnavailable:
		if !errors.Is(err, context.Canceled) {
			w.breakers.Report(Encoder, err)
		}
	case err == nil, f != nil:
		w.breakers.Report(Encoder, nil)
	}
	return out, err
}
