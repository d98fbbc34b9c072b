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

// WatchCatalog returns a Catalog that does the same, and reports to the circuit of Postgres.
func (c *Circuits) WatchCatalog(inner Catalog) Catalog { return watchedCatalog{inner, c} }

// WatchObjects returns Objects that do the same, and report to the circuit of S3.
func (c *Circuits) WatchObjects(inner Objects) Objects { return watchedObjects{inner, c} }

// WatchCodec returns a Codec that does the same, and reports to the circuit of the codec.
func (c *Circuits) WatchCodec(inner Codec) Codec { return watchedCodec{inner, c} }

type watchedCatalog struct {
	inner    Catalog
	circuits *Circuits
}

func (w watchedCatalog) told(err error) error {
	w.circuits.reportUnavailable(Postgres, err)
	return err
}

func (w watchedCatalog) Begin(ctx context.Context, r catalog.Request, traceparent string, budget time.Duration,
) (catalog.Attempt, error) {
	a, err := w.inner.Begin(ctx, r, traceparent, budget)
	return a, w.told(err)
}

func (w watchedCatalog) Finish(ctx context.Context, a catalog.Attempt, r catalog.Result) error {
	return w.told(w.inner.Finish(ctx, a, r))
}

func (w watchedCatalog) Retry(ctx context.Context, a catalog.Attempt, f *media.Failure, policy pipeline.Retry) error {
	return w.told(w.inner.Retry(ctx, a, f, policy))
}

func (w watchedCatalog) Defer(ctx context.Context, a catalog.Attempt, f *media.Failure, policy pipeline.Retry,
	wait time.Duration,
) error {
	return w.told(w.inner.Defer(ctx, a, f, policy, wait))
}

func (w watchedCatalog) Fail(ctx context.Context, a catalog.Attempt, f *media.Failure) error {
	return w.told(w.inner.Fail(ctx, a, f))
}

func (w watchedCatalog) Release(ctx context.Context, a catalog.Attempt) error {
	return w.told(w.inner.Release(ctx, a))
}

type watchedObjects struct {
	inner    Objects
	circuits *Circuits
}

func (w watchedObjects) Put(ctx context.Context, key, contentType string, body io.ReadSeeker, size int64) error {
	err := w.inner.Put(ctx, key, contentType, body, size)
	w.circuits.reportUnavailable(S3, err)
	return err
}

type watchedCodec struct {
	inner    Codec
	circuits *Circuits
}

func (w watchedCodec) Render(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
	return w.report(w.inner.Render(ctx, source, spec))
}

func (w watchedCodec) RenderSafe(ctx context.Context, source []byte, spec pipeline.Spec) (media.Rendered, error) {
	return w.report(w.inner.RenderSafe(ctx, source, spec))
}

// report tells of a codec that cannot be started. A picture that crashes or hangs it has at least met one.
func (w watchedCodec) report(made media.Rendered, err error) (media.Rendered, error) {
	switch f := media.FailureOf(err); {
	case f != nil && f.Code == media.CodecUnavailable:
		if !errors.Is(err, context.Canceled) {
			w.circuits.Report(Encoder, err)
		}
	case err == nil, f != nil:
		w.circuits.Report(Encoder, nil)
	}
	return made, err
}
