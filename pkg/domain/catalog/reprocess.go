package catalog

import (
	"context"
	"fmt"
	"time"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

// Reprocess starts a new request for an image in any state, with the pipeline in force: a running attempt is superseded,
// and the attempts count from zero. An image that is ready stays visible until it is replaced. It returns fault.NotFound
// if the product or the image does not exist.
func (s *Service) Reprocess(ctx context.Context, product ProductID, image ImageID, traceparent string) (Product, error) {
	live := newJob{class: Live, traceparent: traceparent}
	return s.reprocess(ctx, product, image, live, func(*Image, time.Time) bool { return true })
}

// ReprocessOnce is Reprocess for a request that a client may repeat under one key, as CreateOnce is Create.
func (s *Service) ReprocessOnce(ctx context.Context, product ProductID, image ImageID, key IdempotencyKey,
	respond func(Product) (SavedResponse, error), traceparent string,
) (saved SavedResponse, replayed bool, err error) {
	live := newJob{class: Live, traceparent: traceparent}
	edit, err := s.reprocessing(ctx, image, live, func(*Image, time.Time) bool { return true })
	if err != nil {
		return nil, false, err
	}
	p, saved, replayed, err := s.Store.EditOnce(ctx, key, product, func(p *Product, now time.Time) (Change, error) {
		if err := p.checkRevision(nil); err != nil {
			return Change{}, err
		}
		return edit(p, now)
	}, respond)
	if err != nil {
		return nil, false, fmt.Errorf("reprocess image once: %w", err)
	}
	if !replayed {
		s.afterChange(ctx, p)
	}
	return saved, replayed, nil
}

// Replay reprocesses an image that an image.dead event reports. fencingToken is that of the event. It returns ErrDone if
// the image has changed since then, and fault.NotFound if the product or the image does not exist.
func (s *Service) Replay(ctx context.Context, product ProductID, image ImageID, fencingToken int64) error {
	_, err := s.reprocess(ctx, product, image, newJob{class: Bulk}, func(img *Image, _ time.Time) bool {
		return img.JobState == Idle && img.FencingToken == fencingToken && (img.Status == Failed || img.ReprocessError != "")
	})
	return err
}

// ReprocessIf reprocesses an image that filter has selected, after delay and after the jobs for which clients wait. It
// returns ErrDone if the image has a job or filter no longer matches it, and fault.NotFound if the product or the image does
// not exist.
func (s *Service) ReprocessIf(ctx context.Context, product ProductID, image ImageID, filter Filter, delay time.Duration,
) error {
	bulk := newJob{class: Bulk, delay: delay}
	_, err := s.reprocess(ctx, product, image, bulk, func(img *Image, now time.Time) bool {
		return img.JobState == Idle && filter.Matches(*img, now)
	})
	return err
}

// Filter selects images. A zero field is no condition.
type Filter struct {
	Status       Status
	Code         media.Code    // the failure code of the image, or its reprocess error
	OlderThan    time.Duration // minimum time since the last request
	PipelineHash string        // pipeline of the last request
}

// Matches reports whether the image meets every condition.
func (f Filter) Matches(img Image, now time.Time) bool {
	return (f.Status == "" || img.Status == f.Status) &&
		(f.Code == "" || img.ErrorCode == f.Code || img.ReprocessError == f.Code) &&
		(f.OlderThan == 0 || now.Sub(img.RequestedAt) > f.OlderThan) &&
		(f.PipelineHash == "" || img.PipelineHash == f.PipelineHash)
}

// BulkResult is the result of one call that reprocesses many images.
type BulkResult struct {
	Requested int           // images that were requested again
	Skipped   int           // images that were selected but then had a job or no longer matched the filter
	Next      ImageID       // the last image that was examined, where the next call continues; 0 if none are left
	Spread    time.Duration // time from now until the last requested image is due
}

// reprocess gives an eligible image the job, after setting its id and the hash of the pipeline in force.
func (s *Service) reprocess(ctx context.Context, product ProductID, image ImageID, job newJob,
	eligible func(*Image, time.Time) bool,
) (Product, error) {
	edit, err := s.reprocessing(ctx, image, job, eligible)
	if err != nil {
		return Product{}, err
	}
	return s.change(ctx, product, nil, "reprocess image", edit)
}

// reprocessing returns the edit of a product that requests one of its images again, with the pipeline in force. The edit
// returns ErrDone if the image is not eligible.
func (s *Service) reprocessing(ctx context.Context, image ImageID, job newJob,
	eligible func(*Image, time.Time) bool,
) (func(*Product, time.Time) (Change, error), error) {
	hash, err := s.RecordPipeline(ctx)
	if err != nil {
		return nil, fmt.Errorf("record pipeline: %w", err)
	}
	job.hash, job.id = hash, s.NewID()
	r := reprocessRequest{job: job, changedID: s.NewID()}
	return func(p *Product, now time.Time) (Change, error) {
		img := p.image(image)
		if img == nil {
			return Change{}, fault.New(fault.NotFound, "image_not_found", "the product has no such image")
		}
		if !eligible(img, now) {
			return Change{}, ErrDone
		}
		return p.reprocess(img, r, now), nil
	}, nil
}
