package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

// originalName is the last part of the key of an original.
const originalName = "source"

var (
	errOriginalMissing = errors.New("the original is missing")
	errOriginalDamaged = errors.New("the original is damaged")

	// errSkipped means that the backfill of the job skips images whose original cannot be read.
	errSkipped = errors.New("the image has no original")
)

// readSource returns the source of an attempt: its original, or what its URL serves. It returns errSkipped if there is no
// original to read and the backfill wants no other source.
func (w *Worker) readSource(ctx context.Context, t *task) (Download, error) {
	if t.attempt.Original.Key != "" {
		t.releaseHost()
		src, err := w.readOriginal(ctx, t)
		missing := errors.Is(err, errOriginalMissing)
		if !missing && !errors.Is(err, errOriginalDamaged) {
			return src, err
		}
		w.metrics.original(missing)
		t.log.Warn("original not read", zap.String("key", t.attempt.Original.Key), zap.Error(err))
		if !missing && !t.canary { // a canary changes no image
			w.forgetOriginal(ctx, t)
		}
	}
	if t.attempt.SkipMissing {
		return Download{}, errSkipped
	}
	return w.download(ctx, t)
}

// forgetOriginal removes the damaged original from the image, so that the object is deleted and the next download may keep
// another. The attempt stays the current one. An error changes nothing about the attempt: the next backfill finds the damage
// again.
func (w *Worker) forgetOriginal(ctx context.Context, t *task) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.OutcomeTimeout)
	defer cancel()
	err := w.Catalog.ForgetOriginal(ctx, t.ProductID, t.ImageID, t.attempt.Original.Key)
	w.Breakers.observe(DependencyPostgres, err)
	if err != nil && !errors.Is(err, catalog.ErrDone) {
		t.log.Warn("damaged original not forgotten", zap.String("key", t.attempt.Original.Key), zap.Error(err))
	}
}

// download downloads the source from its URL. A task that was to read an original has no host slot.
func (w *Worker) download(ctx context.Context, t *task) (Download, error) {
	if !t.holdsHost {
		if err := w.acquireHost(ctx, t); err != nil {
			return Download{}, err
		}
	}
	src, err := w.Source.Fetch(ctx, t.attempt.SourceURL, t.rules, int64(t.spec.Limits.MaxBytes))
	t.releaseHost()
	if err = w.observeFetch(ctx, t, err); err != nil {
		return Download{}, err
	}
	w.metrics.bytesIn.Add(float64(len(src.Body)))
	return src, nil
}

// readOriginal reads the original of the attempt into memory, and checks its SHA-256. It returns errOriginalMissing or
// errOriginalDamaged if that cannot succeed, else a *media.Failure or the error of ctx.
func (w *Worker) readOriginal(ctx context.Context, t *task) (src Download, err error) {
	o := t.attempt.Original
	switch {
	case w.Originals == nil:
		return Download{}, fmt.Errorf("%w: no bucket for originals is configured", errOriginalMissing)
	case o.Bytes > int64(t.spec.Limits.MaxBytes):
		detail := fmt.Sprintf("the source is larger than %d bytes", t.spec.Limits.MaxBytes)
		return Download{}, media.Fail(media.TooLarge, detail, nil)
	}
	if w.Memory != nil {
		if src.Release, err = w.Memory.Reserve(ctx, o.Bytes); err != nil {
			return Download{}, fmt.Errorf("wait for memory: %w", err)
		}
	}
	body, err := w.Originals.Read(ctx, o.Key, o.Bytes)
	w.observeOriginals(err)
	sum := sha256.Sum256(body)
	switch {
	case fault.Is(err, fault.NotFound):
		err = errOriginalMissing
	case fault.Is(err, fault.Conflict):
		err = fmt.Errorf("%w: it has more than %d bytes", errOriginalDamaged, o.Bytes)
	case err == nil && hex.EncodeToString(sum[:]) == o.SHA256:
		src.Body, src.SHA256, src.original = body, o.SHA256, true
		w.metrics.originals.WithLabelValues(originalRead).Inc()
		return src, nil
	case err == nil:
		err = fmt.Errorf("%w: its SHA-256 is %x", errOriginalDamaged, sum)
	case fault.Is(err, fault.Unavailable):
		err = media.Fail(media.StorageFailed, "the original could not be read", err)
	}
	src.Discard()
	return Download{}, err
}

// observeOriginals reports the result of an operation on the bucket of the originals, if the pipeline in force keeps
// originals. Else other jobs do not need that bucket, and its outage must not stop them.
func (w *Worker) observeOriginals(err error) {
	if w.Pipeline().Spec().Originals.Keep {
		w.Breakers.observe(DependencyS3, err)
	}
}

// keepsOriginal reports whether the attempt stores its source. An attempt that has read the original leaves it as it is.
func (w *Worker) keepsOriginal(t *task, src *Download) bool {
	return t.attempt.OriginalPrefix != "" && w.Originals != nil && !src.original
}

// keepOriginal stores the source, with the content type that the codec has recognized, and returns its key.
func (w *Worker) keepOriginal(ctx context.Context, t *task, src *Download, out media.Rendered) (string, error) {
	contentType := "application/octet-stream"
	if out.Format != "" {
		contentType = out.Format.ContentType()
	}
	key := t.attempt.OriginalPrefix + originalName
	err := w.Originals.Put(ctx, key, contentType, bytes.NewReader(src.Body), int64(len(src.Body)))
	w.observeOriginals(err)
	if err != nil {
		return "", media.Fail(media.StorageFailed, "the original could not be stored", err)
	}
	w.metrics.originals.WithLabelValues(originalKept).Inc()
	w.metrics.originalBytes.Add(float64(len(src.Body)))
	return key, nil
}

// skip ends the attempt of a backfill without an outcome for its image.
func (w *Worker) skip(ctx context.Context, t *task) error {
	ctx, cancel := w.outcomeContext(ctx)
	defer cancel()
	return w.logOutcome(t, skipped, &media.Failure{}, w.Catalog.Skip(ctx, t.attempt))
}
