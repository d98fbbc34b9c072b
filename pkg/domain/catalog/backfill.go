package catalog

import (
	"context"
	"fmt"
	"time"

	"vitrine.io/pkg/foundation/failpoint"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
)

// BackfillEvent is what happened to an image of a backfill. The store keeps it until the backfill's counts contain it.
type BackfillEvent struct {
	BackfillID int64
	ImageID    ImageID
	Kind       BackfillEventKind
	Code       media.Code // of BackfillFailed
}

// BackfillEventKind is the kind of a BackfillEvent.
type BackfillEventKind string

// The values of BackfillEventKind.
const (
	BackfillRequested BackfillEventKind = "requested" // the image has got a job of the backfill
	BackfillDone      BackfillEventKind = "done"      // it has new renditions
	BackfillFailed    BackfillEventKind = "failed"    // it is as it was before
	BackfillDropped   BackfillEventKind = "dropped"   // the job was removed without an outcome; the image may get another
)

// Backfills says which jobs of backfills may begin.
type Backfills interface {
	// BackfillOpen reports whether jobs of the backfill may begin: it is running, not suspended, and within its windows.
	BackfillOpen(ctx context.Context, id int64) (bool, error)
}

// BackfillRequest is how a backfill requests an image.
type BackfillRequest struct {
	BackfillID   int64
	PipelineHash string // of the target; its document has to be saved
	SkipMissing  bool   // images without an original get no job

	// Selected reports whether the image, as it is locked, belongs to the backfill. The image is idle, and this backfill has
	// not tried it.
	Selected func(UserID, Image) bool
}

// RequestBackfill gives an image a job of a backfill. Clients see no change: neither the version nor the state of the image
// changes before there are new renditions. It returns ErrDone if the image has a job, if the backfill has tried it or does
// not select it, and fault.NotFound if the product or the image does not exist.
func (s *Service) RequestBackfill(ctx context.Context, product ProductID, image ImageID, r BackfillRequest) error {
	id := s.NewID()
	_, err := s.Store.Edit(ctx, product, func(p *Product, now time.Time) (Change, error) {
		if err := p.checkRevision(nil); err != nil {
			return Change{}, err
		}
		return p.requestBackfill(image, r, id, now)
	})
	if err != nil {
		return fmt.Errorf("request backfill: %w", err)
	}
	failpoint.Hit(failpoint.BackfillRequested)
	return nil
}

func (p *Product) requestBackfill(image ImageID, r BackfillRequest, jobID string, now time.Time) (Change, error) {
	img := p.image(image)
	if img == nil {
		return Change{}, fault.New(fault.NotFound, "image_not_found", "the product has no such image")
	}
	if img.JobState != Idle || img.BackfillID == r.BackfillID || !r.Selected(p.UserID, *img) {
		return Change{}, ErrDone
	}
	if r.skips(img) { // requested and ended, without a job
		img.BackfillID = r.BackfillID
		return Change{Backfill: []BackfillEvent{{BackfillID: r.BackfillID, ImageID: img.ID, Kind: BackfillRequested}}}, nil
	}
	img.Class, img.Host = BackfillClass, HostKey(img.SourceURL)
	img.Backfill = BackfillJob{ID: r.BackfillID, PipelineHash: r.PipelineHash, RequestedAt: now, SkipMissing: r.SkipMissing}
	img.queue(jobID, now, 0) // the fencing token stays: an idle image has no attempt that could mistake this for its outcome
	return img.backfillEvent(BackfillRequested, ""), nil
}

// DropBackfill removes an image's job of a backfill, unless an attempt has begun, not ended, and has time left. ErrDone if
// there is no such job; fault.NotFound if the product never existed.
func (s *Service) DropBackfill(ctx context.Context, product ProductID, image ImageID, backfill int64) error {
	_, err := s.Store.Edit(ctx, product, func(p *Product, now time.Time) (Change, error) {
		img := p.image(image)
		if p.Deleted || img == nil || img.Backfill.ID != backfill || img.JobState == Processing && now.Before(img.DueAt) {
			return Change{}, ErrDone
		}
		if img.JobState == Processing {
			img.FencingToken++ // else confirmCommit of the attempt would take this change for its own outcome
		}
		c := img.backfillEvent(BackfillDropped, "")
		img.endJob()
		return c, nil
	})
	if err != nil {
		return fmt.Errorf("drop backfill: %w", err)
	}
	failpoint.Hit(failpoint.BackfillDropped)
	return nil
}

// admitBackfill drops the job and returns ErrDone if it belongs to a backfill that is not open. A suspension after this
// check lets one more attempt begin in this process.
func (s *Service) admitBackfill(ctx context.Context, job Job) error {
	if job.BackfillID == 0 {
		return nil
	}
	open, err := s.Backfills.BackfillOpen(ctx, job.BackfillID)
	if err != nil {
		return fmt.Errorf("read backfill: %w", err)
	}
	if open {
		return nil
	}
	if err := s.DropBackfill(ctx, job.ProductID, job.ImageID, job.BackfillID); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return ErrDone
}

// failBackfill ends a backfill's job with a failure. The image stays as clients see it.
func (img *Image) failBackfill(f *media.Failure) Change {
	c := img.backfillEvent(BackfillFailed, f.Code)
	img.BackfillID = img.Backfill.ID
	img.endJob()
	return c
}

func (img *Image) backfillEvent(kind BackfillEventKind, code media.Code) Change {
	return Change{Backfill: []BackfillEvent{{BackfillID: img.Backfill.ID, ImageID: img.ID, Kind: kind, Code: code}}}
}
